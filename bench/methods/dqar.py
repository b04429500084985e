"""Attention reuse by this project's runtime."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

import dqar
from bench.methods import solver
from bench.methods.base import Arm, Method, Tried, only
from bench.record import Reuse

QUANTILE = "entropy_quantile"  # in place of entropy_threshold, which means another thing on another model


def config(options: dict[str, Any]) -> dqar.DQARConfig:
    """The DQARConfig of `preset` (if given) with the other options as overrides.

    Raises ValueError naming the option, the value and what is allowed.
    """
    apart = ("preset", QUANTILE, *solver.OPTIONS)
    only(options, (*apart, *inspect.signature(dqar.DQARConfig).parameters))
    fields = {key: _frozen(value) for key, value in options.items() if key not in apart}
    if "preset" in options:
        return dqar.DQARConfig.preset(options["preset"], **fields)
    return dqar.DQARConfig(**fields)


def check(options: dict[str, Any]) -> None:
    """ValueError naming the first option, its value and what is allowed."""
    config(options)
    solver.check(options)
    value = options.get(QUANTILE, 0.5)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError(f"{QUANTILE} = {value!r} is not allowed; allowed: a number from 0 to 1")
    if QUANTILE in options and "entropy_threshold" in options:
        raise ValueError(f"{QUANTILE} and entropy_threshold exclude each other")


def resolve(options: dict[str, Any], tried: Tried) -> dict[str, Any]:
    """The entropy threshold below which `entropy_quantile` of the model's entropies lie, in nats."""
    if QUANTILE not in options:
        return {}
    given = {name: options[name] for name in solver.OPTIONS if name in options}
    with tried(given | {"layer_fraction": 0, "trace_entropy": True}) as arm:
        found = arm.reuse()
    rows = (found and found.entropy) or []
    known = [value for row in rows for value in row if value is not None]
    return {"entropy_threshold": float(np.quantile(known, options[QUANTILE]))}


@contextmanager
def apply(pipe: Any, options: dict[str, Any]) -> Iterator[Arm]:
    """Enable reuse on every attention layer of the pipeline's transformer."""
    chosen = config(shape_of(pipe) | options)
    with solver.solver(pipe, options) as call:
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
    """The layers and heads of the model at hand, in place of the configuration's defaults."""
    shape = pipe.transformer.config
    return {"num_layers": shape.num_layers, "num_heads": shape.num_attention_heads}


def reuse(summary: Any) -> Reuse:
    """A runtime summary as the record has it: plain lists, null where not measured."""
    entropy = np.asarray(summary.entropy, dtype=float)
    return Reuse(
        ratio=float(summary.ratio),
        plan_ratio=float(summary.plan_ratio),
        map=np.asarray(summary.map, dtype=int).tolist(),
        entropy=_null_for_nan(entropy) if np.isfinite(entropy).any() else None,
        snr=np.nan_to_num(np.asarray(summary.snr, dtype=float)).tolist(),
        reasons=dict(Counter(summary.reasons)),
        alone=float(np.mean(summary.alone)),
    )


def _null_for_nan(table: np.ndarray[Any, Any]) -> list[list[float | None]]:
    return [[float(x) if np.isfinite(x) else None for x in row] for row in table]


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


METHOD = Method(check=check, apply=apply, trace={"trace_entropy": True}, resolve=resolve)
