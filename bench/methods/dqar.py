"""Attention reuse by this project's runtime."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

import dqar
from bench.methods.base import ATTENTION, Arm, Method, only
from bench.record import Reuse

KV_PROJECTIONS = (f"{ATTENTION}.to_k", f"{ATTENTION}.to_v")


def config(options: dict[str, Any]) -> dqar.DQARConfig:
    """The DQARConfig of `preset` (if given) with the other options as overrides.

    Raises ValueError naming the option, the value and what is allowed.
    """
    only(options, ("preset", *inspect.signature(dqar.DQARConfig).parameters))
    fields = {key: _frozen(value) for key, value in options.items() if key != "preset"}
    if "preset" in options:
        return dqar.DQARConfig.preset(options["preset"], **fields)
    return dqar.DQARConfig(**fields)


@contextmanager
def apply(pipe: Any, options: dict[str, Any]) -> Iterator[Arm]:
    """Enable reuse on every attention layer of the pipeline's transformer."""
    chosen = config(shape_of(pipe) | options)
    dqar.enable(pipe, chosen)
    try:
        yield Arm(
            saves=KV_PROJECTIONS if chosen.reuse_mode == "kv" else (ATTENTION,),
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
    )


def _null_for_nan(table: np.ndarray[Any, Any]) -> list[list[float | None]]:
    return [[float(x) if np.isfinite(x) else None for x in row] for row in table]


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


METHOD = Method(check=config, apply=apply, trace={"trace_entropy": True})
