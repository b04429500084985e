"""`python -m bench timesteps`: for each solver and number of evaluations the timesteps that searches found,
written to files that `timesteps:` names: two by dynamic programming, and an evolution that starts from these
and from the usual spacings."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bench.errors import BadInput
from bench.machine.files import write_atomic
from bench.methods.scheduler import SIGMAS, solver
from bench.methods.timesteps import TIMESTEPS
from bench.run.placement import Placement
from bench.spec.run_spec import shown_model
from bench.studies.timesteps.optimal_steps import optimal_steps
from bench.studies.timesteps.programming import WEIGHTS, local_errors, programmed
from bench.studies.timesteps.search import Judged, Timesteps, search
from bench.studies.timesteps.trajectory import Trajectory, fractional
from bench.studies.tune.candidate import Judge, Outcome, Task

PROGRAMMED, DISTILLED, EVOLVED = "dp", "optimal-steps", "evolved"


@dataclass(frozen=True)
class WrittenTimesteps:
    """Timesteps that were written, and what they came to on the images searched on."""

    file: Path
    solver: dict[str, Any]
    steps: int
    how: str  # PROGRAMMED, DISTILLED or EVOLVED
    outcome: Outcome
    spacing: Outcome  # of the best usual spacing


@dataclass(frozen=True)
class Searched:
    """What the searches for a solver and a number of steps found."""

    found: dict[str, Judged]  # by PROGRAMMED, DISTILLED and EVOLVED
    spacing: Outcome  # of the best usual spacing


def parsed(text: str) -> list[dict[str, Any]]:
    """Parse a list of solvers such as `dpm_solver++:2,unipc:3`.

    Args:
        text: the list as the user gave it.

    Returns:
        Scheduler and order of each, as options.

    Raises:
        BadInput: one is not known.
    """
    solvers = []
    for part in text.split(","):
        name, _, order = part.strip().partition(":")
        if name not in SIGMAS or order not in ("1", "2", "3"):
            allowed = ", ".join(SIGMAS)
            raise BadInput(
                f"timesteps: --solvers: {part!r} is not allowed; allowed: {allowed}, with :1, :2 or :3"
            )
        solvers.append({"scheduler": name, "solver_order": int(order)})
    return solvers


class Study:
    """The timesteps of a model's solvers; called, it makes one search, as a worker does.

    Args:
        task: What is judged on which images, as `tune --method` has it.
        results: Where the converged latents are kept.
    """

    def __init__(self, task: Task, results: Path) -> None:
        self.task, self.results, self.judge = task, results, Judge(task, results)
        self.trajectory = Trajectory.solved(self.judge)
        self.errors = local_errors(self.trajectory.sigmas, self.trajectory.by_noise_level())

    def run(
        self,
        solvers: Sequence[dict[str, Any]],
        budgets: Sequence[int],
        trials: int,
        out: Path,
        placement: Placement | None = None,
    ) -> list[WrittenTimesteps]:
        """Search for each solver and number of steps, and write the timesteps to files.

        A search is sequential: each trial changes the best of those before.

        Args:
            solvers: options of each, see `parsed`.
            budgets: numbers of steps.
            trials: number of changes that each search judges.
            out: the directory that the files go to.
            placement: whose workers make the searches, one each at a time; None: this process. What is found
                is the same.

        Returns:
            What was written.
        """
        distilled = self._all(DISTILLED, [(options, budgets) for options in solvers], placement)
        asked = [
            (options, steps, trials, found[steps])
            for options, found in zip(solvers, distilled, strict=True)
            for steps in budgets
        ]
        written = []
        for (options, steps, *_), judged in zip(asked, self._all(EVOLVED, asked, placement), strict=True):
            for how, one in judged.found.items():
                file = out / f"{self._name(options, steps, how)}.json"
                written.append(WrittenTimesteps(file, options, steps, how, one.outcome, judged.spacing))
                self._write(written[-1], one.timesteps, trials)
        return written

    def _all(self, how: str, asked: Sequence[tuple[Any, ...]], placement: Placement | None) -> Iterable[Any]:
        """What `distilled` or `evolved` returns for each; in this process one after another, as asked for."""
        items = [(how, arguments) for arguments in asked]
        if placement is None:
            return map(self, items)
        return placement.map(partial(Study, self.task, self.results), items, limit_s=None)

    def __call__(self, item: tuple[str, tuple[Any, ...]]) -> Any:
        """Make one search.

        Args:
            item: DISTILLED or EVOLVED, and the arguments of the method of that name.

        Returns:
            What that method does.
        """
        how, arguments = item
        return (self.distilled if how == DISTILLED else self.evolved)(*arguments)

    def distilled(self, options: dict[str, Any], budgets: Sequence[int]) -> dict[int, tuple[float, ...]]:
        """Search by the recursion of OptimalSteps.

        Args:
            options: the solver's.
            budgets: numbers of steps.

        Returns:
            The timesteps for each budget.
        """
        return optimal_steps(self.judge, options, self.trajectory, budgets)

    def evolved(
        self, options: dict[str, Any], steps: int, trials: int, distilled: Sequence[float]
    ) -> Searched:
        """Judge the usual spacings and what other searches found, and evolve from these.

        Args:
            options: the solver's.
            steps: how many.
            trials: number of changes that are judged.
            distilled: what `distilled` found.

        Returns:
            The best of each kind.
        """
        spaced = [self._spaced(options, place, steps) for place in self._places(options["scheduler"])]
        programs = [self._programmed(steps, weight) for weight in WEIGHTS]
        optimal = self._rounded(distilled)
        whole = not self.task.baseline.flow
        starts = [*spaced, *programs, optimal]
        judged = search(starts, self._judging(options), trials, whole=whole, seed=steps)
        found = {
            PROGRAMMED: _best(judged, programs),
            DISTILLED: _best(judged, [optimal]),
            EVOLVED: judged[0],
        }
        return Searched(found, _best(judged, spaced).outcome)

    def _name(self, options: Mapping[str, Any], steps: int, how: str) -> str:
        solved = options["scheduler"].partition("_")[0] + str(options["solver_order"])
        return f"{'prompts-' if self.task.prompts else ''}{solved}-{steps}-{how}"

    def _judging(self, options: Mapping[str, Any]) -> Any:
        return lambda timesteps: self.judge("fewer_steps", {**options, TIMESTEPS: list(timesteps)})

    def _places(self, scheduler: str) -> list[dict[str, Any]]:
        if self.task.baseline.flow:
            return [{}, {"shift": 1.0}, {"shift": 3.0}]
        return [{}, *({"spacing": spacing} for spacing in SIGMAS[scheduler])]

    def _spaced(self, options: Mapping[str, Any], place: Mapping[str, Any], steps: int) -> Timesteps:
        pipe = self.judge.session.pipe
        with solver(pipe, {**options, **place, "steps": steps}):
            pipe.scheduler.set_timesteps(steps)
            return self._rounded(fractional(pipe.scheduler).tolist())

    def _programmed(self, steps: int, weight: float) -> Timesteps:
        return self._rounded(programmed(self.trajectory.timesteps, self.errors, steps, weight))

    def _rounded(self, timesteps: Sequence[float]) -> Timesteps:
        """As files have them, each below the one before."""
        digits = 2 if self.task.baseline.flow else 0
        values = [round(float(t), digits) for t in timesteps]
        for i in range(len(values) - 2, -1, -1):  # where rounding made two alike
            values[i] = max(values[i], values[i + 1] + 10.0**-digits)
        return tuple(values)

    def _write(self, written: WrittenTimesteps, timesteps: Timesteps, trials: int) -> None:
        task = self.task
        facts = {
            "model": shown_model(task.model),
            **written.solver,
            "how": written.how,
            "trials": {PROGRAMMED: len(WEIGHTS), DISTILLED: 0, EVOLVED: trials}[written.how],
            "images": task.images,
            "guidance": task.guidance,
            "drift": written.outcome.score,
            "drift_mean": float(np.mean(written.outcome.drifts)),
            "drift_of_best_spacing": written.spacing.score,
        }
        values = [t if task.baseline.flow else int(t) for t in timesteps]
        content = json.dumps({TIMESTEPS: values, "facts": facts}, indent=1) + "\n"
        write_atomic(written.file, content.encode())


def _best(judged: Sequence[Judged], among: Sequence[Timesteps]) -> Judged:
    """The best of some timesteps; what was judged has the best first."""
    return next(one for one in judged if one.timesteps in among)
