"""Which generation and step a call of the transformer belongs to, if it belongs to one."""

from __future__ import annotations

import math
from collections.abc import Callable
from enum import Enum
from typing import Any, NamedTuple

from dqar.integration.adapter import Call
from dqar.integration.caller import UNKNOWN, Caller, calling_pipeline
from dqar.integration.sync import FirstLook, first_look, host_value
from dqar.integration.trajectory import StepCounter, Trajectory

DEPTH = 4  # frames from `calling_pipeline` to the module's own call


class Place(Enum):
    """Where a call is."""

    OUTSIDE = 0  # of every generation that is followed
    BEGIN = 1  # of another generation
    SAME = 2  # step
    NEXT = 3  # step


class Recognised(NamedTuple):
    """A call's place, and where it begins a generation, what it shows."""

    place: Place
    look: FirstLook | None = None
    doubled: bool | None = None  # whether the pipeline runs its latents twice in one batch


OUTSIDE, SAME, NEXT = (Recognised(place) for place in (Place.OUTSIDE, Place.SAME, Place.NEXT))


class Recogniser:
    """Knows a generation by its scheduler's timesteps, a step by the scheduler's count, a caller by frame.

    Args:
        scheduler: Returns the scheduler in use.
        pipe: The pipeline whose calls are meant; None = those of any that uses the scheduler.
    """

    def __init__(self, scheduler: Callable[[], Any], pipe: Any) -> None:
        self.scheduler, self.pipe = scheduler, pipe
        self.known: FirstLook | None = None  # what a first call shows, where the device must not be asked
        self._counters: list[StepCounter] = []
        self._caller = UNKNOWN  # of the generation's last call; its frame is let go with the last step

    def place(self, run: Trajectory | None, call: Call) -> Recognised:
        """Find the place of a call of the transformer.

        Args:
            run: The last generation; None = none since the last reset.
            call: What the call is given.

        Returns:
            The place, and where it begins a generation what its first call shows.
        """
        scheduler = self.scheduler()
        caller = calling_pipeline(DEPTH, self._caller)
        of_another = self.pipe is not None and caller.pipe is not None and caller.pipe is not self.pipe
        if of_another or call.latent is None or call.timestep is None or scheduler.timesteps is None:
            return OUTSIDE
        if run is None or run.scheduler is not scheduler or run.timesteps is not scheduler.timesteps:
            look = self.known or first_look(call.latent, call.timestep)
            return OUTSIDE if math.isnan(look.timestep) else self._begin(call, look, caller)
        value, position = host_value(call.timestep), run.position
        if position in (run.step, run.step + 1) and run.at(position, value):
            self._caller = caller
            return SAME if position == run.step else NEXT
        if position == run.step and value is not None and run.scale and run.at(run.step + 1, value):
            run.unstepped += 1  # the loop has a solver of its own, and the timestep shows it
            return NEXT
        return self._again(run, call, caller)

    def counter(self, scheduler: Any) -> StepCounter | None:
        """What counts a scheduler's steps; it is installed if it is not yet.

        Args:
            scheduler: A diffusers scheduler.

        Returns:
            None where the scheduler counts its steps itself.
        """
        if hasattr(type(scheduler), "step_index"):
            return None
        counter = vars(scheduler).get("step")
        if not isinstance(counter, StepCounter):
            counter = StepCounter(scheduler)
            counter.install()
        if counter not in self._counters:
            self._counters.append(counter)
        return counter

    def forget(self) -> None:
        """Let go of the caller's frame, which holds all of a pipeline's latents."""
        self._caller = UNKNOWN

    def detach(self) -> None:
        """Give the schedulers their own `step` back."""
        self.forget()
        for counter in self._counters:
            counter.remove()
        self._counters.clear()

    def _again(self, run: Trajectory, call: Call, caller: Caller) -> Recognised:
        """A generation on the same timesteps, if the call is at their first again."""
        if run.counter is None and run.scheduler.step_index not in (None, run.begin):
            return OUTSIDE
        look = first_look(call.latent, call.timestep)
        return self._begin(call, look, caller) if run.at(run.begin, look.timestep) else OUTSIDE

    def _begin(self, call: Call, look: FirstLook, caller: Caller) -> Recognised:
        return Recognised(Place.BEGIN, look, caller.doubles(len(call.latent)))
