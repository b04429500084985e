"""Fewer denoising steps, or another solver: what any reuse has to beat at the same time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bench.methods.base import Arm, Method, only
from bench.schedulers import SCHEDULERS, from_pipeline


def check(options: dict[str, Any]) -> None:
    """`steps` (1 to 1000), `scheduler` (a key of SCHEDULERS), or both."""
    only(options, ("steps", "scheduler"))
    steps, scheduler = options.get("steps"), options.get("scheduler")
    if steps is None and scheduler is None:
        raise ValueError("neither 'steps' nor 'scheduler' is given; one must be")
    if steps is not None and not (type(steps) is int and 1 <= steps <= 1000):
        raise ValueError(f"steps: {steps!r} is not allowed; allowed: 1 to 1000")
    if scheduler is not None and scheduler not in SCHEDULERS:
        raise ValueError(f"scheduler: {scheduler!r} not known; allowed: {', '.join(SCHEDULERS)}")


@contextmanager
def apply(pipe: Any, options: dict[str, Any]) -> Iterator[Arm]:
    """Swap the scheduler, keeping the baseline's timestep spacing, and pass the step count on."""
    check(options)
    before = pipe.scheduler
    if options.get("scheduler"):
        pipe.scheduler = from_pipeline(pipe, options["scheduler"])
    try:
        steps = options.get("steps")
        yield Arm(call={} if steps is None else {"num_inference_steps": steps})
    finally:
        pipe.scheduler = before


METHOD = Method(check=check, apply=apply)
