"""Fewer denoising steps, or another solver: what any reuse has to beat at the same time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bench.methods import scheduler
from bench.methods.base import Arm, Method, only


def check(options: dict[str, Any]) -> None:
    """`steps` (1 to 1000), `scheduler` (a key of SCHEDULERS), or both; `spacing`, `solver_order`."""
    only(options, scheduler.OPTIONS)
    scheduler.check(options)
    if all(options.get(name) is None for name in ("steps", "scheduler")):
        raise ValueError("neither 'steps' nor 'scheduler' is given; one must be")


@contextmanager
def apply(pipe: Any, options: dict[str, Any]) -> Iterator[Arm]:
    """Swap the scheduler, keeping the baseline's timestep spacing, and pass the step count on."""
    check(options)
    with scheduler.solver(pipe, options) as call:
        yield Arm(call=call)


METHOD = Method(check=check, apply=apply)
