"""One generation: the schedule that it follows, where it is on the way, and how its calls are recognised."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from dqar.core.snr import as_array, schedule_snr
from dqar.integration.branch import Branch
from dqar.integration.hooks import Patch
from dqar.integration.sync import FirstLook

FloatArray = npt.NDArray[np.float64]

# How pipelines hand a timestep to their transformer. What none of these explains is not checked.
SCALES: tuple[Callable[[Any], Any], ...] = (lambda t: t, lambda t: t / 1000, lambda t: 1 - t / 1000)
TOLERANCE = 0.005  # relative: bf16 keeps 8 bits
EVERYTHING = (-math.inf, math.inf)


@dataclass
class Trajectory:
    """A generation as it runs."""

    scheduler: Any
    timesteps: Any  # the scheduler's own object: a new one means a new generation
    times: FloatArray  # [steps], the same on the host
    snr: FloatArray  # [steps]
    begin: int  # the first step that runs
    scale: Callable[[Any], Any] | None  # from a timestep of the schedule to the one that the model is given
    guided: bool  # whether the batch is two guidance halves
    conditional: int | None  # index of the conditional half
    counter: StepCounter | None  # of the scheduler's steps, where it does not count them itself
    counted: int  # steps that the counter had counted when it began
    step: int  # the current one
    branches: dict[Any, Branch] = field(default_factory=dict)  # in the order of their first calls
    calls: dict[str | None, int] = field(default_factory=dict)  # at this step, by the name of their context
    number: int = field(default_factory=itertools.count().__next__)  # of all generations of the process
    inputs: Any = None  # shape, dtype and device of the first call's latents
    unstepped: int = 0  # steps that the loop made without the scheduler
    read_at: int = -1  # the step before which the last measurements were read
    latent_norm: float = math.nan  # mean L2 norm of the batch's latents at this step, nan = not asked
    pair: tuple[Branch, Branch] | None = None  # conditional and unconditional branch as calls of their own
    bounds: list[tuple[float, float]] = field(init=False)  # [steps], of the timesteps that the model is given

    def __post_init__(self) -> None:
        """Work out what is compared at every call. A timestep that no scale explains may be any number."""
        scaled = [float(self.scale(time)) for time in self.times] if self.scale else None
        self.bounds = [_bounds(time) for time in scaled] if scaled else [EVERYTHING] * len(self.times)

    @classmethod
    def start(
        cls,
        scheduler: Any,
        look: FirstLook,
        counter: StepCounter | None,
        guided: bool,
        conditional: int | None,
    ) -> Trajectory:
        """The generation that a first call begins.

        Args:
            scheduler: A diffusers scheduler with its timesteps set; it is kept.
            look: What the call shows.
            counter: Of the scheduler's steps; None = it counts them itself.
            guided: Whether the batch is two guidance halves.
            conditional: Index of the conditional half; not used where the batch is not guided.

        Returns:
            The generation, at the step that the call is at.
        """
        times = as_array(scheduler.timesteps)
        begin, scale = beginning(scheduler, times, look.timestep)
        return cls(
            scheduler=scheduler,
            timesteps=scheduler.timesteps,
            times=times,
            snr=schedule_snr(scheduler),
            begin=begin,
            scale=scale,
            guided=guided,
            conditional=conditional if guided else None,
            counter=counter,
            counted=counter.steps if counter else 0,
            step=begin,
        )

    def __len__(self) -> int:
        return len(self.times)

    @property
    def position(self) -> int:
        """The step that the scheduler is at."""
        if self.counter is not None:
            return self.begin + self.counter.steps - self.counted + self.unstepped
        index: int | None = self.scheduler.step_index
        return (self.begin if index is None else index) + self.unstepped

    @property
    def time(self) -> FloatArray:
        """`[steps]`, t / training steps."""
        return np.asarray(self.times / self.scheduler.config.num_train_timesteps)

    @property
    def last(self) -> bool:
        """Whether this step is the last of the schedule."""
        return self.step == len(self.times) - 1

    @property
    def main(self) -> Branch:
        """The branch that was called first, the conditional one."""
        return next(iter(self.branches.values()))

    def at(self, step: int, timestep: float | None) -> bool:
        """Whether a call is one of a step's, by its timestep.

        Args:
            step: Number of the step; one past the end has no calls.
            timestep: As the model is given it; None = the host does not know it.

        Returns:
            True where it cannot be ruled out.
        """
        if step >= len(self.bounds):
            return False
        low, high = self.bounds[step]
        return timestep is None or low <= timestep <= high


def beginning(scheduler: Any, times: FloatArray, timestep: float) -> tuple[int, Callable[[Any], Any] | None]:
    """Where a generation begins whose first call is at `timestep`, and how the model's timesteps are scaled.

    The scheduler knows where it is, or where it was set to begin; else the timestep is looked for in the
    schedule as it is, as t / 1000 and as 1 - t / 1000. One that is none of them begins at the first step.

    Args:
        scheduler: A diffusers scheduler with its timesteps set.
        times: Its timesteps on the host, `[steps]`.
        timestep: Of the first call, as the model is given it.

    Returns:
        Number of the step, from 0, and the scale from the schedule's timesteps to the model's; None = not
        known.
    """
    known = scheduler.step_index if hasattr(type(scheduler), "step_index") else None
    known = getattr(scheduler, "begin_index", None) if known is None else known
    matches: list[tuple[float, int, Callable[[Any], Any]]] = []
    for scale in SCALES:
        expected = scale(times)
        step = int(known) if known is not None else int(np.argmin(np.abs(expected - timestep)))
        if step < len(times) and _near(float(expected[step]), timestep):
            matches.append((abs(float(expected[step]) - timestep), step, scale))
    if matches:
        _, step, scale = min(matches, key=lambda match: match[0])
        return step, scale
    return (int(known) if known is not None and known < len(times) else 0), None


def _near(expected: float, timestep: float) -> bool:
    low, high = _bounds(expected)
    return low <= timestep <= high


def _bounds(expected: float) -> tuple[float, float]:
    tolerance = TOLERANCE * abs(expected) + 1e-6
    return expected - tolerance, expected + tolerance


class StepCounter(Patch):
    """In place of a scheduler's `step`: counts them, where it does not do so itself (DDIM, DDPM, PNDM).

    Args:
        scheduler: One that has no `step_index` of its own.
    """

    def __init__(self, scheduler: Any) -> None:
        super().__init__(scheduler, "step")
        self.steps = 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Make the scheduler's step."""
        result = self.inner(*args, **kwargs)
        self.steps += 1
        return result
