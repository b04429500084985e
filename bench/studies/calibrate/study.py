"""`python -m bench calibrate`: search, then write the best plan at each speedup asked for, and measure it on
images that the search never saw."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from bench import stats
from bench.errors import BadInput, without_path
from bench.machine import files
from bench.measure.converged import ACCURATE, accurate_solver
from bench.methods.scheduler import OWN
from bench.pipeline import models
from bench.pipeline.facts import ModelFacts
from bench.record import Mean, Target
from bench.run.placement import Placement
from bench.spec.prompts import Prompts
from bench.spec.run_spec import RunSpec, shown_model
from bench.spec.settings import QualitySettings
from bench.studies.calibrate.candidate import CandidatePlan, initial_candidates
from bench.studies.calibrate.search import Archive, Point, search
from bench.studies.calibrate.trial import Trials, judging
from dqar.errors import DQARError
from dqar.policy.saved_plan import UNNAMED, SavedPlan
from dqar.utils.foreign import read_json

log = logging.getLogger(__name__)
# The converged trajectory on a pipeline's own solver: times the baseline's steps, at most the model's.
FINER, MOST_STEPS = 10, 1000
OTHER_GUIDANCE = 0.5  # of that calibrated for: whether a plan holds there too


@dataclass(frozen=True)
class WrittenPlan:
    """A plan that was written, and its drift on held-out images: its file holds all of it."""

    file: Path
    plan: SavedPlan

    @property
    def speedup(self) -> float:
        """The speedup that the transformer's FLOPs allow."""
        return float(1 / self.plan.facts["cost"])

    @property
    def drift(self) -> float:
        """Mean drift of the calibration images."""
        return float(self.plan.facts["drift"])

    @property
    def held_out(self) -> Mean:
        """Drift on held-out seeds and labels."""
        return Mean(**self.plan.facts["held_out"])

    @property
    def other_guidance(self) -> Mean:
        """Drift on the held-out images with half the guidance."""
        return Mean(**self.plan.facts["other_guidance"])

    @property
    def baseline(self) -> Mean:
        """The baseline's own drift from the same target on the images held out."""
        return Mean(**self.plan.facts["baseline"])


@dataclass(frozen=True, kw_only=True)
class Study:
    """What is searched on what."""

    model: str
    solver: str
    target: Target
    steps: int  # the baseline's, whose cost is 1
    plan_steps: int  # the plan's own, of which most are skipped
    images: int
    guidance: float
    results: Path
    prompts: Prompts | None = None  # of a model that takes prompts

    @property
    def name(self) -> str:
        """The name of its files."""
        finer = "" if self.plan_steps == self.steps else self.plan_steps
        prompts = "prompts-" if self.prompts else ""
        return f"{prompts}{self.solver.partition('_')[0]}{finer}-{self.target}"

    def spec(self) -> RunSpec:
        """Make the configuration under test.

        Returns:
            The configuration; its baseline is DDIM at the same steps and spacing, of a flow its own
            scheduler.
        """
        n = self.images
        baseline: dict[str, Any] = {} if self._flow else {"scheduler": "ddim", "timestep_spacing": "trailing"}
        solver = {} if self.solver == OWN else {"scheduler": self.solver}
        return RunSpec(
            suite="calibrate", name=self.name, method="dqar", model=self.model, batch_size=n, seed=5000,
            num_inference_steps=self.steps, guidance_scale=self.guidance, prompts=self.prompts, **baseline,
            options=solver | {"steps": self.plan_steps},
            quality=QualitySettings(n=n, converged_n=n, **self._converged),
        )  # fmt: skip

    @property
    def _converged(self) -> dict[str, Any]:
        """What solves the converged trajectory: a pipeline that is left its own solver may take no other."""
        if self.solver == OWN:
            return {"converged_solver": OWN, "converged_steps": min(MOST_STEPS, FINER * self.steps)}
        named = accurate_solver(self._flow)
        return {"converged_solver": named, "converged_steps": max(ACCURATE, self.steps)}

    @cached_property
    def _flow(self) -> bool:
        """Whether the model solves a flow; read once, for every archive that is kept states it."""
        return ModelFacts.of(models.directory(self.model)).flow_matching

    def run(
        self,
        candidates: int,
        speedups: Sequence[float],
        out: Path,
        start: Path | None,
        placement: Placement | None = None,
    ) -> list[WrittenPlan]:
        """Evaluate so many candidates more than before, then write the best plans and measure them.

        Args:
            candidates: how many.
            speedups: by FLOPs, one plan for each.
            out: the directory of the plans.
            start: a directory of plans to start from.
            placement: whose workers evaluate the candidates; None: this process. The plans are the same.

        Returns:
            The plans written, the slowest first.
        """
        with _writing(out):  # before the search, which is long
            out.mkdir(parents=True, exist_ok=True)
        trials = Trials(self.spec(), self.target, self.results)
        file = trials.cache.directory / f"{self.name}.json"
        costs = (0.9 / max(speedups), 1.1 / min(speedups))
        archive = self._initial_archive(trials, file, start, costs)
        self._keep(archive, file)
        evaluate = partial(self._evaluated, trials, placement)
        steps = search(archive, evaluate, trials.layers, costs, len(archive.points), candidates)
        with tqdm(range(candidates), unit="plan", desc=self.name, disable=None) as bar:
            for _, better in zip(bar, steps, strict=False):
                if better:
                    self._keep(archive, file)
        asked = {s: point for s in sorted(speedups, reverse=True) if (point := archive.at(1 / s)) is not None}
        chosen = {id(point): (s, point) for s, point in asked.items()}  # of a plan's names the slowest
        return [self._written(trials, *best, out) for best in reversed(chosen.values())]

    def _initial_archive(
        self, trials: Trials, file: Path, start: Path | None, costs: tuple[float, float]
    ) -> Archive:
        """The archive kept from before, or one of initial candidates and the plans of `start`: those between
        the costs, where there are any."""
        if file.exists():
            facts, points = _kept(file, trials.layers)
            if facts == self.facts:
                return Archive(points)
            log.warning("%s: the archive is of another study; a new one is started", file.name)
        given = (
            [CandidatePlan.of(SavedPlan.load(path)) for path in sorted(start.glob("*.json"))] if start else []
        )
        fitting = [candidate for candidate in given if self.plan_steps % len(candidate.branches) == 0]
        finer = [candidate.finer(self.plan_steps // len(candidate.branches)) for candidate in fitting]
        share = self.steps / self.plan_steps
        candidates = [*dict.fromkeys([*finer, *initial_candidates(trials.snr, share)])]
        low, high = costs
        within = [c for c in candidates if low <= trials.cost(c.plan(trials.layers)) <= high]
        archive = Archive()
        for candidate in tqdm(within or candidates, unit="plan", desc="initial candidates", disable=None):
            if (point := trials(candidate, archive)) is not None:
                archive.add(point)
        return archive

    def _evaluated(
        self,
        trials: Trials,
        placement: Placement | None,
        candidates: Sequence[CandidatePlan],
        archive: Archive,
    ) -> list[Point | None]:
        """The candidates' points, each judged against what the archive holds now."""
        best = [archive.at(trials.cost(candidate.plan(trials.layers))) for candidate in candidates]
        items = list(zip(candidates, best, strict=True))
        if placement is None:
            return [trials.judged(*item) for item in items]
        return placement.map(partial(judging, self.spec(), self.target, self.results), items)

    def _keep(self, archive: Archive, file: Path) -> None:
        points = sorted(archive.points, key=lambda point: point.cost)
        content = {"facts": self.facts, "points": [asdict(point) for point in points]}
        files.write_atomic(file, (json.dumps(content) + "\n").encode())

    @property
    def facts(self) -> dict[str, Any]:
        """What is searched on what, as files and reports state it."""
        facts = {k: v for k, v in asdict(self).items() if k not in ("results", "prompts")}
        prompts = {"prompts": self.prompts.public()} if self.prompts else {}
        solved = {}
        if self.target == "converged":  # plans judged by another trajectory are another study's
            solved = {
                "converged": "by {converged_solver} at {converged_steps} steps".format(**self._converged)
            }
        return facts | {"model": shown_model(self.model)} | prompts | solved

    def _written(self, trials: Trials, speedup: float, point: Point, out: Path) -> WrittenPlan:
        plan = point.candidate.plan(trials.layers)
        drifts, baseline = trials.held_out(plan)
        other, _ = trials.held_out(plan, self.guidance * OTHER_GUIDANCE)
        seen = {"held_out": drifts, "other_guidance": other, "baseline": baseline}
        means = {name: stats.mean_interval(np.asarray(d)).model_dump() for name, d in seen.items()}
        facts = self.facts | {"cost": point.cost, "drift": float(np.mean(point.drifts)), **means}
        plan = SavedPlan(plan.reuse, plan.branches, trials.expected(plan), plan.options, facts)
        path = out / f"{self.name}-{speedup:g}x.json"
        with _writing(out):
            plan.save(path)
        return WrittenPlan(path, plan)


@contextmanager
def _writing(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BadInput(
            f"calibrate: --out: {out} cannot be written: {error.strerror}; needed: a directory"
        ) from error


def _kept(file: Path, layers: int) -> tuple[Any, list[Point]]:
    """What an archive was found on, and its plans; BadInput where it is damaged.

    A damaged archive is not replaced: hours of search may be in it.
    """
    try:
        kept = read_json(file, "archive")
        points = [_point(entry) for entry in kept["points"]]
        for point in points:
            point.candidate.plan(layers)
            if not (0 < point.cost < math.inf and all(0 <= drift < math.inf for drift in point.drifts)):
                raise ValueError("a plan's cost or drift is out of range")
        return kept["facts"], points
    except (DQARError, KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        why = without_path(error, file)
        raise BadInput(
            f"calibrate: {file.name}: damaged: {why}; needed: the archive as it was, or its removal"
        ) from error


def _point(entry: dict[str, Any]) -> Point:
    stored = entry["candidate"]
    candidate: Any = {k: tuple(v) if isinstance(v, list) else v for k, v in stored.items()}
    return Point(entry["cost"], tuple(entry["drifts"]), CandidatePlan(**(UNNAMED | candidate)))
