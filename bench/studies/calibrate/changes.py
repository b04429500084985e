"""Small random changes of a plan: of its steps, its branches, the layers that reuse, and its options."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

from bench.studies.calibrate.candidate import CandidatePlan
from dqar.plan import BOTH, CONDITIONAL, NONE

TARGETS = ("attention", "both")
CORRECTIONS = (0.0, 0.15, 0.25, 0.35, 0.5, 0.65, 0.8)
COORDINATES = ("log_snr", 0.5, 0.35, 0.15, "step")
REACH = 0.35  # of the gap to the nearest step that runs: how far a step moves, one standard deviation


class Changes:
    """Small random changes of a plan.

    Args:
        rng: generator of the random numbers.
        layers: number of layers that the model has.
    """

    def __init__(self, rng: random.Random, layers: int) -> None:
        self.rng, self.layers = rng, layers
        self.kinds: list[tuple[float, Callable[[CandidatePlan], CandidatePlan]]] = [
            (0.45, self.shift), (0.2, self.move), (0.07, self.halve), (0.08, self.add),
            (0.08, self.skip), (0.07, self.reuse), (0.05, self.forecast),
        ]  # fmt: skip

    def __call__(self, candidate: CandidatePlan) -> CandidatePlan:
        """One to three changes."""
        weights = [weight for weight, _ in self.kinds]
        for _ in range(self.rng.choice((1, 1, 2, 3))):
            (_, change), *_ = self.rng.choices(self.kinds, weights)
            candidate = change(candidate)
        return candidate

    def shift(self, candidate: CandidatePlan) -> CandidatePlan:
        """Let a step that runs change places with one nearby: about a third of the way to its neighbour.

        Args:
            candidate: the plan to change; it stays as it is.

        Returns:
            The changed one.
        """
        step, bounds = self._running(candidate), _bounds(candidate)
        gap = min(abs(step - other) for other in bounds if other != step)
        distance = max(1, round(abs(self.rng.gauss(0, REACH * gap))))
        return self._swapped(candidate, step, step + self.rng.choice((-distance, distance)))

    def move(self, candidate: CandidatePlan) -> CandidatePlan:
        """Let a step that runs change places with the one in the middle of a gap between others.

        Args:
            candidate: the plan to change; it stays as it is.

        Returns:
            The changed one.
        """
        step = self._running(candidate)
        others = [other for other in _bounds(candidate) if other != step]
        first = self.rng.randrange(len(others) - 1)
        return self._swapped(candidate, step, (others[first] + others[first + 1]) // 2)

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
        """Forecast in another order or over another coordinate, or correct by another share.

        Args:
            candidate: the plan to change; it stays as it is.

        Returns:
            The changed one.
        """
        if any(candidate.rows) and self.rng.random() < 0.5:
            return replace(candidate, forecast_order=3 - candidate.forecast_order)
        kind = self.rng.choice(("order", "coordinate", "correction"))
        if kind == "order":
            return replace(candidate, output_order=3 - candidate.output_order)
        if kind == "coordinate":
            return replace(candidate, forecast_over=self.rng.choice(COORDINATES))
        return replace(candidate, output_correction=self.rng.choice(CORRECTIONS))

    def _running(self, candidate: CandidatePlan) -> int:
        """A step that runs, other than the first."""
        return self.rng.choice([i for i, n in enumerate(candidate.branches) if n and i] or [1])


def _bounds(candidate: CandidatePlan) -> list[int]:
    """The steps that run, and the end."""
    return [*(i for i, n in enumerate(candidate.branches) if n or not i), len(candidate.branches)]


def _with(candidate: CandidatePlan, step: int, branches: int) -> CandidatePlan:
    changed, rows = list(candidate.branches), list(candidate.rows)
    changed[step] = branches
    rows[step] = rows[step] if branches else 0
    return replace(candidate, branches=tuple(changed), rows=tuple(rows))
