"""DBCache (cache-dit): the middle blocks' residual is held, or forecast, while the first ones change little.

A user of it calls `cache_dit.enable_cache(pipe, ...)`, and so does this.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bench.methods.base import Arm, Method, always
from bench.methods.hooks import Range, checked, restored
from bench.methods.scheduler import solver

KNOWN = {
    "threshold": Range(float, 0, 10, 0.08),
    "front_blocks": Range(int, 1, 100, 1),  # Fn: always computed, their change decides
    "back_blocks": Range(int, 0, 100, 0),  # Bn: always computed too
    # Its calibrator sees no difference before the fourth computed step: with three it holds, silently.
    "warmup_steps": Range(int, 0, 100, 4),
    "taylorseer_order": Range(int, 0, 4, 0),  # 0: without its TaylorSeer calibrator
}


def check(options: dict[str, Any]) -> None:
    """ValueError naming the option, its value and what is allowed."""
    checked(options, KNOWN)


@contextmanager
def apply(pipe: Any, options: dict[str, Any]) -> Iterator[Arm]:
    """Enable it as a user would, and take it off again."""
    import cache_dit

    values = checked(options, KNOWN)
    config = cache_dit.DBCacheConfig(
        Fn_compute_blocks=values["front_blocks"],
        Bn_compute_blocks=values["back_blocks"],
        residual_diff_threshold=values["threshold"],
        max_warmup_steps=values["warmup_steps"],
    )
    order = values["taylorseer_order"]
    calibrator = cache_dit.TaylorSeerCalibratorConfig(taylorseer_order=order) if order else None
    with solver(pipe, options) as call, restored(pipe.transformer):
        cache_dit.enable_cache(pipe, cache_config=config, calibrator_config=calibrator)
        try:
            yield Arm(call=call)
        finally:
            cache_dit.disable_cache(pipe)


METHOD = Method(check=check, apply=apply, by_data=always)
