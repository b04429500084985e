"""Heun's method on a flow: of second order by two evaluations of the model a step, where multistep solvers
reuse the evaluations of earlier steps.

From time t to s it takes Euler's step with the velocity at t, evaluates the model at its end, and goes from t
again with the mean of both velocities; the last step, to 0, is Euler's. So `steps` counts the solver's steps,
and the model is evaluated `evaluations(steps)` times.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bench.methods.scheduler import EULER
from bench.methods.scheduler import check as check_solver

HEUN = "heun"  # in place of a key of `scheduler.SCHEDULERS`, whose solvers evaluate the model once a step
OPTIONS = ("steps", "scheduler", "shift")
PIPELINE = "StableDiffusion3Pipeline"


def evaluations(steps: int) -> int:
    """Count how often the model is evaluated.

    Args:
        steps: The solver's, at least 1.

    Returns:
        Twice as many less one: the last step is Euler's.
    """
    return 2 * steps - 1


def check(options: dict[str, Any]) -> None:
    """Check the options of this solver.

    Args:
        options: `steps`, which is needed (at as many as the baseline's it would take twice as long), and
            perhaps `shift`.

    Raises:
        ValueError: Naming the option, its value and what is allowed.
    """
    for name, value in options.items():
        if name not in OPTIONS and value is not None:
            raise ValueError(f"{name}: {value!r} is not allowed; allowed with {HEUN}: steps, shift")
    check_solver({name: value for name, value in options.items() if name != "scheduler"})
    if options.get("steps") is None:
        raise ValueError(f"steps is not given; needed with {HEUN}: it evaluates the model twice a step")


def gap(pipeline: str) -> str | None:
    """Why it does not run on a pipeline.

    Args:
        pipeline: The name of its class in diffusers.

    Returns:
        A clause for reports; None where it runs.
    """
    if pipeline == PIPELINE:
        return None
    if pipeline == "DiTPipeline":
        return "diffusers' Heun for noise takes latents in units of sigma, and this pipeline scales none"
    return f"diffusers' Heun for flows places its sigmas itself, which was tried on {PIPELINE} alone"


@contextmanager
def solver(pipe: Any, options: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Swap the scheduler; on leaving the pipeline has its own again.

    Args:
        pipe: A pipeline of a flow, with Euler's scheduler of fixed shift.
        options: As `check` lets them through.

    Yields:
        The arguments of the call that differ.

    Raises:
        ValueError: The pipeline has another scheduler.
    """
    import diffusers

    before = pipe.scheduler
    if type(before).__name__ != EULER or before.config.use_dynamic_shifting:
        raise ValueError(f"scheduler: {HEUN!r} is not allowed; allowed on a flow with {EULER} of fixed shift")
    shift = options.get("shift") or before.config.shift
    train = before.config.num_train_timesteps
    pipe.scheduler = diffusers.FlowMatchHeunDiscreteScheduler(num_train_timesteps=train, shift=shift)
    try:
        yield {"num_inference_steps": options["steps"]}
    finally:
        pipe.scheduler = before
