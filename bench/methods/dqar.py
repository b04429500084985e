"""Attention reuse by this project's runtime."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

import dqar
from bench.methods import scheduler
from bench.methods.base import Arm, Method, Untimed, only
from bench.methods.space import Among, Baseline, Space, evaluations, one_space
from bench.record import Reuse
from dqar.integration.adapter import Adapter
from dqar.policy.saved_plan import SavedPlan

PLANS = Path(__file__).parents[1] / "embedded" / "plans"
PLAN = "plan"  # in place of plan_path: the name of a plan that ships for the embedded model
# Every layer is computed at every step; `layer_fraction` counts only with the layer schedule.
NO_LAYERS = {"use_layer_scheduling": True, "layer_fraction": 0.0}
QUANTILE = "entropy_quantile"  # in place of entropy_threshold, which means another thing on another model


def config(options: dict[str, Any]) -> dqar.DQARConfig:
    """The configuration that options ask for: `preset` (if given) with the others as overrides.

    Args:
        options: Fields of DQARConfig, `preset`, `plan`, `entropy_quantile`, and the solver's, which do not
            count here.

    Returns:
        The configuration.

    Raises:
        ValueError: Naming the option, the value and what is allowed.
    """
    apart = ("preset", QUANTILE, PLAN, *scheduler.OPTIONS)
    only(options, (*apart, *inspect.signature(dqar.DQARConfig).parameters))
    fields = {key: _frozen(value) for key, value in options.items() if key not in apart}
    if PLAN in options:
        fields["plan_path"] = str(_shipped(options[PLAN]))
    if "preset" in options:
        return dqar.DQARConfig.preset(options["preset"], **fields)
    return dqar.DQARConfig(**fields)


def plan_file(options: dict[str, Any]) -> Path | None:
    """The plan that options name, by `plan` or `plan_path`.

    Args:
        options: As `config` takes them.

    Returns:
        Its file; None where they name none.
    """
    path = config(options).plan_path
    return Path(path) if path else None


def other_layers(options: dict[str, Any], layers: int) -> int | None:
    """For how many layers the plan of the option `plan` was calibrated, where the model has another number.

    Args:
        options: As `config` takes them.
        layers: The model's.

    Returns:
        The plan's layers; None where there is no such plan, or it fits.
    """
    if PLAN not in options:
        return None
    made_for = int(SavedPlan.load(_shipped(options[PLAN])).reuse.shape[1])
    return None if made_for == layers else made_for


def named_files(options: dict[str, Any]) -> dict[str, Path]:
    """The files that options name.

    Args:
        options: As `config` takes them.

    Returns:
        The path of the `plan`, and of the `policy`'s directory, where they are named.
    """
    chosen = config(options)
    named = {"plan": chosen.plan_path, "policy": chosen.policy_path}
    return {what: Path(path) for what, path in named.items() if path}


def _shipped(name: Any) -> Path:
    names = sorted(path.stem for path in PLANS.glob("*.json"))
    if name not in names:
        raise ValueError(f"{PLAN} = {name!r} is not allowed; allowed: {', '.join(names)}")
    return PLANS / f"{name}.json"


def check(options: dict[str, Any]) -> None:
    """Check options, those of the solver and the plan's file included.

    Args:
        options: As a suite has them.

    Raises:
        ValueError: Naming the first option, its value and what is allowed.
    """
    file = plan_file(options)
    if file is not None:
        SavedPlan.load(file)
    scheduler.check(options)
    value = options.get(QUANTILE, 0.5)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError(f"{QUANTILE} = {value!r} is not allowed; allowed: a number from 0 to 1")
    if QUANTILE in options and "entropy_threshold" in options:
        raise ValueError(f"{QUANTILE} and entropy_threshold exclude each other")


def by_data(options: dict[str, Any]) -> bool:
    """Whether entropies, a policy or observed changes decide; a threshold of 0 forbids whatever they are.

    Args:
        options: As `config` takes them.

    Returns:
        False for plans that hold whatever the model computes.
    """
    chosen = config(options)
    gated = chosen.entropy_gate and chosen.entropy_threshold > 0
    return QUANTILE in options or gated or chosen.adaptive or chosen.use_learned_policy


def resolve(options: dict[str, Any], untimed: Untimed) -> dict[str, Any]:
    """Find the entropy threshold below which `entropy_quantile` of the model's entropies lie.

    Args:
        options: As `config` takes them.
        untimed: Runs an untimed generation, here one that reuses nothing.

    Returns:
        `entropy_threshold` in nats; empty where no quantile is asked for.
    """
    if QUANTILE not in options:
        return {}
    given = {name: options[name] for name in scheduler.OPTIONS if name in options}
    with untimed(given | NO_LAYERS | {"trace_entropy": True}) as arm:
        measured = arm.reuse()
    rows = (measured and measured.entropy) or []
    known = [value for row in rows for value in row if value is not None]
    return {"entropy_threshold": float(np.quantile(known, options[QUANTILE]))}


@contextmanager
def apply(pipe: Any, options: dict[str, Any]) -> Iterator[Arm]:
    """Enable reuse on the pipeline's transformer.

    Args:
        pipe: A pipeline of diffusers.
        options: As `config` takes them; layers and heads are the model's where they are not given.

    Yields:
        The pipeline under DQAR.
    """
    # A quantile is one of entropies under this model's own prompts: no length scales it.
    unscaled = {"adaptive_entropy": False} if QUANTILE in options else {}
    chosen = config(shape_of(pipe) | unscaled | options)
    with scheduler.solver(pipe, options) as call:
        dqar.enable(pipe, chosen)
        try:
            yield Arm(
                call=call,
                reuse=lambda: reuse(dqar.summary(pipe)),
                cache_bytes=lambda: int(dqar.summary(pipe).cache_bytes),
            )
        finally:
            dqar.disable(pipe)


def shape_of(pipe: Any) -> dict[str, Any]:
    """The layers and heads of the current model, in place of the configuration's defaults.

    Args:
        pipe: A pipeline of diffusers.

    Returns:
        `num_layers` and `num_heads`.
    """
    adapter = Adapter(pipe.transformer)
    heads = adapter.heads or pipe.transformer.config.num_attention_heads
    return {"num_layers": len(adapter.attentions), "num_heads": heads}


def reuse(summary: Any) -> Reuse:
    """A runtime summary as the record has it: plain lists, null where not measured.

    Args:
        summary: What `dqar.summary` returned.

    Returns:
        The record's part, floats of tables to six digits.
    """
    entropy = np.asarray(summary.entropy, dtype=float)
    return Reuse(
        ratio=float(summary.ratio),
        plan_ratio=float(summary.plan_ratio),
        map=np.asarray(summary.map, dtype=int).tolist(),
        entropy=_null_for_nan(entropy) if np.isfinite(entropy).any() else None,
        snr=[_shortened(x) for x in np.nan_to_num(np.asarray(summary.snr, dtype=float))],
        reasons=dict(Counter(summary.reasons)),
        conditional_only=float(np.mean(summary.conditional_only)),
        skipped=float(np.mean(summary.skipped)),
    )


def _null_for_nan(table: np.ndarray[Any, Any]) -> list[list[float | None]]:
    return [[_shortened(x) if np.isfinite(x) else None for x in row] for row in table]


def _shortened(x: float) -> float:
    """Six digits: float32 has hardly more, and a table of all layers and steps is most of
    a record."""
    return float(f"{x:.6g}")


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def space(baseline: Baseline) -> Space:
    """What `tune --method` searches: the steps that run and where they lie, of a grid as fine as the
    baseline's or up to eight times as fine, over what outputs are forecast and how far forecasts are
    corrected. Eight times as fine, DDIM's steps do not divide the model's, and diffusers rounds them.

    A forecast of the second order, stronger corrections and guidance at every second step lost wherever they
    were tried, so they are not searched; plans are what `calibrate` searches.

    Args:
        baseline: The run that is to be made faster.

    Returns:
        One space's dimensions by name.
    """
    steps, dpm = baseline.steps, {"scheduler": "dpm_solver++"}
    spread = {"preset": "maximum", "layer_fraction": 0.0}
    solvers: dict[str, dict[str, Any]] = {
        "own": spread,
        "own-double": spread | {"steps": 2 * steps},
        "own-fourfold": spread | {"steps": 4 * steps},
        "dpm": spread | dpm,
        "dpm-double": spread | dpm | {"steps": 2 * steps},
        "dpm-fourfold": spread | dpm | {"steps": 4 * steps},
        "dpm-eightfold": spread | dpm | {"steps": 8 * steps},
    }
    shares = {f"share-{share:g}": {"log_snr_share": share} for share in (0.1, 0.2, 0.3, 0.45, 0.6)}
    return {
        "solver": Among(solvers),
        "model_steps": evaluations(baseline),
        "spread": Among(shares),
        "coordinate": Among({"mixture": {}, "log-snr": {"forecast_over": "log_snr"}}),
        "correction": Among(
            {f"corrected-{share:g}": {"output_correction": share} for share in (0.0, 0.25, 0.5)}
        ),
    }


METHOD = Method(
    check=check,
    apply=apply,
    trace={"trace_entropy": True},
    resolve=resolve,
    by_data=by_data,
    fixed_steps=lambda options: plan_file(options) is not None,
    spaces=one_space("dqar", space),
)
