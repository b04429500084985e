"""DBCache (cache-dit): the middle blocks' residual is held, or forecast, while the first ones change little.

A user of it calls `cache_dit.enable_cache(pipe, ...)`, and so does this. Its calibrators forecast the
residual: TaylorSeer by a polynomial, DMD by exponentials fitted to the last steps, FoCa as an ODE
(arXiv 2508.16211). Its step masks (SCM) set which steps are computed in full, whatever changes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bench.methods.base import Arm, Method, always
from bench.methods.hooks import Choice, Range, checked, restored
from bench.methods.scheduler import solver
from bench.methods.space import Among, Baseline, Real, Space, Whole, one_space, solvers

NONE = "none"
KNOWN: dict[str, Range | Choice] = {
    "threshold": Range(float, 0, 10, 0.08),
    "front_blocks": Range(int, 1, 100, 1),  # Fn: always computed, their change decides
    "back_blocks": Range(int, 0, 100, 0),  # Bn: always computed too
    # Its TaylorSeer sees no difference before the fourth computed step: with three it holds, silently.
    "warmup_steps": Range(int, 0, 100, 4),
    "taylorseer_order": Range(int, 0, 4, 0),  # 0: without its TaylorSeer calibrator
    "calibrator": Choice((NONE, "dmd", "foca")),  # in place of TaylorSeer
    "mask": Choice((NONE, "slow", "medium", "fast", "ultra")),  # of steps; it needs `steps`
    "mask_policy": Choice(("dynamic", "static")),  # whether the threshold decides the other steps too
}
SHORTEST = 8  # steps that a mask is made for


def check(options: dict[str, Any]) -> None:
    """Check options against KNOWN and the solver's, and against each other.

    Args:
        options: As a suite has them.

    Raises:
        ValueError: Naming the option, its value and what is allowed.
    """
    values = checked(options, KNOWN)
    if values["taylorseer_order"] and values["calibrator"] != NONE:
        raise ValueError(
            f"calibrator: {values['calibrator']!r} excludes taylorseer_order; allowed: one of them"
        )
    if values["mask"] != NONE and not options.get("steps", 0) >= SHORTEST:
        raise ValueError(f"mask: {values['mask']!r} needs steps; allowed: {SHORTEST} or more")
    if values["mask"] == NONE and "mask_policy" in options:
        raise ValueError(f"mask_policy: {values['mask_policy']!r} needs a mask; allowed: with mask")


@contextmanager
def apply(pipe: Any, options: dict[str, Any]) -> Iterator[Arm]:
    """Enable it as a user would, and take it off again.

    Args:
        pipe: A pipeline that cache-dit knows.
        options: As `check` lets them through.

    Yields:
        The pipeline with the cache on.
    """
    import cache_dit

    values = checked(options, KNOWN)
    config = cache_dit.DBCacheConfig(
        Fn_compute_blocks=values["front_blocks"],
        Bn_compute_blocks=values["back_blocks"],
        residual_diff_threshold=values["threshold"],
        max_warmup_steps=values["warmup_steps"],
    )
    if values["mask"] != NONE:
        mask = cache_dit.steps_mask(total_steps=options["steps"], mask_policy=values["mask"])
        config.update(steps_computation_mask=mask, steps_computation_policy=values["mask_policy"])
        config.update(num_inference_steps=options["steps"])
    calibrator = _calibrator(values)
    with solver(pipe, options) as call, restored(pipe.transformer):
        cache_dit.enable_cache(pipe, cache_config=config, calibrator_config=calibrator)
        try:
            yield Arm(call=call)
        finally:
            cache_dit.disable_cache(pipe)


def _calibrator(values: dict[str, Any]) -> Any:
    """What forecasts the residual; None where it is held."""
    import cache_dit

    if values["taylorseer_order"]:
        return cache_dit.TaylorSeerCalibratorConfig(taylorseer_order=values["taylorseer_order"])
    kinds = {"dmd": cache_dit.DMDCalibratorConfig, "foca": cache_dit.FoCaCalibratorConfig}
    return kinds[values["calibrator"]]() if values["calibrator"] != NONE else None


def gap(pipeline: str, options: dict[str, Any]) -> str | None:
    """Why it does not run on a pipeline.

    Args:
        pipeline: The name of its class in diffusers.
        options: As `check` lets them through.

    Returns:
        A clause for reports; None where it runs.
    """
    values = checked(options, KNOWN)
    forecasts = values["taylorseer_order"] or values["calibrator"] != NONE
    if pipeline != "StableDiffusion3Pipeline" or not forecasts or values["back_blocks"]:
        return None
    return (
        "cache-dit forecasts both streams, and this model's last block returns no text; needed: back_blocks"
    )


def space(baseline: Baseline) -> Space:
    """What is searched: all of its options, on each of the solvers.

    Args:
        baseline: The run that is to be made faster; a flow's forecasts need a last block.

    Returns:
        One space's dimensions by name.
    """
    calibrators: dict[str, dict[str, Any]] = {
        "held": {},
        "taylorseer-1": {"taylorseer_order": 1},
        "taylorseer-2": {"taylorseer_order": 2},
        "dmd": {"calibrator": "dmd"},
        "foca": {"calibrator": "foca"},
    }
    masks = {
        f"{name}-{policy}": {"mask": name, "mask_policy": policy}
        for name in KNOWN["mask"].names[1:]  # type: ignore[union-attr]
        for policy in ("dynamic", "static")
    }
    return {
        "solver": solvers(baseline, explicit=True),
        "calibrator": Among(calibrators),
        "masks": Among({"none": {}, **masks}),
        "threshold": Real(0.03, 0.5),
        "front_blocks": Whole(1, 2),
        "back_blocks": Whole(int(baseline.flow), 2),
        "warmup_steps": Whole(3, 8),
    }


METHOD = Method(check=check, apply=apply, by_data=always, gap=gap, spaces=one_space("dbcache", space))
