"""The search: an archive of the best plan at each cost, whose members are changed a little and evaluated.

A plan made by adding up local errors was worse than a fixed interval, because errors of steps interact: every
plan is judged by the final latents of whole generations, and nothing else.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import gmean

from bench.studies.calibrate.candidate import CandidatePlan
from bench.studies.calibrate.changes import Changes

BATCH = 8  # candidates that are changed from one state of the archive


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
        return float(gmean(self.drifts))

    def loses_to(self, other: Point) -> bool:
        """Whether it is behind another on the images that it has; if so, the rest need not be generated.

        Args:
            other: a point with as many images or more.

        Returns:
            True where it is behind by more than one standard error of their paired log-ratios.
        """
        ratios = np.log(self.drifts) - np.log(other.drifts[: len(self.drifts)])
        return float(ratios.mean()) > float(ratios.std(ddof=1)) / math.sqrt(len(ratios))


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
