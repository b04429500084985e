"""The search: an archive of the best plan at each cost, whose members are changed a little and tried again.

A plan found by adding up local errors was worse than a fixed interval, for errors of steps interact: every
plan is judged by the final latents of whole generations, and nothing else.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from dqar.plan import BOTH, CONDITIONAL, NONE, FloatArray, spread
from dqar.policy.saved_plan import OPTIONS, SavedPlan

TARGETS = ("attention", "both")
CORRECTIONS = (0.2, 0.35, 0.5, 0.65, 0.8)


@dataclass(frozen=True)
class Genome:
    """A plan as the search changes it: per step its branches and the layers that reuse, as bits."""

    branches: tuple[int, ...]
    rows: tuple[int, ...]
    output_order: int = 1
    output_correction: float = 0.5
    forecast_order: int = 1
    targets: str = "attention"

    def plan(self, layers: int) -> SavedPlan:
        """The plan that it stands for."""
        reuse = [[row >> layer & 1 for layer in range(layers)] for row in self.rows]
        return SavedPlan(
            np.array(reuse, dtype=np.bool_),
            np.array(self.branches, dtype=np.int8),
            options={name: getattr(self, name) for name in OPTIONS},
        )

    @classmethod
    def of(cls, plan: SavedPlan) -> Genome:
        """The genome of a saved plan."""
        rows = [sum(1 << int(layer) for layer in np.flatnonzero(row)) for row in plan.reuse]
        return cls(tuple(map(int, plan.branches)), tuple(rows), **plan.options)

    def finer(self, factor: int) -> Genome:
        """The same at `factor` times the steps: those in between are foretold."""
        steps = factor * len(self.branches)
        branches: list[int] = [NONE] * steps
        rows = [0] * steps
        branches[::factor], rows[::factor] = self.branches, self.rows
        return replace(self, branches=tuple(branches), rows=tuple(rows))


@dataclass(frozen=True)
class Point:
    """A plan that was tried."""

    cost: float  # share of the model's FLOPs over a generation that it runs, 1 = all
    drifts: tuple[float, ...]  # of each picture
    genome: Genome

    @property
    def score(self) -> float:
        """What plans are compared by, less is better: the geometric mean, for a picture that another plan
        would have sent elsewhere altogether is more chance than the plan's doing."""
        return math.exp(np.log(self.drifts).mean())

    def loses_to(self, rival: Point) -> bool:
        """Whether it is behind on the pictures that it has, by more than one standard error of their paired
        log-ratios: the rest need not be made."""
        ratios = np.log(self.drifts) - np.log(rival.drifts[: len(self.drifts)])
        return float(ratios.mean()) > float(ratios.std(ddof=1)) / math.sqrt(len(ratios))


def beginnings(snr: FloatArray, most: float = 1.0) -> Iterator[Genome]:
    """Plans to begin with: shares of `most` of the steps run, spread between evenly in number and evenly in
    log-SNR, with both branches or every second one with the conditional branch alone."""
    steps = len(snr)
    for share in (0.7, 0.6, 0.52, 0.44, 0.4, 0.36, 0.32, 0.28, 0.26, 0.24, 0.22, 0.2, 0.18, 0.16):
        for mix in (0.45, 0.65):
            run = spread(snr, max(2, round(share * most * steps)), mix)
            yield _running(steps, {step: BOTH for step in run})
            halved = {step: CONDITIONAL if i % 2 and i > 2 else BOTH for i, step in enumerate(run)}
            yield _running(steps, halved)


def _running(steps: int, branches: Mapping[int, int]) -> Genome:
    return Genome(tuple([branches.get(step, NONE) for step in range(steps)]), (0,) * steps)


class Changes:
    """Small random changes of a plan."""

    def __init__(self, rng: random.Random, layers: int) -> None:
        self.rng, self.layers = rng, layers
        self.kinds: list[tuple[float, Callable[[Genome], Genome]]] = [
            (0.35, self.shift), (0.2, self.move), (0.1, self.halve), (0.1, self.add),
            (0.12, self.leave_out), (0.1, self.reuse), (0.05, self.forecast),
        ]  # fmt: skip

    def __call__(self, genome: Genome) -> Genome:
        """One to three changes."""
        weights = [weight for weight, _ in self.kinds]
        for _ in range(self.rng.choice((1, 1, 2, 3))):
            (_, change), *_ = self.rng.choices(self.kinds, weights)
            genome = change(genome)
        return genome

    def shift(self, genome: Genome) -> Genome:
        """A step that runs changes places with one nearby."""
        step = self._running(genome)
        return self._swapped(genome, step, step + self.rng.choice((-3, -2, -1, 1, 2, 3)))

    def move(self, genome: Genome) -> Genome:
        """A step that runs changes places with any other."""
        return self._swapped(genome, self._running(genome), self.rng.randrange(1, len(genome.branches)))

    def _swapped(self, genome: Genome, step: int, other: int) -> Genome:
        if not 1 <= other < len(genome.branches):
            return genome
        branches, rows = list(genome.branches), list(genome.rows)
        for line in (branches, rows):
            line[step], line[other] = line[other], line[step]
        return replace(genome, branches=tuple(branches), rows=tuple(rows))

    def halve(self, genome: Genome) -> Genome:
        """A step runs both branches instead of one, or one instead of both."""
        step = self._running(genome)
        return _with(genome, step, CONDITIONAL if genome.branches[step] == BOTH else BOTH)

    def add(self, genome: Genome) -> Genome:
        """Any step runs."""
        step = self.rng.randrange(1, len(genome.branches))
        return _with(genome, step, self.rng.choice((CONDITIONAL, BOTH)))

    def leave_out(self, genome: Genome) -> Genome:
        """A step that runs is foretold."""
        return _with(genome, self._running(genome), NONE)

    def reuse(self, genome: Genome) -> Genome:
        """Other layers of a step reuse: all, none, or some in a row."""
        step = self._running(genome)
        size = self.rng.choice((0, self.layers, self.layers // 2, self.layers // 3))
        if genome.branches[step] == NONE:
            return genome
        first = self.rng.randint(0, self.layers - size)
        rows = list(genome.rows)
        rows[step] = ((1 << size) - 1) << first
        targets = genome.targets if any(genome.rows) else self.rng.choice(TARGETS)
        return replace(genome, rows=tuple(rows), targets=targets)

    def forecast(self, genome: Genome) -> Genome:
        """Forecasts of another order, or corrected by another share."""
        if any(genome.rows) and self.rng.random() < 0.5:
            return replace(genome, forecast_order=3 - genome.forecast_order)
        if self.rng.random() < 0.5:
            return replace(genome, output_order=3 - genome.output_order)
        return replace(genome, output_correction=self.rng.choice(CORRECTIONS))

    def _running(self, genome: Genome) -> int:
        """A step that runs, the first left out."""
        return self.rng.choice([i for i, n in enumerate(genome.branches) if n and i] or [1])


def _with(genome: Genome, step: int, branches: int) -> Genome:
    changed, rows = list(genome.branches), list(genome.rows)
    changed[step] = branches
    rows[step] = rows[step] if branches else 0
    return replace(genome, branches=tuple(changed), rows=tuple(rows))


class Archive:
    """The plans than which none is both cheaper and better."""

    def __init__(self, points: Iterable[Point] = ()) -> None:
        self.points: list[Point] = []
        for point in points:
            self.add(point)

    def add(self, point: Point) -> bool:
        """Keep the point unless one in the archive is as cheap and as good."""
        if any(p.cost <= point.cost and p.score <= point.score for p in self.points):
            return False
        beaten = [p for p in self.points if p.cost >= point.cost and p.score >= point.score]
        self.points = [p for p in self.points if p not in beaten] + [point]
        return True

    def at(self, cost: float) -> Point | None:
        """The best plan of at most that cost."""
        return min((p for p in self.points if p.cost <= cost), key=lambda p: p.score, default=None)

    def near(self, cost: float) -> Point:
        """The plan whose cost is nearest, by ratio."""
        return min(self.points, key=lambda p: abs(math.log(p.cost / cost)))


def search(
    archive: Archive,
    tried: Callable[[Genome, Archive], Point | None],
    layers: int,
    costs: tuple[float, float],
    seed: int,
) -> Iterator[bool]:
    """Change plans of the archive, those between the two costs equally often; whether each try got in.

    `tried` gives the plan's point, or None once it is clear that one in the archive is better."""
    rng = random.Random(seed)
    changed, seen = Changes(rng, layers), {point.genome for point in archive.points}
    low, high = map(math.log, costs)
    while True:
        genome = changed(archive.near(math.exp(rng.uniform(low, high))).genome)
        if genome in seen:
            continue
        seen.add(genome)
        point = tried(genome, archive)
        yield point is not None and archive.add(point)
