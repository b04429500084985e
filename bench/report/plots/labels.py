"""Labels of points that overlap neither each other, nor points, nor lines."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise, product

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke
from matplotlib.text import Annotation, Text
from matplotlib.transforms import Bbox

from bench.report.plots.style import plain

Pair = tuple[float, float]
_RADII = (7, 15, 26, 40, 56, 74, 95)  # points of distance, nearest first
_SIDES = ((1, 0), (1, 1), (1, -1), (-1, 0), (-1, 1), (-1, -1), (0, 1), (0, -1))
_OFFSETS = [(r * x, r * y) for r, (x, y) in product(_RADII, _SIDES)]
_MARKER, _LINE = 4.5, 1.0  # half of what a point and a piece of line take up, in points
_NEAR = 11.0  # points; a label this near to another point seems to name that point


def label(
    ax: Axes,
    points: Sequence[Pair],
    texts: Sequence[str],
    lines: Sequence[Pair] = (),
    others: Sequence[Pair] = (),
) -> None:
    """Write each text at the nearest free place around its point, with a leader when far.

    Args:
        ax: its limits and scales are final.
        points: the labelled points, in data coordinates.
        texts: one for each point.
        lines: corners of a polyline, in data coordinates, that labels keep off.
        others: points without a label that labels keep off.
    """
    ax.figure.canvas.draw()  # fixes the layout, so that boxes are final
    taken = [_around(ax, _pixel(ax, point), _MARKER) for point in [*points, *others]]
    taken += [_around(ax, at, _LINE) for at in _along(ax, lines)]
    near = [_around(ax, _pixel(ax, point), _NEAR) for point in points]
    written: list[Bbox] = []
    hit = _corners(taken)
    for i, (point, text) in enumerate(zip(points, texts, strict=True)):
        claimed = _corners(near[:i] + near[i + 1 :])
        written.append(_place(ax, point, text, [hit, claimed, _corners(written)]))


def _pixel(ax: Axes, point: Pair) -> Pair:
    x, y = ax.transData.transform(point)
    return float(x), float(y)


def _around(ax: Axes, at: Pair, half: float) -> Bbox:
    half *= ax.figure.dpi / 72
    return Bbox([[at[0] - half, at[1] - half], [at[0] + half, at[1] + half]])


def _along(ax: Axes, corners: Sequence[Pair], pieces: int = 40) -> list[Pair]:
    """Points along a polyline, in pixels."""
    pixels = [_pixel(ax, corner) for corner in corners]
    shares = [i / pieces for i in range(pieces + 1)]
    return [(a[0] + t * (b[0] - a[0]), a[1] + t * (b[1] - a[1])) for a, b in pairwise(pixels) for t in shares]


def _corners(boxes: Sequence[Bbox]) -> np.ndarray:
    """The lower left and the upper right corner of each box, `[boxes, 2, 2]`, in pixels."""
    return np.array([box.get_points() for box in boxes]).reshape(-1, 2, 2)


def _overlaps(box: Bbox, corners: np.ndarray) -> int:
    """How many of the boxes with these corners share an area with `box`."""
    (low, high), (lows, highs) = box.get_points(), (corners[:, 0], corners[:, 1])
    return int(((lows < high) & (highs > low)).all(axis=1).sum())


def _place(ax: Axes, point: Pair, text: str, avoided: Sequence[np.ndarray]) -> Bbox:
    note = _note(ax, point, text)
    size = Text.get_window_extent(note, ax.figure.canvas.get_renderer()).size  # type: ignore[attr-defined]
    at = _pixel(ax, point)
    boxes = [_box(ax, at, size, offset) for offset in _OFFSETS]
    costs = [_cost(ax, box, *avoided) for box in boxes]
    best = costs.index(min(costs))
    _move(note, *_OFFSETS[best])
    return boxes[best]


def _note(ax: Axes, point: Pair, text: str) -> Annotation:
    leader = {"arrowstyle": "-", "color": "#a0a0a0", "lw": 0.5, "shrinkA": 0, "shrinkB": 3}
    note = ax.annotate(plain(text), point, (0, 0), textcoords="offset points", arrowprops=leader)
    note.set(fontsize=7, zorder=6, path_effects=[withStroke(linewidth=2, foreground="white")])
    return note


def _box(ax: Axes, at: Pair, size: Sequence[float], offset: Pair) -> Bbox:
    """Where the text will lie, in pixels: the anchor is the side that faces the point."""
    scale = ax.figure.dpi / 72
    corner = [
        at[i] + scale * offset[i] - size[i] * (0 if offset[i] > 0 else 1 if offset[i] < 0 else 0.5)
        for i in (0, 1)
    ]
    return Bbox.from_bounds(corner[0], corner[1], size[0], size[1])


def _move(note: Annotation, x: float, y: float) -> None:
    note.set_position((x, y))
    note.set(
        ha="left" if x > 0 else "right" if x < 0 else "center",
        va="bottom" if y > 0 else "top" if y < 0 else "center",
    )


def _cost(ax: Axes, box: Bbox, taken: np.ndarray, claimed: np.ndarray, written: np.ndarray) -> float:
    """How many boxes are hit. A label that seems to name another point counts like hitting a few; one on
    another label, or outside the axes, cannot be read and counts like hitting many."""
    inside = ax.bbox.padded(2)
    out = box.x0 < inside.x0 or box.x1 > inside.x1 or box.y0 < inside.y0 or box.y1 > inside.y1
    hit, misled, hidden = (_overlaps(box, boxes) for boxes in (taken, claimed, written))
    return float(hit + 5 * misled + 50 * (hidden + out))
