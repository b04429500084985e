"""The worst samples of each configuration: baseline, configuration, amplified difference."""

# ruff: noqa: RUF001 - the signs × and – are meant

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from PIL import Image

from bench.record import Record, Worst
from bench.report.plots.style import DPI, canvas, method_style, plain, save, style
from bench.store import images

AMPLIFICATION = 4
CASES = 3  # worst cases a configuration
_ROWS = 6  # configurations a page; half as many where images are large
_TILE, _GAP, _LINE, _HEAD = 128, 14, 26, 24  # pixels
_CASE = 3 * (_TILE + 2) + _GAP
_STRIP = _LINE + _TILE + 36


class Case(NamedTuple):
    """One worst case: its metrics, and the two images, each H x W x 3."""

    worst: Worst
    baseline: np.ndarray
    candidate: np.ndarray


class Strip(NamedTuple):
    """The worst cases of one configuration."""

    record: Record
    cases: list[Case]


def plot_samples(records: Sequence[Record], results: Path, directory: Path) -> list[Path]:
    """Draw pages of worst cases by drift; identical images are omitted.

    Args:
        records: the suite's records.
        results: the directory of the records, which holds their images.
        directory: the pages go to samples-N.webp in there.

    Returns:
        The files; none where no configuration has images.
    """
    all_strips = [Strip(record, cases(record, results)) for record in records if record.status == "ok"]
    strips = [strip for strip in all_strips if strip.cases]
    rows = _ROWS if all(len(strip.cases[0].baseline) <= 64 for strip in strips) else _ROWS // 2
    pages = [strips[i : i + rows] for i in range(0, len(strips), rows)]
    return [_page(page, directory / f"samples-{i}.webp") for i, page in enumerate(pages, 1)]


def cases(record: Record, results: Path) -> list[Case]:
    """Cut a record's mosaic (row 0 baseline, row 1 candidate) into its worst cases.

    Args:
        record: the record of one configuration.
        results: the directory of the records, which holds their images.

    Returns:
        The cases, the worst first; none where the record has no image, or its images are identical.
    """
    quality = record.quality
    if quality is None or quality.image is None or quality.identical:
        return []
    mosaic = images.mosaic(results, quality.image)
    if mosaic is None:
        return []
    side = mosaic.shape[0] // 2
    tiles = [mosaic[:, i * side : (i + 1) * side] for i in range(mosaic.shape[1] // side)]
    pairs = zip(quality.worst, tiles, strict=False)
    return [Case(worst, tile[:side], tile[side:]) for worst, tile in pairs][:CASES]


def difference(case: Case) -> npt.NDArray[np.uint8]:
    """Amplify the greatest absolute difference of the colours.

    Args:
        case: two images, uint8 [side, side, 3].

    Returns:
        Grey uint8 [side, side, 3]: white where the two agree.
    """
    gap = np.abs(case.baseline.astype(int) - case.candidate.astype(int)).max(axis=2, keepdims=True)
    grey = 255 - np.clip(AMPLIFICATION * gap, 0, 255)
    return np.asarray(grey.astype(np.uint8).repeat(3, axis=2))


def _page(strips: Sequence[Strip], path: Path) -> Path:
    across = max(len(strip.cases) for strip in strips)
    size = (across * _CASE + _GAP, len(strips) * _STRIP + _HEAD)
    with style():
        figure = canvas(size[0] / DPI, size[1] / DPI)
        figure.set_layout_engine("none")
        for row, strip in enumerate(strips):
            _strip(figure, strip, _HEAD + row * _STRIP)
        for i in range(across):
            _heads(figure, _GAP + i * _CASE)
        return save(figure, path, photographs=True)


def _strip(figure: Figure, strip: Strip, top: int) -> None:
    """A configuration's name, and below it its cases side by side."""
    name = plain(f"{strip.record.name}  ({strip.record.method})")
    colour = method_style(strip.record.method).colour
    _text(figure, _GAP, top + _LINE - 6, name, ha="left", size=7.5, weight="bold", color=colour)
    for i, case in enumerate(strip.cases):
        left = _GAP + i * _CASE
        for j, image in enumerate((case.baseline, case.candidate, difference(case))):
            _tile(figure, left + j * (_TILE + 2), top + _LINE, image)
        _text(figure, left + 1.5 * _TILE, top + _LINE + _TILE + 20, _caption(case.worst), size=6)


def _heads(figure: Figure, left: int) -> None:
    for j, head in enumerate(("baseline", "configuration", f"difference ×{AMPLIFICATION}")):
        _text(figure, left + j * (_TILE + 2) + _TILE / 2, _HEAD - 6, head, size=6.5)


def _text(figure: Figure, x: float, y: float, text: str, ha: str = "center", **how: Any) -> None:
    """Text whose baseline lies `y` pixels below the top."""
    width, height = figure.get_size_inches() * DPI
    figure.text(x / width, 1 - y / height, text, ha=ha, va="baseline", **how)


def _tile(figure: Figure, left: int, top: int, image: np.ndarray) -> None:
    """An image on whole pixels, so that a 64 x 64 one is doubled exactly."""
    width, height = figure.get_size_inches() * DPI
    box = (left / width, 1 - (top + _TILE) / height, _TILE / width, _TILE / height)
    ax = figure.add_axes(box, xticks=[], yticks=[])
    ax.spines[:].set(visible=True, color="#cccccc", linewidth=0.5)
    small = Image.fromarray(image)
    small.thumbnail((_TILE, _TILE))
    ax.imshow(np.asarray(small), interpolation="nearest")


def _caption(worst: Worst) -> str:
    label = worst.label if len(worst.label) <= 24 else worst.label[:23] + "…"
    psnr = "" if worst.psnr_db is None else f", {worst.psnr_db:.1f} dB"
    return f"{plain(label)}, seed {worst.seed}: drift {worst.drift:.3g}{psnr}"
