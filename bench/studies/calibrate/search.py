"""The search: an archive of the best plan at each cost, whose members are changed a little and evaluated.

A plan made by adding up local errors was worse than a fixed interval, because errors of steps interact: every
plan is judged by the final latents of whole generations, and nothing else.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from dqar.plan import BOTH, CONDITIONAL, NONE, FloatArray, spread
from dqar.policy.saved_plan import OPTIONS, SavedPlan

TARGETS = ("attention", "both")
BATCH = 8  # candidates that are changed from one state of the archive
CORRECTIONS = (0.2, 0.35, 0.5, 0.65, 0.8)


@dataclass(frozen=True)
class CandidatePlan:
    """A plan as the search changes it: per step its branches and the layers that reuse, as bits."""

    branches: tuple[int, ...]
    rows: tuple[int, ...]
    output_order: int = 1
    output_correction: float = 0.5
    forecast_order: int = 1
    targets: str = "attention"

    def plan(self, layers: int) -> SavedPlan:
        """Make the plan that it stands for.

        Args:
            layers: number of layers that the model has.

        Returns:
            The plan, without facts.
        """
        reuse = [[row >> layer & 1 for layer in range(layers)] for row in self.rows]
        return SavedPlan(
            np.array(reuse, dtype=np.bool_),
            np.array(self.branches, dtype=np.int8),
            options={name: getattr(self, name) for name in OPTIONS},
        )

    @classmethod
    def of(cls, plan: SavedPlan) -> CandidatePlan:
        """Make the candidate of a saved plan.

        Args:
            plan: its reuse and branches are taken.

        Returns:
            The candidate.
        """
        rows = [sum(1 << int(layer) for layer in np.flatnonzero(row)) for row in plan.reuse]
        return cls(tuple(map(int, plan.branches)), tuple(rows), **plan.options)

    def finer(self, factor: int) -> CandidatePlan:
        """Stretch the candidate over more steps: those in between are skipped.

        Args:
            factor: how many times the steps.

        Returns:
            The candidate at that many.
        """
        steps = factor * len(self.branches)
        branches: list[int] = [NONE] * steps
        rows = [0] * steps
        branches[::factor], rows[::factor] = self.branches, self.rows
        return replace(self, branches=tuple(branches), rows=tuple(rows))


@dataclass(frozen=True)
class Point:
    """A plan that was evaluated."""

    cost: float  # share of the model's FLOPs over a generation that it runs, 1 = all
    drifts: tuple[float, ...]  # of each image
    candidate: CandidatePlan

    @property
    def score(self) -> float:
        """What plans are compared by, less is better: the geometric mean, because an image that leaves its
        trajectory altogether under a plan does so mostly by chance."""
        return math.exp(np.log(self.drifts).mean())

    def loses_to(self, other: Point) -> bool:
        """Whether it is behind another on the images that it has; if so, the rest need not be generated.

        Args:
            other: a point with as many images or more.

        Returns:
            True where it is behind by more than one standard error of their paired log-ratios.
        """
        ratios = np.log(self.drifts) - np.log(other.drifts[: len(self.drifts)])
        return float(ratios.mean()) > float(ratios.std(ddof=1)) / math.sqrt(len(ratios))


def initial_candidates(snr: FloatArray, most: float = 1.0) -> Iterator[CandidatePlan]:
    """Make plans to start from: shares of the steps run, spread between evenly in number and evenly in
    log-SNR.

    Args:
        snr: signal-to-noise ratio of each step, in the schedule's order.
        most: the shares are of this share, in (0, 1].

    Yields:
        Plans with both branches, and with every second one conditional-only.
    """
    steps = len(snr)
    for share in (0.7, 0.6, 0.52, 0.44, 0.4, 0.36, 0.32, 0.28, 0.26, 0.24, 0.22, 0.2, 0.18, 0.16):
        for mix in (0.45, 0.65):
            run = spread(snr, max(2, round(share * most * steps)), mix)
            yield _running(steps, {step: BOTH for step in run})
            halved = {step: CONDITIONAL if i % 2 and i > 2 else BOTH for i, step in enumerate(run)}
            yield _running(steps, halved)


def _running(steps: int, branches: Mapping[int, int]) -> CandidatePlan:
    return CandidatePlan(tuple([branches.get(step, NONE) for step in range(steps)]), (0,) * steps)


class Changes:
    """Small random changes of a plan.

    Args:
        rng: generator of the random numbers.
        layers: number of layers that the model has.
    """

    def __init__(self, rng: random.Random, layers: int) -> None:
        self.rng, self.layers = rng, layers
        self.kinds: list[tuple[float, Callable[[CandidatePlan], CandidatePlan]]] = [
            (0.35, self.shift), (0.2, self.move), (0.1, self.halve), (0.1, self.add),
            (0.12, self.skip), (0.1, self.reuse), (0.05, self.forecast),
        ]  # fmt: skip

    def __call__(self, candidate: CandidatePlan) -> CandidatePlan:
        """One to three changes."""
        weights = [weight for weight, _ in self.kinds]
        for _ in range(self.rng.choice((1, 1, 2, 3))):
            (_, change), *_ = self.rng.choices(self.kinds, weights)
            candidate = change(candidate)
        return candidate

    def shift(self, candidate: CandidatePlan) -> CandidatePlan:
        """Let a step that runs change places with one nearby.

        Args:
            candidate: the plan to change; it stays as it is.

        Returns:
            The changed one.
        """
        step = self._running(candidate)
        return self._swapped(candidate, step, step + self.rng.choice((-3, -2, -1, 1, 2, 3)))

    def move(self, candidate: CandidatePlan) -> CandidatePlan:
        """Let a step that runs change places with any other.

        Args:
            candidate: the plan to change; it stays as it is.

        Returns:
            The changed one.
        """
        return self._swapped(
            candidate, self._running(candidate), self.rng.randrange(1, len(candidate.branches))
        )

    def _swapped(self, candidate: CandidatePlan, step: int, other: int) -> CandidatePlan:
        if not 1 <= other < len(candidate.branches):
            return candidate
        branches, rows = list(candidate.branches), list(candidate.rows)
        for line in (branches, rows):
            line[step], line[other] = line[other], line[step]
        return replace(candidate, branches=tuple(branches), rows=tuple(rows))

    def halve(self, candidate: CandidatePlan) -> CandidatePlan:
        """Let a step run both branches instead of one, or one instead of both.

        Args:
            candidate: the plan to change; it stays as it is.

        Returns:
            The changed one.
        """
        step = self._running(candidate)
        return _with(candidate, step, CONDITIONAL if candidate.branches[step] == BOTH else BOTH)

    def add(self, candidate: CandidatePlan) -> CandidatePlan:
        """Let any step run.

        Args:
            candidate: the plan to change; it stays as it is.

        Returns:
            The changed one.
        """
        step = self.rng.randrange(1, len(candidate.branches))
        return _with(candidate, step, self.rng.choice((CONDITIONAL, BOTH)))

    def skip(self, candidate: CandidatePlan) -> CandidatePlan:
        """Skip a step that runs.

        Args:
            candidate: the plan to change; it stays as it is.

        Returns:
            The changed one.
        """
        return _with(candidate, self._running(candidate), NONE)

    def reuse(self, candidate: CandidatePlan) -> CandidatePlan:
        """Let other layers of a step reuse: all, none, or some in a row.

        Args:
            candidate: the plan to change; it stays as it is.

        Returns:
            The changed one.
        """
        step = self._running(candidate)
        size = self.rng.choice((0, self.layers, self.layers // 2, self.layers // 3))
        if candidate.branches[step] == NONE:
            return candidate
        first = self.rng.randint(0, self.layers - size)
        rows = list(candidate.rows)
        rows[step] = ((1 << size) - 1) << first
        targets = candidate.targets if any(candidate.rows) else self.rng.choice(TARGETS)
        return replace(candidate, rows=tuple(rows), targets=targets)

    def forecast(self, candidate: CandidatePlan) -> CandidatePlan:
        """Forecast in another order, or correct by another share.

        Args:
            candidate: the plan to change; it stays as it is.

        Returns:
            The changed one.
        """
        if any(candidate.rows) and self.rng.random() < 0.5:
            return replace(candidate, forecast_order=3 - candidate.forecast_order)
        if self.rng.random() < 0.5:
            return replace(candidate, output_order=3 - candidate.output_order)
        return replace(candidate, output_correction=self.rng.choice(CORRECTIONS))

    def _running(self, candidate: CandidatePlan) -> int:
        """A step that runs, other than the first."""
        return self.rng.choice([i for i, n in enumerate(candidate.branches) if n and i] or [1])


def _with(candidate: CandidatePlan, step: int, branches: int) -> CandidatePlan:
    changed, rows = list(candidate.branches), list(candidate.rows)
    changed[step] = branches
    rows[step] = rows[step] if branches else 0
    return replace(candidate, branches=tuple(changed), rows=tuple(rows))


class Archive:
    """The Pareto front of plans by cost and score.

    Args:
        points: plans to start from; those that another one beats are dropped.
    """

    def __init__(self, points: Iterable[Point] = ()) -> None:
        self.points: list[Point] = []
        for point in points:
            self.add(point)

    def add(self, point: Point) -> bool:
        """Keep a point unless one in the archive is as cheap and as good; drop those that it beats.

        Args:
            point: a plan measured on all images.

        Returns:
            Whether it was kept.
        """
        if any(p.cost <= point.cost and p.score <= point.score for p in self.points):
            return False
        beaten = [p for p in self.points if p.cost >= point.cost and p.score >= point.score]
        self.points = [p for p in self.points if p not in beaten] + [point]
        return True

    def at(self, cost: float) -> Point | None:
        """Find the best plan of at most a cost.

        Args:
            cost: share of the baseline's FLOPs.

        Returns:
            Its point; None where all cost more.
        """
        return min((p for p in self.points if p.cost <= cost), key=lambda p: p.score, default=None)

    def near(self, cost: float) -> Point:
        """Find the plan whose cost is nearest, by ratio.

        Args:
            cost: share of the baseline's FLOPs, above 0.

        Returns:
            Its point; the archive must not be empty.
        """
        return min(self.points, key=lambda p: abs(math.log(p.cost / cost)))


def search(
    archive: Archive,
    evaluate: Callable[[Sequence[CandidatePlan], Archive], Sequence[Point | None]],
    layers: int,
    costs: tuple[float, float],
    seed: int,
    count: int,
) -> Iterator[bool]:
    """Change plans of the archive, those between the two costs equally often.

    Candidates are evaluated BATCH at a time, whoever evaluates them: a seed fixes what is found.

    Args:
        archive: what the search starts from and adds to.
        evaluate: each plan's point, or None once it is clear that one in the archive is better; in order.
        layers: of the model.
        costs: the least and the greatest that are of interest.
        seed: of the changes.
        count: candidates to evaluate.

    Yields:
        Whether a change was kept, after each.
    """
    rng = random.Random(seed)
    changed, seen = Changes(rng, layers), {point.candidate for point in archive.points}
    low, high = map(math.log, costs)
    for first in range(0, count, BATCH):
        batch: list[CandidatePlan] = []
        while len(batch) < min(BATCH, count - first):
            candidate = changed(archive.near(math.exp(rng.uniform(low, high))).candidate)
            if candidate not in seen:
                seen.add(candidate)
                batch.append(candidate)
        for point in evaluate(batch, archive):
            yield point is not None and archive.add(point)
