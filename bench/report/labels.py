"""Labels beside points that overlap neither each other nor the points."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

from matplotlib.axes import Axes
from matplotlib.text import Annotation, Text
from matplotlib.transforms import Bbox

_RADII = (7, 16, 28, 42, 58, 76, 96)  # points of distance, nearest first
_SIDES = ((1, 0), (1, 1), (1, -1), (-1, 0), (-1, 1), (-1, -1), (0, 1), (0, -1))
_MARKER = 5  # half a marker's width, in points


def label(ax: Axes, points: Sequence[tuple[float, float]], texts: Sequence[str]) -> None:
    """Write each text at the nearest free place around its point, with a leader when far."""
    ax.figure.canvas.draw()  # fixes the layout, so that boxes are final
    taken = [_around(ax, point) for point in points]
    for point, text in zip(points, texts, strict=True):
        taken.append(_place(ax, point, text, taken))


def _around(ax: Axes, point: tuple[float, float]) -> Bbox:
    x, y = ax.transData.transform(point)
    half = _MARKER * ax.figure.dpi / 72
    return Bbox([[x - half, y - half], [x + half, y + half]])


def _place(ax: Axes, point: tuple[float, float], text: str, taken: Sequence[Bbox]) -> Bbox:
    note = _note(ax, point, text)
    candidates = [_at(ax, note, r * x, r * y) for r, (x, y) in product(_RADII, _SIDES)]
    costs = [_cost(ax, box, taken) for _, box in candidates]
    offset, box = candidates[costs.index(min(costs))]
    _move(note, *offset)
    return box


def _note(ax: Axes, point: tuple[float, float], text: str) -> Annotation:
    leader = {"arrowstyle": "-", "color": "#b0b0b0", "lw": 0.5, "shrinkA": 0, "shrinkB": 3}
    offset = "offset points"
    return ax.annotate(text, point, (0, 0), textcoords=offset, arrowprops=leader, fontsize=7, zorder=6)


def _at(ax: Axes, note: Annotation, x: float, y: float) -> tuple[tuple[float, float], Bbox]:
    _move(note, x, y)
    return (x, y), _text_box(ax, note)


def _text_box(ax: Axes, note: Annotation) -> Bbox:
    """The box of the text alone: the annotation's own would include its leader."""
    renderer = ax.figure.canvas.get_renderer()  # type: ignore[attr-defined]
    note.update_positions(renderer)
    return Text.get_window_extent(note, renderer)


def _move(note: Annotation, x: float, y: float) -> None:
    note.set_position((x, y))
    note.set(
        ha="left" if x > 0 else "right" if x < 0 else "center",
        va="bottom" if y > 0 else "top" if y < 0 else "center",
    )


def _cost(ax: Axes, box: Bbox, taken: Sequence[Bbox]) -> float:
    """How many boxes are hit; leaving the axes counts like hitting several."""
    inside = ax.bbox.padded(2)
    out = box.x0 < inside.x0 or box.x1 > inside.x1 or box.y0 < inside.y0 or box.y1 > inside.y1
    return box.count_overlaps(list(taken)) + 5 * out
