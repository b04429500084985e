"""`python -m bench masks`: BudCache's masks searched on calibration images that no suite has, as runs that a
suite takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from bench.errors import BadInput
from bench.methods import Arm, get
from bench.methods.budcache import MASK, fixed
from bench.methods.scheduler import OWN, SCHEDULERS
from bench.methods.step_mask import COMPUTED, evenly
from bench.pipeline.session import generate
from bench.report.tables.columns import grid
from bench.run.placement import Placement
from bench.studies.tune.candidate import Judge, Outcome, Task, undecoded

METHOD = "budcache"


@dataclass(frozen=True)
class Found:
    """A mask that a search found, and what it came to on the images searched on."""

    name: str  # of its run in a suite
    options: dict[str, Any]  # COMPUTED among them
    outcome: Outcome
    evenly: Outcome  # of as many steps at equal distances


def parsed(text: str) -> list[dict[str, Any]]:
    """Parse a list of solvers such as `own,dpm_solver++:25`.

    Args:
        text: The list as the user gave it.

    Returns:
        Scheduler and number of steps of each, as options; none of either where the model's own are meant.

    Raises:
        BadInput: One is not known.
    """
    solvers = []
    for part in text.split(","):
        name, _, steps = part.strip().partition(":")
        if name not in (OWN, *SCHEDULERS) or (steps and not steps.isdecimal()):
            allowed = ", ".join((OWN, *SCHEDULERS))
            raise BadInput(
                f"masks: --solvers: {part!r} is not allowed; allowed: {allowed}, perhaps with :STEPS"
            )
        solvers.append(
            ({} if name == OWN else {"scheduler": name}) | ({"steps": int(steps)} if steps else {})
        )
    return solvers


class Study:
    """The masks of a model.

    Args:
        task: The baseline, and the images to search on.
        results: Where the converged latents are kept.
    """

    def __init__(self, task: Task, results: Path) -> None:
        self.task, self.results, self.judge = task, results, Judge(task, results)

    def run(
        self,
        solvers: Sequence[dict[str, Any]],
        budgets: Sequence[int],
        iterations: int,
        placement: Placement | None = None,
    ) -> list[Found]:
        """Search a mask for each solver and number of steps that run.

        A search is sequential: annealing decides on each mask by the one before.

        Args:
            solvers: Options of each, see `parsed`.
            budgets: Numbers of steps that run.
            iterations: Of simulated annealing; with 0 there is no hill climbing either.
            placement: Whose workers make the searches, one each at a time; None: this process. What is found
                is the same.

        Returns:
            What was found.
        """
        items = [(solver, budget, iterations) for solver in solvers for budget in budgets]
        if placement is None:
            return [self.found(*item) for item in items]
        return placement.map(partial(searching, self.task, self.results), items, limit_s=None)

    def found(self, solver: dict[str, Any], budget: int, iterations: int) -> Found:
        """Search one mask.

        Args:
            solver: Its options.
            budget: Number of steps that run.
            iterations: As for `run`.

        Returns:
            What was found.
        """
        climbs = {} if iterations else {"climbs": 0}
        given = solver | {"budget": budget, "iterations": iterations} | climbs
        get(METHOD).check(given)
        mask = get(METHOD).resolve(given, self._generated)[MASK]
        steps = solver.get("steps", self.judge.spec.num_inference_steps)
        even = list(evenly(steps, budget, fixed(budget)))
        name = f"{solver.get('scheduler', OWN).partition('_')[0]}{steps}-{METHOD}-{len(mask)}"
        options = solver | {COMPUTED: mask}
        return Found(
            name, options, self.judge(METHOD, options), self.judge(METHOD, solver | {COMPUTED: even})
        )

    @contextmanager
    def _generated(self, options: dict[str, Any]) -> Iterator[Arm]:
        """The arm after a generation of the calibration images."""
        session = self.judge.session
        with get(METHOD).apply(session.pipe, options) as arm, undecoded(session.pipe):
            generate(session.pipe, session.arguments(self.judge.samples) | arm.call)
            yield arm


def searching(task: Task, results: Path) -> Callable[[tuple[dict[str, Any], int, int]], Found]:
    """Load a model for a worker that makes searches.

    Args:
        task: The baseline, and the images to search on.
        results: Where the converged latents are kept.

    Returns:
        Makes the search of a solver, a budget and a number of iterations, see `Study.found`.
    """
    study = Study(task, results)
    return lambda item: study.found(*item)


def runs(found: Sequence[Found]) -> str:
    """Write masks as a suite has them.

    Args:
        found: What the searches found.

    Returns:
        YAML with the field `runs`.
    """
    entries = [{"name": one.name, "method": METHOD, "options": one.options} for one in found]
    return str(yaml.safe_dump({"runs": entries}, sort_keys=False, width=110, default_flow_style=None))


def table(found: Sequence[Found]) -> str:
    """Tabulate masks.

    Args:
        found: What the searches found.

    Returns:
        A Markdown table, a row a mask: geometric mean of the drift on the images searched on, next to that of
        as many steps at equal distances.
    """
    titles = ["name", "steps that run", "geometric mean", "at equal distances"]
    return grid(
        titles,
        [
            [
                one.name,
                " ".join(map(str, one.options[COMPUTED])),
                f"{one.outcome.score:.4f}",
                f"{one.evenly.score:.4f}",
            ]
            for one in found
        ],
    )
