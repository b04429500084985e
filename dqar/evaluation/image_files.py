"""Directories of images: one reader for `compute_fid` and for the harness's `--reference`.

It finds images in subdirectories and behind links, reports how many it read, and refuses by name what it
cannot read: a metric over part of a set would be a metric of another set.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

log = logging.getLogger(__name__)

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".ppm", ".tif", ".tiff")
NOT_READ = (".gif", ".avif", ".heic", ".heif", ".jxl", ".jp2", ".tga", ".exr", ".hdr", ".svg")
ALLOWED = f"allowed: {', '.join(SUFFIXES)}"
MAX_PIXELS = 2**26  # of one image, 8192 x 8192: a small file may claim to hold any number


class ImageFiles(Dataset[Tensor]):
    """The images under a directory in the order of their paths, each read when it is asked for.

    Args:
        directory: Where to look, at any depth.

    Raises:
        ValueError: no image there, an image in a format that is not read, one that cannot be decoded, or
            images of different sizes; each names the file.
    """

    def __init__(self, directory: Path) -> None:
        self.files, others = listed_images(directory)
        if not self.files:
            raise ValueError(f"no images in it; {ALLOWED}")
        self.size = self._common_size()
        skipped = f"; {others} other files skipped" if others else ""
        self.summary = f"{len(self.files)} images of {self.size[0]} x {self.size[1]}{skipped}"
        log.info("%s: %s", directory.name, self.summary)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Tensor:
        """An image, uint8 `[3, h, w]`."""
        return read_image(self.files[index])

    def chunks(self, size: int) -> Iterator[Tensor]:
        """Read the images in order, one chunk at a time.

        Args:
            size: Images of a chunk, at least 1.

        Yields:
            uint8 `[at most size, 3, h, w]`.
        """
        for start in range(0, len(self), size):
            yield torch.stack([self[i] for i in range(start, min(start + size, len(self)))])

    def _common_size(self) -> tuple[int, int]:
        """Width and height of all images."""
        sizes = {_size(file): file.name for file in self.files}
        if len(sizes) > 1:
            (a, one), (b, other), *_ = sizes.items()
            raise ValueError(f"{one} is {a}, {other} is {b}; needed: images of one size")
        return next(iter(sizes))


def read_image(file: Path) -> Tensor:
    """Read an image file.

    Args:
        file: One whose format is in `SUFFIXES`, of at most `MAX_PIXELS` pixels.

    Returns:
        RGB, uint8 `[3, h, w]`.

    Raises:
        ValueError: It cannot be read as an image; the message names the file.
    """
    try:
        with Image.open(file) as opened:
            _check_pixels(file, opened.size)
            return torch.from_numpy(np.array(opened.convert("RGB"))).permute(2, 0, 1).contiguous()
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{file.name} is not readable as an image: {error}") from error


def _size(file: Path) -> tuple[int, int]:
    try:
        with warnings.catch_warnings(), Image.open(file) as opened:
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # refused here, by name
            _check_pixels(file, opened.size)
            return opened.size
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{file.name} is not readable as an image") from error


def _check_pixels(file: Path, size: tuple[int, int]) -> None:
    if size[0] * size[1] > MAX_PIXELS:
        raise ValueError(f"{file.name} has {size[0]} x {size[1]} pixels; allowed: at most {MAX_PIXELS}")


def listed_images(directory: Path) -> tuple[list[Path], int]:
    """The images under a directory, linked directories included.

    Args:
        directory: Where to look.

    Returns:
        The files with a suffix of `SUFFIXES`, sorted by path, and the number of other files.

    Raises:
        ValueError: An image in a format that is not read, one that is no regular file, or a directory that
            cannot be read; each is named.
    """
    images: list[Path] = []
    others = 0
    for file in _walk(directory):
        suffix = file.suffix.lower()
        if suffix in SUFFIXES:
            if not file.is_file():  # opening a pipe would wait for ever
                raise ValueError(f"{file.name} is no regular file; needed: images")
            images.append(file)
        elif suffix in NOT_READ:
            raise ValueError(f"{file.name}: images of this format are not read; {ALLOWED}")
        else:
            others += 1
    return sorted(images), others


def _walk(directory: Path) -> Iterator[Path]:
    """Every file under a directory, linked directories included, each directory once however it is linked."""
    seen: set[tuple[int, int]] = set()
    for place, below, names in os.walk(directory, followlinks=True, onerror=_unreadable):
        stat = Path(place).stat()
        if (stat.st_dev, stat.st_ino) in seen:
            below.clear()
            continue
        seen.add((stat.st_dev, stat.st_ino))
        below.sort()
        yield from (Path(place) / name for name in sorted(names))


def _unreadable(error: OSError) -> None:
    raise ValueError(f"{Path(str(error.filename)).name}: cannot be read: {error.strerror}") from error
