"""Pareto fronts of a suite that compares several methods: its points, and the fastest at each drift.

How the fronts of two sides compare, as curves, is in curves.py; tables, text and plots show both.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from bench.record import Mean, Median, Record
from bench.report.curves import Axis, Comparison, comparisons
from bench.report.selection import NO_LOSS_MARGIN, OURS, Selection
from bench.report.setup import on_baseline_solver
from bench.stats import pareto

MIN_METHODS = 3  # methods besides the baseline that a suite with fronts has
LEVELS = (0.01, 0.02, 0.035, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3)
GOAL_OF_LIMIT = 0.9  # of the speedup that FLOPs allow
MAX_DRAWN = 8  # configurations that a plot or page with a row for each can hold

AXES = (
    Axis("a", "drift", "drift_per_image", "drift from the baseline", "front-baseline"),
    Axis(
        "b",
        "drift_converged",
        "drift_converged_per_image",
        "drift from the converged trajectory",
        "front-converged",
    ),
)


class Point(NamedTuple):
    """A configuration on one axis."""

    record: Record
    speed: Median
    drift: Mean


@dataclass(frozen=True)
class Level:
    """The fastest configurations with a mean drift no greater than this."""

    drift: float
    first: Record | None
    second: Record | None  # the fastest of another method
    ours: Record | None
    usual: Record | None  # the fastest competitor on the baseline's solver
    any: Record | None  # the fastest competitor on any solver


@dataclass(frozen=True)
class Front:
    """One axis: its points, the names of those on the front, its levels, and the curves."""

    axis: Axis
    points: list[Point]
    on: frozenset[str]
    levels: list[Level]
    comparisons: list[Comparison]  # by mean drift
    geometric: list[Comparison]  # by the geometric mean over images


@dataclass(frozen=True)
class Fronts:
    """A suite of several methods: a front for each axis that was measured."""

    fronts: list[Front]
    selection: Selection  # of the records compared: over the same baseline
    elsewhere: list[Record]  # those measured over another baseline, such as the compiled one

    @property
    def records(self) -> Sequence[Record]:
        """The records compared."""
        return self.selection.records

    def marks(self, record: Record) -> list[str]:
        """Find the fronts that a configuration is on.

        Args:
            record: the record of one configuration.

        Returns:
            The marks of their axes; none where it is on no front.
        """
        return [front.axis.mark for front in self.fronts if record.name in front.on]


def compare(records: Sequence[Record], margin: float = NO_LOSS_MARGIN) -> Fronts | None:
    """Make the fronts of a suite.

    Args:
        records: the suite's records.
        margin: drift that still counts as no loss, relative to the baseline's own drift.

    Returns:
        The fronts; None unless it measured MIN_METHODS methods or more besides the baseline.
    """
    measured = [r for r in Selection(records).finished if r.timing and r.quality]
    same, elsewhere = _same_baseline(measured)
    if len({r.method for r in same} - {"baseline"}) < MIN_METHODS:
        return None
    fronts = [_front(axis, points) for axis in AXES if _lossy(points := _points(same, axis))]
    return Fronts(fronts, Selection(same, margin), elsewhere) if fronts else None


def _lossy(points: Iterable[Point]) -> bool:
    """Whether there is any loss to draw."""
    return any(point.drift.mean > 0 for point in points)


def _same_baseline(records: Sequence[Record]) -> tuple[list[Record], list[Record]]:
    """Speedups over different baselines do not compare: those over the commonest one, and the rest."""
    counts = Counter(_baseline(record) for record in records)
    usual = max(counts, key=lambda what: counts[what], default="")  # the first, among equals
    same = [record for record in records if _baseline(record) == usual]
    return same, [record for record in records if _baseline(record) != usual]


def _baseline(record: Record) -> str:
    fields = ("model", "dtype", "scheduler", "num_inference_steps", "guidance_scale", "batch_size")
    timed = record.timing.baseline if record.timing else ""
    return repr([timed, *[record.config.get(field) for field in fields]])


def _points(records: Iterable[Record], axis: Axis) -> list[Point]:
    return [
        Point(record, record.timing.speedup, drift)
        for record in records
        if record.timing and (drift := getattr(record.quality, axis.field))
    ]


def _front(axis: Axis, points: list[Point]) -> Front:
    best = pareto([(point.speed.median, point.drift.mean) for point in points])
    on = frozenset(point.record.name for point, it in zip(points, best, strict=True) if it)
    levels = [_level(points, drift) for drift in LEVELS]
    records = [p.record for p in points]
    return Front(
        axis,
        points,
        on,
        levels,
        comparisons(records, axis),
        comparisons(records, axis, "geometric mean"),
    )


def _level(points: Sequence[Point], drift: float) -> Level:
    within = [p for p in points if p.drift.mean <= drift and p.record.method != "baseline"]
    within = [p for p in within if p.speed.median > 1]  # what is slower than the baseline is no choice
    first = fastest(within)
    competitors = [p for p in within if p.record.method != OURS]
    return Level(
        drift,
        first,
        second=fastest(p for p in within if first and p.record.method != first.method),
        ours=fastest(p for p in within if p.record.method == OURS),
        usual=fastest(p for p in competitors if on_baseline_solver(p.record)),
        any=fastest(competitors),
    )


def fastest(points: Iterable[Point]) -> Record | None:
    """Choose the fastest of some points; of equally fast ones the one that drifts least.

    Args:
        points: the points to choose from; may be empty.

    Returns:
        Its record; None where there is no point.
    """
    best = max(points, key=lambda p: (p.speed.median, -p.drift.mean), default=None)
    return best.record if best else None


def drawn(fronts: Fronts) -> list[Record]:
    """Choose the few configurations to draw one by one.

    They are the control, and the fastest at every second level of each axis; then, while there is room, the
    fastest of another method there, and others on a front.

    Args:
        fronts: the suite's fronts, one an axis.

    Returns:
        Their records in the suite's order, MAX_DRAWN and the control at most.
    """
    levels = [level for front in fronts.fronts for level in front.levels[1:6:2]]
    candidates = [level.first for level in levels] + [level.second for level in levels]
    candidates += [r for r in fronts.records if fronts.marks(r) and r.method != "baseline"]
    chosen = list(dict.fromkeys(record.name for record in candidates if record))[:MAX_DRAWN]
    control = [r.name for r in fronts.records if r.method == "baseline"][:1]
    return [record for record in fronts.records if record.name in control + chosen]
