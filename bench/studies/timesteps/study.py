"""`python -m bench timesteps`: for each solver and number of evaluations the timesteps that searches found,
written to files that `timesteps:` names: two by dynamic programming, and an evolution that starts from these
and from the usual spacings."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.errors import BadInput
from bench.machine.files import write_atomic
from bench.methods.scheduler import SIGMAS, solver
from bench.methods.timesteps import TIMESTEPS
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
    """The timesteps of a model's solvers.

    Args:
        task: What is judged on which images, as `tune --method` has it.
        results: Where the converged latents are kept.
    """

    def __init__(self, task: Task, results: Path) -> None:
        self.task, self.judge = task, Judge(task, results)
        self.trajectory = Trajectory.solved(self.judge)
        self.errors = local_errors(self.trajectory.sigmas, self.trajectory.by_noise_level())

    def run(
        self, solvers: Sequence[dict[str, Any]], budgets: Sequence[int], trials: int, out: Path
    ) -> list[WrittenTimesteps]:
        """Search for each solver and number of steps, and write the timesteps to files.

        Args:
            solvers: options of each, see `parsed`.
            budgets: numbers of steps.
            trials: number of changes that each search judges.
            out: the directory that the files go to.

        Returns:
            What was written.
        """
        written = []
        for options in solvers:
            distilled = optimal_steps(self.judge, options, self.trajectory, budgets)
            for steps in budgets:
                spaced = [self._spaced(options, place, steps) for place in self._places(options["scheduler"])]
                programs = [self._programmed(steps, weight) for weight in WEIGHTS]
                optimal = self._rounded(distilled[steps])
                judged = search(
                    [*spaced, *programs, optimal],
                    self._judging(options),
                    trials,
                    whole=not self.task.baseline.flow,
                    seed=steps,
                )
                spacing = _best(judged, spaced).outcome
                found = {
                    PROGRAMMED: _best(judged, programs),
                    DISTILLED: _best(judged, [optimal]),
                    EVOLVED: judged[0],
                }
                for how, one in found.items():
                    file = out / f"{self._name(options, steps, how)}.json"
                    written.append(WrittenTimesteps(file, options, steps, how, one.outcome, spacing))
                    self._write(written[-1], one.timesteps, trials)
        return written

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
