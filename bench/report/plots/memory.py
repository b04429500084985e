"""Peak memory and cache size over the batch size, and where memory was exceeded."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from bench.record import Record
from bench.report.plots.style import STYLES, canvas, plain, save, style
from bench.report.tables.columns import lookup

GB = 1e9
PEAKS = {  # the first that any record has
    "memory.torch_allocated_peak": "peak on the device, torch's allocator (GB)",
    "memory.rss_peak": "peak resident in the host's memory (GB)",
}
CACHE = ("memory.cache_bytes", "what the cache holds (GB)")
SAME = ("method", "options", "dtype", "compile", "cuda_graphs")  # of a line's configurations


class Line(NamedTuple):
    """Configurations that differ in their batch size."""

    name: str
    records: list[Record]

    def points(self, path: str) -> list[tuple[int, float]]:
        """Collect the points of the line: the cache's axis is logarithmic, so zeros are none.

        Args:
            path: names of fields with dots between, of bytes.

        Returns:
            Batch size and gigabytes, sorted, where measured and above zero.
        """
        measured = [(batch(record), lookup(record, path)) for record in self.records]
        return sorted((size, value / GB) for size, value in measured if value)

    @property
    def exceeded(self) -> list[int]:
        """Batch sizes that did not fit."""
        return [batch(record) for record in self.records if _exceeded(record)]


def batch(record: Record) -> int:
    """Look up a configuration's batch size.

    Args:
        record: the record of one configuration.

    Returns:
        Images of one call.
    """
    return int(record.config["batch_size"])


def lines(records: Sequence[Record]) -> list[Line]:
    """Group the configurations that were run at several batch sizes.

    Args:
        records: the suite's records.

    Returns:
        A line for each such group, in the order of their first.
    """
    by_config: dict[str, Line] = {}
    for record in records:
        same = json.dumps([record.config.get(field) for field in SAME], sort_keys=True)
        name = re.sub(rf"-{record.config.get('batch_size')}(?=-|$)", "", record.name)
        by_config.setdefault(same, Line(name, [])).records.append(record)
    return [line for line in by_config.values() if len({batch(r) for r in line.records if _informs(r)}) > 1]


def _exceeded(record: Record) -> bool:
    return (record.reason or "").startswith("out of memory")


def _informs(record: Record) -> bool:
    return "batch_size" in record.config and (record.memory is not None or _exceeded(record))


def plot_memory(records: Sequence[Record], directory: Path) -> Path | None:
    """Plot memory over the batch size: two panels, a line for each method and its options.

    Args:
        records: the suite's records.
        directory: the plot goes to a file in there.

    Returns:
        The file; None where nothing was run at two batch sizes.
    """
    drawn = lines(records)
    peak = next((p for p in PEAKS if any(line.points(p) for line in drawn)), None)
    if peak is None:
        return None
    with style():
        figure = canvas(10.2, 4.0)
        left, right = figure.subplots(1, 2)
        _panel(left, drawn, peak, PEAKS[peak])
        _panel(right, drawn, *CACHE)
        left.set_ylim(bottom=0)
        right.set_yscale("log")  # separates the bits at every batch size
        _legend(right, drawn)
        return save(figure, directory / "memory.webp")


def _panel(ax: Axes, drawn: Sequence[Line], path: str, title: str) -> None:
    for line, (colour, marker) in zip(drawn, _styles(drawn), strict=True):
        points = line.points(path)
        ax.plot([x for x, _ in points], [y for _, y in points], color=colour, marker=marker, ms=4, lw=1)
        for size in line.exceeded:
            ax.plot(size, 1, "x", color=colour, ms=8, transform=ax.get_xaxis_transform(), clip_on=False)
    sizes = sorted({batch(record) for line in drawn for record in line.records})
    ax.set_xscale("log", base=2)
    ax.set_xticks(sizes, [str(size) for size in sizes])
    ax.minorticks_off()
    ax.yaxis.set_major_formatter("{x:g}")
    ax.grid(True)
    ax.set(xlabel="images in a batch", title=title)


def _styles(drawn: Sequence[Line]) -> list[tuple[str, str]]:
    """A colour and a marker a line."""
    known = list(STYLES.values())
    return [(known[i % len(known)].colour, known[i % len(known)].marker) for i in range(len(drawn))]


def _legend(ax: Axes, drawn: Sequence[Line]) -> None:
    entries = [
        Line2D([], [], color=colour, marker=marker, ms=4, lw=1, label=plain(line.name))
        for line, (colour, marker) in zip(drawn, _styles(drawn), strict=True)
    ]
    if any(line.exceeded for line in drawn):
        entries.append(Line2D([], [], color="black", marker="x", ms=8, ls="", label="did not fit"))
    ax.legend(handles=entries, loc="center left", bbox_to_anchor=(1.01, 0.5))
