"""Which layers reused at which step, under the SNR and the entropy of those steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.ticker import MaxNLocator

from bench.record import Record, Reuse
from bench.report.plots.style import canvas, method_style, plain, save, style

_COLUMNS = 3
_TWO = ListedColormap(["#eef1f4", "#1f4e79"])  # computed, reused: far apart in grey too
_Panel = Callable[[Axes], None]


def _finished(records: Sequence[Record]) -> list[Record]:
    return [record for record in records if record.status == "ok"]


def reusing(records: Sequence[Record]) -> list[tuple[Record, Reuse]]:
    """Choose the finished runs that reused anything.

    Args:
        records: the suite's records.

    Returns:
        Their records and what they reused, with maps.
    """
    return [(r, r.reuse) for r in _finished(records) if r.reuse and r.reuse.ratio > 0 and r.reuse.map]


def plot_maps(records: Sequence[Record], directory: Path) -> Path | None:
    """Plot one small map a configuration that reuses; on top, SNR and entropy over the same steps.

    Args:
        records: the suite's records.
        directory: the plot goes to a file in there.

    Returns:
        The file; None where there is nothing to draw.
    """
    maps, signals = reusing(records), _signals(records)
    if not maps and not signals:
        return None
    rows = bool(signals) + ceil(len(maps) / _COLUMNS)
    with style():
        figure = canvas(8.6, 0.35 + 1.75 * rows)
        axes = figure.subplots(rows, _COLUMNS, squeeze=False)
        for ax, draw in zip(axes[0], signals, strict=False):
            draw(ax)
        small = axes[bool(signals) :].ravel()
        for ax, (record, reuse) in zip(small, maps, strict=False):
            _map(ax, record, reuse)
        figure.supxlabel("denoising step (first to last)", size=8)
        for ax in [*(axes[0][len(signals) :] if signals else []), *small[len(maps) :]]:
            ax.axis("off")
        return save(figure, directory / "reuse-maps.webp")


def _signals(records: Sequence[Record]) -> list[_Panel]:
    """The panels of the top row: SNR, and entropy where a run measured it."""
    runs = [r.reuse for r in _finished(records) if r.reuse]
    snr = next((run.snr for run in runs if run.snr), None)
    entropy = _fullest([run.entropy for run in runs if run.entropy])
    panels: list[_Panel] = [lambda ax: _snr(ax, snr)] if snr else []
    if entropy is not None:
        panels += [lambda ax: _entropy_mean(ax, entropy), lambda ax: _entropy_map(ax, entropy)]
    return panels


def _fullest(measured: Sequence[Any]) -> np.ndarray | None:
    """The run that measured entropy at most calls, steps x layers, NaN where it did not."""
    tables = [np.array(table, dtype=float) for table in measured]
    known = [table for table in tables if np.isfinite(table).any()]
    return max(known, key=lambda table: np.isfinite(table).sum(), default=None)


def _steps(ax: Axes, steps: int, ylabel: str, title: str) -> None:
    ax.set(xlim=(-0.5, steps - 0.5), ylabel=ylabel, title=title)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))


def _snr(ax: Axes, snr: Sequence[float]) -> None:
    ax.semilogy(range(len(snr)), snr, color="black", lw=1.2)
    ax.axhline(1, color="#8a8a8a", lw=0.7, ls=":")
    ax.grid(True)
    _steps(ax, len(snr), "SNR (log)", "signal-to-noise ratio")


def _entropy_mean(ax: Axes, entropy: np.ndarray) -> None:
    """Mean over the layers measured at a step, in a band from the least to the greatest."""
    steps = np.flatnonzero(np.isfinite(entropy).any(axis=1))
    known = entropy[steps]
    low, high = np.nanmin(known, axis=1), np.nanmax(known, axis=1)
    ax.fill_between(steps, low, high, color="#dcdcdc", lw=0)
    ax.plot(steps, np.nanmean(known, axis=1), color="black", lw=1.2)
    ax.grid(True)
    _steps(ax, len(entropy), "entropy (nats)", "entropy: mean, range over layers")


def _entropy_map(ax: Axes, entropy: np.ndarray) -> None:
    ax.set_facecolor("white")
    image = ax.imshow(entropy.T, aspect="auto", origin="lower", cmap="cividis")
    ax.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=4))
    ax.figure.colorbar(image, ax=ax, label="nats", pad=0.02)
    _steps(ax, len(entropy), "layer", "entropy (white: not measured)")


def _map(ax: Axes, record: Record, reuse: Reuse) -> None:
    table = np.array(reuse.map).T
    ax.imshow(table, aspect="auto", origin="lower", cmap=_TWO, vmin=0, vmax=1)
    ax.spines[["top", "right"]].set_visible(True)
    ax.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=4))
    _steps(ax, table.shape[1], "layer", f"{plain(record.name)}\n{100 * reuse.ratio:.1f} % reused")
    ax.title.set_color(method_style(record.method).colour)
