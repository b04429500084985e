"""Speed against loss, and the measured ratios behind it."""

# ruff: noqa: RUF001 - the signs × and – are meant

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, LogLocator

from bench.record import Mean, Median, Record, Timing
from bench.report.plots.labels import label
from bench.report.plots.style import GREY, canvas, error_bar, method_style, plain, save, style
from bench.report.selection import Selection
from bench.stats import pareto

Point = tuple[Record, Median, Mean]
_LINEAR_UP_TO = 4  # times the smallest positive error; a wider range needs a log axis


def points(records: Sequence[Record], field: str) -> list[Point]:
    """Choose those with both a speedup and an error.

    Args:
        records: the suite's records.
        field: a field of the record's quality, such as `drift_converged`.

    Returns:
        Record, speedup and error of each.
    """
    return [
        (record, record.timing.speedup, error)
        for record in records
        if record.timing and record.quality and (error := getattr(record.quality, field))
    ]


def plot_pareto(selection: Selection, directory: Path) -> Path | None:
    """Plot speedup against drift, from the baseline and, where known, from the converged trajectory.

    Args:
        selection: the suite's records, with what follows from them.
        directory: the plot goes to a file in there.

    Returns:
        The file; None where no configuration has both.
    """
    baseline_drift, finished = selection.baseline_drift, selection.finished
    panels = [
        ("drift", "drift from the baseline", None),
        ("drift_converged", "drift from the converged trajectory", baseline_drift),
    ]
    known = [
        (measured, title, band) for field, title, band in panels if (measured := points(finished, field))
    ]
    if not known:
        return None
    with style():
        figure = canvas(4.4 * len(known) + 1.4, 4.2)
        axes = figure.subplots(1, len(known), squeeze=False, sharex=True)
        for ax, (measured, title, band) in zip(axes[0], known, strict=True):
            _panel(ax, measured, title, band)
        _legend(axes[0][-1], [record for record, _, _ in known[0][0]], baseline_drift)
        for ax, (measured, _, _) in zip(axes[0], known, strict=True):
            _names(ax, measured)
        return save(figure, directory / "pareto.webp")


def _panel(ax: Axes, measured: Sequence[Point], title: str, baseline_drift: Mean | None) -> None:
    best = pareto([(speed.median, error.mean) for _, speed, error in measured])
    _scale(ax, [error.mean for _, _, error in measured])
    if baseline_drift:
        _own_drift(ax, baseline_drift)
    for (record, speed, error), on_front in zip(measured, best, strict=True):
        _cross(ax, record, speed, error, on_front)
    front = _front(measured)
    ax.plot([x for x, _ in front], [y for _, y in front], color="#444444", lw=0.9, zorder=2)
    ax.axvline(1, color=GREY, lw=0.7, zorder=1)
    ax.grid(True)
    ax.margins(0.14, 0.1)
    ax.set(xlabel="speedup over the baseline (×), higher is better", title=title)
    ax.set_ylabel("relative L2 of the final latent, lower is better")


def _scale(ax: Axes, errors: Sequence[float]) -> None:
    """Linear over a narrow range; else a log axis, and one that still shows an exact zero."""
    positive = [error for error in errors if error > 0]
    if not positive or max(positive) <= _LINEAR_UP_TO * min(positive):
        return
    if len(positive) == len(errors):
        ax.set_yscale("log", subs=[])
        ax.yaxis.set_major_locator(LogLocator(subs=[1, 1.5, 2, 3, 5, 7]))
    else:
        threshold = min(positive) / 2
        ax.set_yscale("symlog", linthresh=threshold, linscale=0.4)
        decades = range(math.floor(math.log10(threshold)), 2)
        places = [digit * 10.0**decade for decade in decades for digit in (1, 2, 5)]
        # Below the threshold they would lie upon each other.
        ax.yaxis.set_major_locator(FixedLocator([0, *(place for place in places if place >= threshold)]))
    ax.yaxis.set_major_formatter("{x:g}")


def _own_drift(ax: Axes, baseline_drift: Mean) -> None:
    ax.axhspan(baseline_drift.low, baseline_drift.high, color="#d9d9d9", lw=0, zorder=0)
    ax.axhline(baseline_drift.mean, color="black", lw=0.9, ls=(0, (6, 3)), zorder=1)


def _cross(ax: Axes, record: Record, speed: Median, error: Mean, on_front: bool) -> None:
    drawn = method_style(record.method)
    colour = drawn.colour if on_front else GREY
    ax.errorbar(
        speed.median,
        error.mean,
        xerr=error_bar(speed),
        yerr=error_bar(error),
        fmt=drawn.marker,
        color=colour,
        mfc=colour if on_front else "white",
        ms=9 if record.method == "baseline" else 5.5,
        elinewidth=0.9,
        zorder=4 if on_front else 3,
    )


def _front(measured: Sequence[Point]) -> list[tuple[float, float]]:
    return staircase([(speed.median, error.mean) for _, speed, error in measured])


def staircase(places: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Bound what is reached: at least so fast, at no more loss.

    Args:
        places: speedup and error of each configuration.

    Returns:
        The corners of the staircase in order.
    """
    ordered = sorted(place for place, on in zip(places, pareto(places), strict=True) if on)
    steps = [(before[0], after[1]) for before, after in pairwise(ordered)]
    return [corner for pair in zip(ordered, steps, strict=False) for corner in pair] + ordered[-1:]


def _names(ax: Axes, measured: Sequence[Point]) -> None:
    where = [(speed.median, error.mean) for _, speed, error in measured]
    label(ax, where, [record.name for record, _, _ in measured], _front(measured))


def _legend(ax: Axes, records: Sequence[Record], baseline_drift: Mean | None) -> None:
    """One entry a method, then what grey, the line and the band mean."""
    entries = [
        Line2D([], [], color=method_style(m).colour, marker=method_style(m).marker, ls="", label=m)
        for m in dict.fromkeys(record.method for record in records)
    ]
    entries += [
        Line2D([], [], color=GREY, marker="o", mfc="white", ls="", label="dominated"),
        Line2D([], [], color="#444444", lw=0.9, label="Pareto front"),
    ]
    if baseline_drift:
        name = "baseline's own drift\nfrom converged"
        entries.append(Line2D([], [], color="black", lw=0.9, ls=(0, (6, 3)), label=name))
    ax.legend(handles=entries, loc="center left", bbox_to_anchor=(1.01, 0.5))


def plot_speedups(records: Sequence[Record], directory: Path) -> Path | None:
    """Plot each configuration's paired ratios, their median with its interval, and its limit.

    Args:
        records: the suite's records.
        directory: the plot goes to a file in there.

    Returns:
        The file; None where nothing was timed.
    """
    timed = [(r, r.timing) for r in records if r.status == "ok" and r.timing]
    if not timed:
        return None
    with style():
        figure = canvas(7.2, 0.9 + 0.3 * len(timed))
        ax = figure.subplots()
        for row, (record, timing) in enumerate(timed):
            _ratios(ax, row, record, timing)
        ax.axvline(1, color="black", lw=0.8)
        ax.set_yticks(range(len(timed)), [plain(record.name) for record, _ in timed])
        ax.set_ylim(len(timed) - 0.4, -0.6)
        ax.set_xlabel("speedup over the baseline (×)")
        ax.grid(True, axis="x")
        _speed_legend(ax)
        return save(figure, directory / "speedups.webp")


def _ratios(ax: Axes, row: int, record: Record, timing: Timing) -> None:
    speed, drawn = timing.speedup, method_style(record.method)
    ax.plot(timing.ratios, [row + 0.3] * len(timing.ratios), "|", color=GREY, ms=4, mew=0.7, zorder=2)
    xerr = error_bar(speed)
    ax.errorbar(speed.median, row, xerr=xerr, fmt=drawn.marker, color=drawn.colour, ms=6, capsize=3)
    if record.limits and record.limits.speedup_limit > 1:
        ax.plot(record.limits.speedup_limit, row, marker="D", mfc="none", mec="black", ms=5, ls="")


def _speed_legend(ax: Axes) -> None:
    entries = [
        Line2D([], [], color="black", marker="o", lw=0.9, label="median, 95 % interval"),
        Line2D([], [], color=GREY, marker="|", ls="", label="one measured pair"),
        Line2D([], [], color="black", marker="D", mfc="none", ls="", label="limit from FLOPs"),
    ]
    ax.legend(handles=entries, loc="lower left", bbox_to_anchor=(0, 1), ncols=3)
