"""Who is ahead: at each drift the fastest configuration, its rivals, and by how much it leads.

Everything here is worked out from the records of one suite that compares several methods; how it is
shown is the matter of front_tables.py, front_words.py and front_plots.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from bench.record import Mean, Median, Record
from bench.report.goals import Verdict, judge
from bench.report.selection import left_out, ok, yardstick
from bench.report.setup import on_usual_solver
from bench.stats import pareto, ratio_of_medians

METHODS = 3  # beside the baseline: from so many on a suite has fronts
LEVELS = (0.01, 0.02, 0.035, 0.05, 0.07, 0.1)
GOAL_USUAL, GOAL_ANY = 1.3, 1.15  # DQAR over every competitor on its usual solver, on any solver
GOAL_OF_LIMIT = 0.9  # of the speedup that FLOPs allow
DRAWN = 8  # configurations that a plot or page with a row for each can hold
OURS = "dqar"


class Axis(NamedTuple):
    """One way to tell loss."""

    mark: str  # as tables name it
    field: str  # of a record's quality
    title: str
    name: str  # of its plot and of its table


AXES = (
    Axis("a", "drift", "drift from the baseline", "front-baseline"),
    Axis("b", "drift_converged", "drift from the converged trajectory", "front-converged"),
)


class Point(NamedTuple):
    """A configuration on one axis."""

    record: Record
    speed: Median
    drift: Mean


@dataclass(frozen=True)
class Duel:
    """Two configurations at one level: how many times as fast the first is, and what was wanted.

    Of DQAR's duels without a second, the ratio is over the baseline, which anybody may use instead.
    """

    first: Record | None
    second: Record | None
    ratio: Median | None  # null without a first
    goal: float

    @property
    def verdict(self) -> Verdict | Literal["nobody"]:
        """Whether the goal was met: with the whole interval, with none of it, or one cannot tell."""
        if self.first is None or self.ratio is None:
            return "missed" if self.second else "nobody"
        return judge(self.ratio.low, self.ratio.high, self.goal)


@dataclass(frozen=True)
class Level:
    """The fastest at a drift no greater than this."""

    drift: float
    own: bool  # the level is the upper end of the baseline's own drift, not one of LEVELS
    lead: Duel  # the fastest of all, and the fastest of another method
    usual: Duel  # DQAR's fastest, and the fastest competitor on the baseline's solver
    any: Duel  # the same, on any solver


@dataclass(frozen=True)
class Front:
    """One axis: its points, the names of those on the front, and its levels."""

    axis: Axis
    points: list[Point]
    on: frozenset[str]
    levels: list[Level]

    @property
    def asked(self) -> list[Level]:
        """The levels that the goals are about."""
        return [level for level in self.levels if not level.own]


@dataclass(frozen=True)
class Fronts:
    """What a suite of several methods says: a front for each axis that was measured."""

    fronts: list[Front]
    records: list[Record]  # those compared: over the same baseline
    elsewhere: list[Record]  # those measured over another baseline, such as the compiled one

    def marks(self, record: Record) -> list[str]:
        """On which fronts a configuration is."""
        return [front.axis.mark for front in self.fronts if record.name in front.on]

    @property
    def own(self) -> Mean | None:
        """The baseline's own drift from the converged trajectory."""
        return yardstick(self.records)


def compare(records: Sequence[Record]) -> Fronts | None:
    """The fronts of a suite; None unless it measured METHODS methods or more beside the baseline."""
    measured = [r for r in ok(records) if r.timing and r.quality]
    same, elsewhere = _same_baseline(measured)
    if len({r.method for r in same} - {"baseline"}) < METHODS:
        return None
    found = [_front(axis, points, yardstick(same)) for axis in AXES if _lossy(points := _points(same, axis))]
    return Fronts(found, same, elsewhere) if found else None


def _lossy(points: Iterable[Point]) -> bool:
    """Whether there is any loss to draw."""
    return any(point.drift.mean > 0 for point in points)


def _same_baseline(records: Sequence[Record]) -> tuple[list[Record], list[Record]]:
    """Speedups over different baselines do not compare: those over the commonest one, and the rest."""
    counts = Counter(_baseline(record) for record in records)
    usual = max(counts, key=lambda what: counts[what], default="")  # the first met, among equals
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


def _front(axis: Axis, points: list[Point], own: Mean | None) -> Front:
    best = pareto([(point.speed.median, point.drift.mean) for point in points])
    on = frozenset(point.record.name for point, it in zip(points, best, strict=True) if it)
    drifts = [(drift, False) for drift in LEVELS]
    drifts += [(own.high, True)] if own and axis.field == "drift_converged" else []
    return Front(axis, points, on, [_level(points, drift, it) for drift, it in sorted(drifts)])


def _level(points: Sequence[Point], drift: float, own: bool) -> Level:
    within = [p for p in points if p.drift.mean <= drift and p.record.method != "baseline"]
    within = [p for p in within if p.speed.median > 1]  # what is slower than the baseline is no choice
    first = fastest(within)
    second = fastest(p for p in within if first and p.record.method != first.method)
    ours = fastest(p for p in within if p.record.method == OURS)
    rivals = [p for p in within if p.record.method != OURS]
    usual = fastest(p for p in rivals if on_usual_solver(p.record))
    return Level(
        drift,
        own,
        lead=Duel(first, second, _ratio(first, second), 1),
        usual=_duel(ours, usual, GOAL_USUAL),
        any=_duel(ours, fastest(rivals), GOAL_ANY),
    )


def fastest(points: Iterable[Point]) -> Record | None:
    """The fastest of the points; of equally fast ones the one that loses least."""
    best = max(points, key=lambda p: (p.speed.median, -p.drift.mean), default=None)
    return best.record if best else None


def _duel(ours: Record | None, rival: Record | None, goal: float) -> Duel:
    alone = ours.timing.speedup if ours and ours.timing and rival is None else None
    return Duel(ours, rival, alone or _ratio(ours, rival), goal)


def _ratio(first: Record | None, second: Record | None) -> Median | None:
    return ratio_of_medians(_ratios(first), _ratios(second)) if first and second else None


def _ratios(record: Record) -> list[float]:
    """The paired ratios, baseline over candidate, that the record's speedup is the median of."""
    timing = record.timing
    assert timing is not None  # every point is timed
    return [b / c for i, (b, c) in enumerate(timing.pairs) if i not in left_out(timing)]


def drawn(fronts: Fronts) -> list[Record]:
    """The few configurations to draw one by one: the control, and the fastest at every second level of
    each axis; then, while there is room, the fastest of another method there, and others on a front."""
    duels = [level.lead for front in fronts.fronts for level in front.asked[1::2]]
    found = [duel.first for duel in duels] + [duel.second for duel in duels]
    found += [r for r in fronts.records if fronts.marks(r) and r.method != "baseline"]
    chosen = list(dict.fromkeys(record.name for record in found if record))[:DRAWN]
    control = [r.name for r in fronts.records if r.method == "baseline"][:1]
    return [record for record in fronts.records if record.name in control + chosen]
