"""Fewer denoising steps, or another solver: what any reuse has to beat at the same time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bench.methods import scheduler
from bench.methods.base import Arm, Method, only
from bench.methods.space import Among, Baseline, Space, evaluations

SHIFTS = (1.0, 3.0, 4.0)  # of a flow's steps, besides the model's own


def check(options: dict[str, Any]) -> None:
    """Check options: `steps`, `scheduler`, or both; where steps lie; `solver_order`.

    Args:
        options: As a suite has them.

    Raises:
        ValueError: Naming the option, its value and what is allowed.
    """
    only(options, scheduler.OPTIONS)
    scheduler.check(options)
    if all(options.get(name) is None for name in ("steps", "scheduler")):
        raise ValueError("neither 'steps' nor 'scheduler' is given; one must be")


@contextmanager
def apply(pipe: Any, options: dict[str, Any]) -> Iterator[Arm]:
    """Swap the scheduler, keeping the baseline's timestep spacing, and pass the step count on.

    Args:
        pipe: A pipeline of diffusers.
        options: As `check` lets them through.

    Yields:
        The pipeline with the other scheduler, and the step count for its call.
    """
    check(options)
    with scheduler.solver(pipe, options) as call:
        yield Arm(call=call)


def spaces(baseline: Baseline) -> dict[str, Space]:
    """What is searched: steps, order, and where the steps lie (of a flow its shift does).

    Args:
        baseline: The run that is to be made faster.

    Returns:
        A space for each solver, by its name.
    """
    steps = evaluations(baseline)
    names: dict[str, Space] = {
        name: {"steps": steps, "solver": Among(_variants(name, baseline.flow))} for name in scheduler.SIGMAS
    }
    if baseline.flow:
        shifts = {f"shift-{shift:g}": {"shift": shift} for shift in SHIFTS}
        names["euler"] = {"steps": steps, "solver": Among({"even": {}, **shifts})}
    return names


def _variants(name: str, flow: bool) -> dict[str, dict[str, Any]]:
    """The orders of a solver on each of its spacings, by a name."""
    where: dict[str, dict[str, Any]] = {"even": {}}
    where |= (
        {f"shift-{shift:g}": {"shift": shift} for shift in SHIFTS}
        if flow
        else {spacing: {"spacing": spacing} for spacing in scheduler.SIGMAS[name]}
    )
    return {
        f"{order}-{place}": {"scheduler": name, "solver_order": order} | options
        for order in (2, 3)
        for place, options in where.items()
    }


METHOD = Method(check=check, apply=apply, spaces=spaces)
