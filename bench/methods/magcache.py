"""MagCache (Ma et al. 2025, arXiv 2506.09045), diffusers': the blocks' residual is held while the magnitudes
that a calibrating generation found let the error of it accumulate to less than a threshold."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from diffusers.hooks import MagCacheConfig, apply_mag_cache
from diffusers.hooks.mag_cache import _MAG_CACHE_LEADER_BLOCK_HOOK

from bench.methods.base import Arm, Method, always, by_one_generation
from bench.methods.hooks import Range, cache_context, checked, restored
from bench.methods.scheduler import solver
from bench.methods.space import Baseline, Real, Space, Whole, one_space, solvers
from dqar.integration.adapter import blocks_of, unwrapped

RATIOS = "mag_ratios"  # found by calibration; without them a generation calibrates
KNOWN = {
    "threshold": Range(float, 0, 10, 0.06),
    "max_skip_steps": Range(int, 1, 50, 3),
    "retention_ratio": Range(float, 0, 1, 0.2),
}


def check(options: dict[str, Any]) -> None:
    """Check options; `steps` is needed, for the ratios are those of so many steps.

    Args:
        options: As a suite has them.

    Raises:
        ValueError: Naming the option, its value and what is allowed.
    """
    checked(options, KNOWN)
    if "steps" not in options:
        raise ValueError("steps is not given; needed: the number of steps to calibrate for")


@contextmanager
def apply(pipe: Any, options: dict[str, Any]) -> Iterator[Arm]:
    """Hold by the ratios given, or calibrate where none are; the arm then reports what was measured.

    Args:
        pipe: A pipeline that MagCache's hooks know.
        options: As `check` lets them through, and `mag_ratios` as `resolve` found them.

    Yields:
        The pipeline with the hooks on.
    """
    ratios = options.get(RATIOS)
    given = {name: value for name, value in options.items() if name != RATIOS}
    values, steps = checked(given, KNOWN), given["steps"]
    # Diffusers prints and forgets what it found after the last step: it is made to wait for one more.
    mode = {"calibrate": True, "num_inference_steps": steps + 1} if ratios is None else {RATIOS: ratios}
    with solver(pipe, given) as call, restored(pipe.transformer):
        if ratios is None:  # a pipeline resets its caches at the end, and what was found with them
            pipe.transformer._reset_stateful_cache = lambda *args, **kwargs: None
        apply_mag_cache(pipe.transformer, MagCacheConfig(**({"num_inference_steps": steps} | values | mode)))
        with cache_context(pipe.transformer):
            yield Arm(call=call, calibrated=lambda: {RATIOS: _calibrated(pipe.transformer)})


def _calibrated(transformer: Any) -> list[float]:
    """The ratios of the first guidance branch that ran, by the context that it ran in."""
    first: Any = blocks_of(unwrapped(transformer))[0]
    hook = first._diffusers_hook.get_hook(_MAG_CACHE_LEADER_BLOCK_HOOK)
    states = [state.calibration_ratios for state in hook.state_manager._state_cache.values()]
    return list(next((ratios for ratios in states if ratios), []))


def space(baseline: Baseline) -> Space:
    """What is searched: all of its options, on each of the solvers.

    Args:
        baseline: The run that is to be made faster.

    Returns:
        One space's dimensions by name.
    """
    return {
        "solver": solvers(baseline, explicit=True),
        "threshold": Real(0.01, 0.4),
        "max_skip_steps": Whole(1, 6),
        "retention_ratio": Real(0.05, 0.3),
    }


METHOD = Method(
    check=check, apply=apply, resolve=by_one_generation, by_data=always, spaces=one_space("magcache", space)
)
