"""The images of records: one PNG each, or packed into one file for a whole directory.

A record's image is a mosaic: row 0 the baseline's worst images, row 1 the configuration's, square tiles.
Published directories hold `images.webp`, in which every distinct tile stands once, and `images.json`, which
lists the tiles that each mosaic is made of, or null where it was not published.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import math
import warnings
from collections.abc import Collection, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.machine.files import write_atomic
from dqar.utils.foreign import read_bytes, read_json

PACK, INDEX = "images.webp", "images.json"
Pixels = NDArray[np.uint8]  # [height, width, 3]
MAX_PIXELS = 2**26  # of one image, 8192 x 8192
# What reading a file that somebody damaged, or made to do harm, may raise.
_BROKEN = (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, SyntaxError, EOFError,
           Image.DecompressionBombError)  # fmt: skip
_log = logging.getLogger(__name__)


def mosaic(directory: Path, name: str) -> Pixels | None:
    """The image of a record.

    Args:
        directory: The directory of the record.
        name: The image's file name, as the record states it.

    Returns:
        uint8 `[height, width, 3]`; None where it is missing, damaged (which is logged) or was not published.
    """
    try:
        if (directory / name).is_file():
            return _pixels(directory / name)
        places = _index(directory)["mosaics"].get(name)
        return None if places is None else _assembled(directory, places)
    except _BROKEN as error:
        _log.warning("no samples of %s: %s", name, type(error).__name__)
        return None


def accounted(directory: Path, name: str) -> bool:
    """Whether an image is there, or the directory's index states that it was not published.

    Args:
        directory: The directory of the record.
        name: The image's file name, as the record states it.

    Returns:
        False too where the index cannot be read.
    """
    if (directory / name).is_file():
        return True
    try:
        return name in _index(directory)["mosaics"]
    except _BROKEN:
        return False


def published(directory: Path, name: str) -> bool:
    """Whether the pixels of an image that `accounted` finds are there, too.

    Args:
        directory: The directory of the record.
        name: The image's file name, as the record states it.

    Returns:
        False where the image was not published.
    """
    return (directory / name).is_file() or _index(directory)["mosaics"][name] is not None


def digest(image: Pixels | bytes) -> str:
    """A hash of an image's pixels, whatever file they are kept in.

    Args:
        image: Pixels, uint8 `[height, width, 3]`, or the bytes of a file that shows them.

    Returns:
        64 hex digits of a SHA-256 of shape and pixels.
    """
    if isinstance(image, bytes):
        image = _pixels_of(image)
    return hashlib.sha256(repr(image.shape).encode() + image.tobytes()).hexdigest()


def pack(sources: Sequence[Path], shown: Collection[str], directory: Path) -> None:
    """Write the pack of some mosaics to `directory`.

    Args:
        sources: the PNG files of all its records.
        shown: names of those whose tiles are kept; of the others the index has null.
        directory: where `images.webp` and `images.json` go; nothing is written without sources.
    """
    if not sources:
        return
    tiles: dict[bytes, tuple[int, Pixels]] = {}
    mosaics: dict[str, list[list[int]] | None] = {}
    for path in sorted(sources):
        mosaics[path.name] = None
        if path.name in shown:
            rows = _rows(_pixels(path))
            mosaics[path.name] = [[_place(tile, tiles) for tile in row] for row in rows]
    across = max(1, math.isqrt(len(tiles)))
    if tiles:
        write_atomic(directory / PACK, _webp([tile for _, tile in tiles.values()], across))
    index = {"across": across, "mosaics": mosaics}
    write_atomic(directory / INDEX, json.dumps(index, separators=(",", ":")).encode())


def _place(tile: Pixels, tiles: dict[bytes, tuple[int, Pixels]]) -> int:
    """The number of a tile, which is a new one unless it was seen before."""
    return tiles.setdefault(tile.tobytes(), (len(tiles), tile))[0]


def _rows(image: Pixels) -> Iterator[list[Pixels]]:
    side = len(image) // 2
    for top in (0, side):
        lefts = range(0, image.shape[1] - side + 1, side)
        yield [np.ascontiguousarray(image[top : top + side, x : x + side]) for x in lefts]


def _webp(tiles: list[Pixels], across: int) -> bytes:
    """The tiles as one lossless image, so many to a row; ValueError where their sizes differ."""
    lines = [tiles[i : i + across] for i in range(0, len(tiles), across)]
    lines[-1] += [np.zeros_like(tiles[0])] * (across - len(lines[-1]))
    stream = io.BytesIO()
    image = Image.fromarray(np.concatenate([np.concatenate(line, axis=1) for line in lines]))
    image.save(stream, "WEBP", lossless=True, quality=100, method=6, exact=True)
    return stream.getvalue()


def _assembled(directory: Path, places: list[list[int]]) -> Pixels:
    pixels, across = _pixels(directory / PACK), int(_index(directory)["across"])
    side = pixels.shape[1] // across

    def tile(number: int) -> Pixels:
        top, left = (number // across) * side, (number % across) * side
        return pixels[top : top + side, left : left + side]

    return np.concatenate([np.concatenate([tile(number) for number in row], axis=1) for row in places])


def _index(directory: Path) -> dict[str, Any]:
    path = directory / INDEX
    return _parsed(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=8)
def _parsed(path: Path, modified: int) -> dict[str, Any]:
    content: dict[str, Any] = read_json(path, "index")
    return content


def _pixels(path: Path) -> Pixels:
    return _decoded(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=2)
def _decoded(path: Path, modified: int) -> Pixels:
    return _pixels_of(read_bytes(path, "image"))


def _pixels_of(content: bytes) -> Pixels:
    """The pixels that a file shows. ValueError where it claims more than MAX_PIXELS: a small file may."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # of Image.open
        with Image.open(io.BytesIO(content)) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"{image.width} x {image.height} pixels; allowed: at most {MAX_PIXELS}")
            return np.asarray(image.convert("RGB"))
