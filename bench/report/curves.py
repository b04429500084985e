"""DQAR's front and its competitors' compared as curves: at each drift the ratio of their speeds, with a band.

Each side's front is interpolated log-log between its own configurations, and level beyond its fastest: who
accepts more drift may still use that one. The band is a bootstrap: the images that drift is a mean over and
the timing pairs that speed is a median of are resampled, both fronts built again, and their ratio taken.

Drift is averaged over the images twice: by the mean, which the few images that end elsewhere decide, and by
the geometric mean, which says how near the others come.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.record import Interval, Record
from bench.report.selection import OURS
from bench.report.setup import on_baseline_solver

GOAL_USUAL, GOAL_ANY = 1.3, 1.15  # DQAR over competitors on the baseline's solver, on any solver
GOAL_HALF = 1.3  # over competitors on any solver, on half of RANGE
RANGE = (0.02, 0.15)  # of drift, from hardly visible to another image
RESAMPLES = 2_000
GRID = 61  # drifts at which curves are computed, equally spaced in their logarithm
_Z = 1.959963984540054  # half-width of a normal's 95 % interval, in standard deviations
_ENDS = (0.025, 0.975)

Floats = NDArray[np.float64]
Measure = Literal["seconds", "FLOPs"]
Against = Literal["the baseline's solver", "any solver"]
Average = Literal["mean", "geometric mean"]


class Axis(NamedTuple):
    """One way to measure loss."""

    mark: str  # as tables name it
    field: str  # of a record's quality: the mean
    per_image: str  # of a record's quality: the values it is the mean of
    title: str
    name: str  # of its plot and of its table


class Span(NamedTuple):
    """A range of drifts on which a goal is not met, and the lowest edge of the band there."""

    start: float
    stop: float
    lowest: float


class Curve(NamedTuple):
    """A ratio over drift, with a band; [GRID] each."""

    drift: Floats  # ascending: the range that both sides reach
    ratio: Floats
    low: Floats  # the band's 95 % edges
    high: Floats


@dataclass(frozen=True)
class Edge:
    """Where a band's lower edge reaches a goal, over a range of drift."""

    start: float  # of the range that both sides reach, between the bounds asked for
    stop: float
    reached: list[Span]
    missed: list[Span]
    share: float  # of the range in which it is reached, by the logarithm of drift


@dataclass(frozen=True)
class Comparison:
    """How many times as fast as its competitors DQAR is, over drift."""

    measure: Measure  # speed by measured seconds, or by counted FLOPs
    against: Against  # which competitors
    goal: float
    curve: Curve
    per_image: bool  # whether images were resampled; else drifts were drawn from their intervals
    nearest: tuple[float, float]  # the least drift of DQAR, and of its competitors, faster than the baseline
    average: Average = "mean"  # of the drifts of single images

    @property
    def missed(self) -> list[Span]:
        """The ranges of drift where the band's lower edge is below the goal."""
        return _spans(self.curve, self.curve.low < self.goal)

    @property
    def met(self) -> bool:
        """Whether the band's lower edge reaches the goal on the whole range."""
        return not self.missed

    def edge(self, goal: float, bounds: tuple[float, float] = RANGE) -> Edge | None:
        """Judge the band's lower edge between two drifts.

        Args:
            goal: a ratio of speeds.
            bounds: the least and the greatest drift.

        Returns:
            Where the edge reaches the goal and where not; None where the curve has nothing between them.
        """
        inside = (self.curve.drift >= bounds[0]) & (self.curve.drift <= bounds[1])
        if not inside.any():
            return None
        curve = Curve(*(values[inside] for values in self.curve))
        reached = curve.low >= goal
        return Edge(
            start=float(curve.drift[0]),
            stop=float(curve.drift[-1]),
            reached=_spans(curve, reached),
            missed=_spans(curve, ~reached),
            share=float(reached.mean()),
        )

    def at(self, drift: float) -> tuple[float, float, float]:
        """Interpolate the curve at one drift, linearly in both logarithms.

        Args:
            drift: relative L2, above 0; beyond the grid's ends the value there.

        Returns:
            The ratio of speeds, and the ends of its band.
        """
        x, grid = np.log(drift), np.log(self.curve.drift)
        ratio, low, high = (float(np.exp(np.interp(x, grid, np.log(y)))) for y in self.curve[1:])
        return ratio, low, high


def _spans(curve: Curve, where: NDArray[np.bool_]) -> list[Span]:
    """The ranges of drift in which something holds."""
    edges = np.diff(np.concatenate([[0], where.astype(int), [0]]))
    starts, stops = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    return [
        Span(float(curve.drift[i]), float(curve.drift[j - 1]), float(curve.low[i:j].min()))
        for i, j in zip(starts, stops, strict=True)
    ]


def comparisons(records: Sequence[Record], axis: Axis, average: Average = "mean") -> list[Comparison]:
    """Compare DQAR with competitors on the baseline's solver and on any, by seconds and by FLOPs.

    Args:
        records: configurations with timing and a drift on `axis`.
        axis: the drift that is compared on.
        average: what the drifts of single images are summed up by.

    Returns:
        Those comparisons for which both sides have configurations faster than the baseline. There is no
        geometric mean where drifts of single images were not recorded, and none of a configuration with an
        image that does not drift.
    """
    kept = [r for r in records if r.method != "baseline" and getattr(r.quality, axis.field).mean > 0]
    if average == "geometric mean":
        kept = [r for r in kept if min(getattr(r.quality, axis.per_image), default=0) > 0]
    drifts, per_image = _drifts(kept, axis, average)
    if average == "geometric mean" and not per_image:
        return []
    speeds: dict[Measure, Floats] = {"seconds": _seconds(kept), "FLOPs": _flops(kept)}
    ours = np.array([record.method == OURS for record in kept], dtype=bool)
    compared = []
    for measure, speed in speeds.items():
        for against, goal, counts in _competitors():
            theirs = ~ours & np.array([counts(record) for record in kept], dtype=bool)
            if found := _curve(drifts, speed, (ours, theirs)):
                curve, nearest = found
                compared.append(Comparison(measure, against, goal, curve, per_image, nearest, average))
    return compared


def _competitors() -> list[tuple[Against, float, Callable[[Record], bool]]]:
    return [
        ("the baseline's solver", GOAL_USUAL, on_baseline_solver),
        ("any solver", GOAL_ANY, lambda record: True),
    ]


def _curve(
    drifts: Floats, speeds: Floats, sides: Sequence[NDArray[np.bool_]]
) -> tuple[Curve, tuple[float, float]] | None:
    """Grid, ratio and band of two sides, and the least drift of each; None where one has nothing faster than
    the baseline.

    Args:
        drifts: [1 + RESAMPLES, configurations]; the first row is as measured.
        speeds: The same, of speedups.
        sides: Which configurations belong to each side, [configurations] each.
    """
    kept = [side & (speeds[0] > 1) & np.isfinite(speeds[0]) for side in sides]
    if not all(side.any() for side in kept):
        return None
    ends = [_reach(drifts[0, side], speeds[0, side]) for side in kept]
    start, stop = max(low for low, _ in ends), max(high for _, high in ends)
    grid = np.geomspace(start, max(stop, start * (1 + 1e-9)), GRID)
    curves = [front(drifts[:, side], speeds[:, side], grid) for side in kept]
    ratios = curves[0] / curves[1]
    low, high = np.quantile(ratios[1:], _ENDS, axis=0)
    curve = Curve(grid, ratios[0], np.minimum(low, ratios[0]), np.maximum(high, ratios[0]))
    return curve, (ends[0][0], ends[1][0])


def _reach(drift: Floats, speed: Floats) -> tuple[float, float]:
    """The least drift of a side, and that of its fastest configuration."""
    return float(drift.min()), float(drift[speed == speed.max()].min())


def front(drift: Floats, speed: Floats, at: Floats) -> Floats:
    """The speed that a side reaches at each drift: log-log between its Pareto points, level outside.

    Args:
        drift: [..., configurations]; each row is a front of its own, all of them built at once.
        speed: The same, of speedups.
        at: [drifts]

    Returns:
        [..., drifts]
    """
    order = np.lexsort((-speed, drift), axis=-1)
    x = np.log(np.take_along_axis(drift, order, axis=-1))
    y = np.log(np.maximum.accumulate(np.take_along_axis(speed, order, axis=-1), axis=-1))
    # How many configurations drift no more than each drift asked for, and the line that begins there.
    wanted = np.log(at)
    below = np.zeros((*x.shape[:-1], len(at)), dtype=np.intp)
    for i in range(x.shape[-1]):
        below += x[..., i, None] <= wanted
    rows = np.arange(below[..., 0].size).reshape(*x.shape[:-1], 1)
    x0, y0, slope = (line.ravel()[below + rows * line.shape[-1]] for line in _lines(x, y))
    return np.asarray(np.exp(y0 + slope * (wanted - x0)))


def _lines(x: Floats, y: Floats) -> tuple[Floats, Floats, Floats]:
    """The lines that a front consists of, [..., 1 + configurations]: level left of all, and from each
    configuration, as from the last Pareto point up to it, to the next one; level beyond the last.

    Args:
        x: [..., configurations], ascending.
        y: The same, not descending.

    Returns:
        Start, height there, and slope of each.
    """
    place, first = np.arange(x.shape[-1]), x[..., :1]
    rises = np.diff(y, prepend=-np.inf) > 0  # at the Pareto points
    start = np.maximum.accumulate(np.where(rises, place, 0), axis=-1)
    stop = np.where(rises, place, start[..., -1:])[..., ::-1]
    stop = np.minimum.accumulate(stop, axis=-1)[..., ::-1]
    stop = np.concatenate([stop[..., 1:], start[..., -1:]], axis=-1)
    (x0, x1), (y0, y1) = ([np.take_along_axis(v, i, axis=-1) for i in (start, stop)] for v in (x, y))
    slope = (y1 - y0) / np.where(start == stop, 1, x1 - x0)
    before = ((x0, first), (y0, y[..., :1]), (slope, np.zeros_like(first)))
    x0, y0, slope = (np.concatenate([level, line], axis=-1) for line, level in before)
    return x0, y0, slope


def _drifts(records: Sequence[Record], axis: Axis, average: Average) -> tuple[Floats, bool]:
    """Averaged drifts [1 + RESAMPLES, configurations], as measured first; whether images were resampled.

    The same images are drawn for all configurations, since all start from the same noise. Where a
    record lacks the values of single images, its mean is drawn from a log-normal with its interval.
    """
    means = [getattr(r.quality, axis.field) for r in records]
    values = [list(getattr(r.quality, axis.per_image)) for r in records]
    sizes = {len(each) for each in values}
    if len(sizes) == 1 and 0 not in sizes:
        (n,) = sizes
        once = np.full((1, n), 1 / n)
        drawn = np.random.default_rng(0).multinomial(n, once[0], size=RESAMPLES) / n
        images = np.array(values, dtype=float).reshape(len(records), n).T
        return _averaged(np.vstack([once, drawn]), images, average), True
    measured = np.array([mean.mean for mean in means])
    deviations = np.array([_log_deviation(mean) for mean in means])
    noise = np.random.default_rng(0).standard_normal((RESAMPLES, len(records)))
    return np.vstack([measured, measured * np.exp(noise * deviations)]), False


def _averaged(weights: Floats, images: Floats, average: Average) -> Floats:
    """Weighted averages over images [draws, configurations], of weights [draws, images]."""
    if average == "geometric mean":
        return np.asarray(np.exp(weights @ np.log(images)))
    return np.maximum(weights @ images, 1e-12)


def _log_deviation(value: Interval) -> float:
    """The standard deviation of a value's logarithm, from its interval."""
    if value.low <= 0:
        return float(value.half_width / value.value / _Z)
    return float(np.log(value.high / value.low) / (2 * _Z))


def _seconds(records: Sequence[Record]) -> Floats:
    """Speedups [1 + RESAMPLES, configurations]: each one's timing pairs are resampled independently."""
    rng = np.random.default_rng(1)
    columns = []
    for record in records:
        assert record.timing is not None  # every point is timed
        ratios = np.array(record.timing.ratios)
        drawn = np.median(ratios[rng.integers(len(ratios), size=(RESAMPLES, len(ratios)))], axis=1)
        columns.append(np.concatenate([[record.timing.speedup.median], drawn]))
    return np.stack(columns, axis=1) if columns else np.empty((1 + RESAMPLES, 0))


def _flops(records: Sequence[Record]) -> Floats:
    """Speedups that counted FLOPs allow, the same in each row; NaN where not counted."""
    limits = [r.limits.speedup_limit if r.limits else float("nan") for r in records]
    return np.tile(np.array(limits, dtype=float), (1 + RESAMPLES, 1))
