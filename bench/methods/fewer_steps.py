"""Fewer denoising steps, or another solver: what any reuse has to beat at the same time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bench.methods import heun, scheduler
from bench.methods.base import Arm, Method, only
from bench.methods.space import Among, Baseline, Space, Whole, evaluations

SHIFTS = (1.0, 3.0, 4.0)  # of a flow's steps, besides the model's own


def check(options: dict[str, Any]) -> None:
    """Check options: `steps`, `scheduler`, or both; where steps lie; `solver_order`.

    `steps` counts the solver's steps, at each of which the model is evaluated once; with `heun`, twice.

    Args:
        options: As a suite has them.

    Raises:
        ValueError: Naming the option, its value and what is allowed.
    """
    only(options, scheduler.OPTIONS)
    if options.get("scheduler") == heun.HEUN:
        heun.check(options)
        return
    if options.get("scheduler") not in (None, *scheduler.SCHEDULERS):
        known = ", ".join((*scheduler.SCHEDULERS, heun.HEUN))
        raise ValueError(f"scheduler: {options['scheduler']!r} not known; allowed: {known}")
    scheduler.check(options)
    if all(options.get(name) is None for name in ("steps", "scheduler")):
        raise ValueError("neither 'steps' nor 'scheduler' is given; one must be")


def gap(pipeline: str, options: dict[str, Any]) -> str | None:
    """Why a solver does not run on a pipeline.

    Args:
        pipeline: The name of its class in diffusers.
        options: As `check` lets them through.

    Returns:
        A clause for reports; None where it runs.
    """
    return heun.gap(pipeline) if options.get("scheduler") == heun.HEUN else None


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
    chosen = heun.solver if options.get("scheduler") == heun.HEUN else scheduler.solver
    with chosen(pipe, options) as call:
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
        names["euler"] = {"steps": steps, "solver": Among(_shifted())}
        twice = {name: {"scheduler": heun.HEUN} | options for name, options in _shifted().items()}
        names[heun.HEUN] = {  # as many evaluations of the model as the others
            "steps": Whole((steps.low + 1) // 2, (steps.high + 1) // 2),
            "solver": Among(twice),
        }
    return names


def _shifted() -> dict[str, dict[str, Any]]:
    """A flow's steps where the model has them, and at each of the other shifts, by a name."""
    return {"even": {}} | {f"shift-{shift:g}": {"shift": shift} for shift in SHIFTS}


def _variants(name: str, flow: bool) -> dict[str, dict[str, Any]]:
    """The orders of a solver on each of its spacings, by a name."""
    spaced: dict[str, dict[str, Any]] = {spacing: {"spacing": spacing} for spacing in scheduler.SIGMAS[name]}
    where = _shifted() if flow else {"even": {}} | spaced
    return {
        f"{order}-{place}": {"scheduler": name, "solver_order": order} | options
        for order in (2, 3)
        for place, options in where.items()
    }


METHOD = Method(check=check, apply=apply, gap=gap, spaces=spaces)
