"""The worst pictures of each configuration: baseline, configuration, amplified difference."""

# ruff: noqa: RUF001 - the signs × and – are meant

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from PIL import Image

from bench.record import Record, Worst
from bench.report.findings import ok
from bench.report.style import canvas, look, save, style

AMPLIFICATION = 4
CASES = 3  # worst cases a configuration
_ROWS = 6  # configurations a page
_TILE = 0.82  # inches
_SHOWN = 128  # pixels a tile is drawn with at most
_log = logging.getLogger(__name__)


class Case(NamedTuple):
    """One worst case: what it is, and the two pictures, each H x W x 3."""

    worst: Worst
    baseline: np.ndarray
    candidate: np.ndarray


class Strip(NamedTuple):
    """The worst cases of one configuration."""

    record: Record
    cases: list[Case]


def plot_pictures(records: Sequence[Record], results_dir: Path, folder: Path) -> list[Path]:
    """Pages of worst cases by drift; identical pictures are left out, there is nothing to see."""
    found = [Strip(record, cases(record, results_dir)) for record in ok(records)]
    strips = [strip for strip in found if strip.cases]
    pages = [strips[i : i + _ROWS] for i in range(0, len(strips), _ROWS)]
    return [_page(page, folder / f"pictures-{i}.png") for i, page in enumerate(pages, 1)]


def cases(record: Record, results_dir: Path) -> list[Case]:
    """Cut a record's mosaic (row 0 baseline, row 1 candidate) into its worst cases."""
    quality = record.quality
    if quality is None or quality.picture is None or quality.identical:
        return []
    mosaic = _read(results_dir / quality.picture)
    if mosaic is None:
        return []
    side = mosaic.shape[0] // 2
    tiles = [mosaic[:, i * side : (i + 1) * side] for i in range(mosaic.shape[1] // side)]
    pairs = zip(quality.worst, tiles, strict=False)
    return [Case(worst, tile[:side], tile[side:]) for worst, tile in pairs][:CASES]


def _read(path: Path) -> np.ndarray | None:
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except OSError as error:
        _log.warning("no pictures of %s: %s", path.name, error.__class__.__name__)
        return None


def difference(case: Case) -> np.ndarray:
    """Absolute difference, amplified and inverted: white where the two pictures agree."""
    gap = np.abs(case.baseline.astype(int) - case.candidate.astype(int))
    return (255 - np.clip(AMPLIFICATION * gap, 0, 255)).astype(np.uint8)


def _page(strips: Sequence[Strip], path: Path) -> Path:
    width = 3 * CASES * _TILE + 0.6
    with style():
        figure = canvas(width, 0.25 + len(strips) * (_TILE + 0.47))
        parts = figure.subfigures(len(strips), 1, squeeze=False)[:, 0]
        for row, (part, strip) in enumerate(zip(parts, strips, strict=True)):
            _strip(part.subplots(1, 3 * CASES), strip, first=row == 0)
            title = f"{strip.record.name}  ({strip.record.method})"
            part.suptitle(title, x=0.01, ha="left", size=8, color=look(strip.record.method).colour)
        return save(figure, path)


def _strip(axes: Sequence[Axes], strip: Strip, first: bool) -> None:
    heads = ("baseline", "configuration", f"difference ×{AMPLIFICATION}")
    for ax in axes:
        ax.axis("off")
    for i, case in enumerate(strip.cases):
        three = axes[3 * i : 3 * i + 3]
        images = (case.baseline, case.candidate, difference(case))
        for ax, image, head in zip(three, images, heads, strict=True):
            _tile(ax, image, head if first else "")
        three[1].text(0.5, -0.06, _caption(case.worst), transform=three[1].transAxes,
                      ha="center", va="top", size=6.5)  # fmt: skip


def _tile(ax: Axes, image: np.ndarray, head: str) -> None:
    small = Image.fromarray(image)
    small.thumbnail((_SHOWN, _SHOWN))
    ax.imshow(np.asarray(small), interpolation="nearest")
    ax.set_title(head, size=6.5, loc="center", pad=3)


def _caption(worst: Worst) -> str:
    label = worst.label if len(worst.label) <= 24 else worst.label[:23] + "…"
    psnr = "" if worst.psnr_db is None else f", {worst.psnr_db:.1f} dB"
    return f"{label}, seed {worst.seed}: drift {worst.drift:.3g}{psnr}"
