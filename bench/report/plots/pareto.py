"""The fronts as plots: every configuration, each method's own front, names on the overall one, and ratios."""

# ruff: noqa: RUF001 - the sign × is meant

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, NullFormatter, NullLocator

from bench.record import Mean
from bench.report.curves import Comparison
from bench.report.pareto import Front, Fronts, Point
from bench.report.plots.labels import Pair, label
from bench.report.plots.speed import staircase
from bench.report.plots.style import GREY, canvas, error_bar, method_style, plain, save, style
from bench.report.setup import on_baseline_solver, solver
from bench.stats import pareto

_SPEEDS = (0.5, 0.6, 0.7, 0.8, 1, 1.25, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10, 15, 20)
_DRIFTS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.035, 0.05, 0.07, 0.1, 0.2, 0.5, 1, 2, 5, 10, 100)
_ROOM = 480  # characters that fit along the front
_BAND = "#dedede"
_FRONT = "#bdbdbd"
_OWN = (0, (6, 3))


def plot_fronts(fronts: Fronts, directory: Path) -> list[Path]:
    """Plot each axis.

    Args:
        fronts: the suite's fronts, one an axis.
        directory: the plots go to AXIS.webp in there.

    Returns:
        The files, one an axis.
    """
    baseline_drift = fronts.selection.baseline_drift
    with style():
        return [
            save(plot(front, baseline_drift), directory / f"{front.axis.name}.webp")
            for front in fronts.fronts
        ]


def plot_ratios(fronts: Fronts, directory: Path) -> Path | None:
    """Plot DQAR's speed over its competitors' over drift, a panel for each axis.

    Args:
        fronts: the suite's fronts, one an axis.
        directory: the plot goes to a file in there.

    Returns:
        The file; None where nothing compares.
    """
    shown = [front for front in fronts.fronts if front.comparisons]
    if not shown:
        return None
    with style():
        figure = canvas(4.4 * len(shown) + 0.4, 3.6)
        for ax, front in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
            for comparison in front.comparisons:
                _ratio(ax, comparison)
            _ratio_axes(ax, front)
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2)
        return save(figure, directory / "ratios.webp")


def _ratio(ax: Axes, comparison: Comparison) -> None:
    """A curve; by seconds with its band and goal."""
    usual = comparison.against == "the baseline's solver"
    colour = method_style("dqar" if usual else "fewer_steps").colour
    name = f"by {comparison.measure}, competitors on {comparison.against}"
    timed = comparison.measure == "seconds"
    ax.plot(
        comparison.curve.drift,
        comparison.curve.ratio,
        color=colour,
        lw=1.4 if timed else 0.7,
        ls="-" if usual else "--",
        label=name,
    )
    if timed:
        ax.fill_between(
            comparison.curve.drift,
            comparison.curve.low,
            comparison.curve.high,
            color=colour,
            alpha=0.18,
            lw=0,
        )
        ax.axhline(comparison.goal, color=colour, lw=0.7, ls=":")


def _ratio_axes(ax: Axes, front: Front) -> None:
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(FixedLocator(_DRIFTS))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter("{x:g}")
    ax.axhline(1, color="black", lw=0.8)
    ax.grid(True)
    ax.set(xlabel=front.axis.title, title=f"({front.axis.mark}) speed over competitors' (×)")


def plot(front: Front, baseline_drift: Mean | None) -> Figure:
    """Draw one axis: all points, each method's own fronts, the overall one.

    Args:
        front: the front of one axis.
        baseline_drift: the baseline's own drift, drawn on the converged axis; None: not measured.

    Returns:
        The figure.
    """
    baseline_drift = baseline_drift if front.axis.field == "drift_converged" else None
    shown = [point for point in front.points if point.drift.mean > 0]  # a log axis has no 0
    figure = canvas(8.8, 7.4)
    ax = figure.subplots()
    _axes(ax, front, shown, baseline_drift)
    for point in shown:
        _point(ax, point, point.record.name in front.on)
    for group in _groups(shown):
        _own_front(ax, group)
    corners = staircase([_place(p) for p in shown if p.record.name in front.on])
    ax.plot(*zip(*corners, strict=True), color=_FRONT, lw=3.2, zorder=1.5, solid_joinstyle="round")
    _legend(figure, shown, baseline_drift)
    _names(ax, shown, front.on, corners)
    return figure


def _axes(ax: Axes, front: Front, shown: Sequence[Point], baseline_drift: Mean | None) -> None:
    ax.set(xscale="log", yscale="log")
    ax.set_xlim(*_limits([p.speed.median for p in shown] + [1], 1.08))
    ax.set_ylim(*_limits([p.drift.mean for p in shown], 1.25))
    for axis, places in ((ax.xaxis, _SPEEDS), (ax.yaxis, _DRIFTS)):
        axis.set_major_locator(FixedLocator(places))
        axis.set_minor_locator(NullLocator())
        axis.set_minor_formatter(NullFormatter())
        axis.set_major_formatter("{x:g}")
    ax.grid(True)
    ax.axvline(1, color=GREY, lw=0.8, zorder=1)
    if baseline_drift:
        ax.axhspan(baseline_drift.low, baseline_drift.high, color=_BAND, lw=0, zorder=0)
        ax.axhline(baseline_drift.mean, color="black", lw=0.9, ls=_OWN, zorder=1)
    ax.set_xlabel("speedup over the baseline (×), higher is better")
    ax.set_ylabel(f"{front.axis.title} (relative L2 of the final latent), lower is better")
    ax.set_title(f"({front.axis.mark}) speedup against {front.axis.title}")


def _limits(values: Sequence[float], room: float) -> tuple[float, float]:
    return min(values) / room, max(values) * room


def _point(ax: Axes, point: Point, on_front: bool) -> None:
    """A marker, filled on the baseline's solver, under the pale cross of its intervals."""
    drawn, speed, drift = method_style(point.record.method), point.speed, point.drift
    cross: dict[str, Any] = {
        "fmt": "none",
        "ecolor": drawn.colour,
        "elinewidth": 0.7,
        "alpha": 0.75 if on_front else 0.3,
    }
    ax.errorbar(speed.median, drift.mean, xerr=error_bar(speed), yerr=error_bar(drift), zorder=2, **cross)
    size = 10 if point.record.method == "baseline" else 6.5 if on_front else 4.5
    fill = drawn.colour if on_baseline_solver(point.record) else "white"
    how: dict[str, Any] = {
        "marker": drawn.marker,
        "color": drawn.colour,
        "mfc": fill,
        "mew": 1.1 if on_front else 0.9,
    }
    ax.plot(speed.median, drift.mean, ls="", ms=size, zorder=4 if on_front else 3, **how)


def _groups(shown: Sequence[Point]) -> list[list[Point]]:
    """The points of each method on the baseline's solver, and those of it on another."""
    groups: dict[tuple[str, bool], list[Point]] = {}
    for point in shown:
        groups.setdefault((point.record.method, on_baseline_solver(point.record)), []).append(point)
    return list(groups.values())


def _own_front(ax: Axes, group: Sequence[Point]) -> None:
    """A thin line through a group's own front."""
    places = [_place(point) for point in group]
    front = sorted(place for place, on in zip(places, pareto(places), strict=True) if on)
    drawn = method_style(group[0].record.method)
    ax.plot(*zip(*front, strict=True), color=drawn.colour, ls=drawn.line, lw=0.8, alpha=0.8, zorder=2)


def _names(ax: Axes, shown: Sequence[Point], on: frozenset[str], corners: Sequence[Pair]) -> None:
    """Names along the front; where they would not fit, numbers, and the names next to the plot."""
    named = sorted((p for p in shown if p.record.name in on and p.record.method != "baseline"), key=_place)
    texts = [point.record.name for point in named]
    if _crowded(texts):
        texts = [str(number) for number in range(1, len(named) + 1)]
        key = "\n".join(plain(f"{text}  {p.record.name}") for text, p in zip(texts, named, strict=True))
        ax.text(1.015, 1, key, transform=ax.transAxes, va="top", size=7, linespacing=1.4)
    label(ax, [_place(p) for p in named], texts, corners, [_place(p) for p in shown])


def _crowded(names: Sequence[str]) -> bool:
    return sum(len(name) for name in names) > _ROOM


def _place(point: Point) -> Pair:
    return point.speed.median, point.drift.mean


def _solvers(shown: Sequence[Point], usual: bool) -> str:
    """The solvers of the points that are filled, or hollow."""
    solvers = [solver(p.record) for p in shown if on_baseline_solver(p.record) == usual]
    return ", ".join(dict.fromkeys(name for name in solvers if name)) or "another solver"


def _legend(figure: Figure, shown: Sequence[Point], baseline_drift: Mean | None) -> None:
    """Below: one entry a method, then what fill, size, line and band mean."""
    methods = dict.fromkeys(point.record.method for point in shown)
    styles = [(method, method_style(method)) for method in methods]
    entries: list[Line2D | Patch] = [
        Line2D([], [], color=drawn.colour, marker=drawn.marker, ls=drawn.line, lw=0.8, label=method)
        for method, drawn in styles
    ]
    how: dict[str, Any] = {"color": "black", "marker": "o", "ls": ""}
    entries += [
        Line2D([], [], **how, label=f"filled: {_solvers(shown, True)}"),
        Line2D([], [], **how, mfc="white", label=f"hollow: {_solvers(shown, False)}"),
        Line2D(
            [], [], color=_FRONT, lw=3.2, marker="o", mfc="black", mec="black", label="on the front (named)"
        ),
        Line2D([], [], color="black", lw=0.8, label="thin line: a method's own front"),
    ]
    if baseline_drift:
        entries.append(Line2D([], [], color="black", lw=0.9, ls=_OWN, label="baseline's own drift"))
        entries.append(Patch(color=_BAND, lw=0, label="its 95 % interval"))
    figure.legend(handles=entries, loc="outside lower center", ncols=5)
