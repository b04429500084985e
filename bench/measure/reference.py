"""Reference images for distributional distances: a directory, or an .npz as ADM has them.

ADM (Dhariwal and Nichol 2021, github.com/openai/guided-diffusion, `evaluations/`) publishes images
as `arr_0`, uint8 [n, h, w, 3], and the mean and covariance of Inception's features as `mu` [2048] and
`sigma` [2048, 2048]: of the whole training set, where `arr_0` is a sample of it.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.errors import BadInput
from bench.measure.distributions import FEWEST
from bench.spec.external_files import refuse, usable
from bench.spec.settings import QualitySettings
from dqar.evaluation.frechet import Statistics
from dqar.evaluation.image_files import ImageFiles

CHUNK = 256  # images held at once
INCEPTION_FEATURES = 2048
MAX_BYTES = 2**34  # of an .npz's arrays: ADM's largest holds 10,000 images of 512 x 512, 8 GB


class Reference:
    """What a path holds; nothing is read before it is asked for.

    Args:
        path: A directory of images, or an .npz.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def has_images(self) -> bool:
        """Whether there are images, not statistics alone."""
        return self.path.is_dir() or "arr_0" in self.arrays

    @cached_property
    def files(self) -> ImageFiles:
        """The images of a directory."""
        return ImageFiles(self.path)

    @cached_property
    def arrays(self) -> Any:
        """The .npz, its arrays not yet read. ValueError where they would unpack to more than MAX_BYTES."""
        with zipfile.ZipFile(self.path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > MAX_BYTES:
            raise ValueError(f"its arrays are {size} bytes unpacked; allowed: at most {MAX_BYTES}")
        return np.load(self.path, allow_pickle=False)

    @cached_property
    def images(self) -> Any:
        """The .npz's images, uint8 [n, h, w, 3]."""
        return self.arrays["arr_0"]

    @property
    def held(self) -> str:
        """What there is, in words."""
        if self.path.is_dir():
            return self.files.summary
        return f"{len(self.images)} images" if self.has_images else "mu and sigma"

    @cached_property
    def statistics(self) -> Statistics | None:
        """Of Inception's features, where the file has them."""
        if self.path.is_dir() or not {"mu", "sigma"} <= set(self.arrays.files):
            return None
        return Statistics(*(np.asarray(self.arrays[key], np.float64) for key in ("mu", "sigma")))

    def chunks(self) -> Iterator[Tensor]:
        """Read the images in order, one chunk at a time.

        Yields:
            uint8 `[at most CHUNK, 3, h, w]`.
        """
        if self.path.is_dir():
            yield from self.files.chunks(CHUNK)
        else:
            for chunk in torch.from_numpy(self.images).split(CHUNK):
                yield chunk.permute(0, 3, 1, 2).contiguous()


def check(quality: QualitySettings) -> str | None:
    """Check that the extractor can take the reference.

    Args:
        quality: The suite's quality settings.

    Returns:
        What the reference holds, in words; None where none is given.

    Raises:
        BadInput: It cannot be read, or the extractor cannot take it.
    """
    if quality.reference is None:
        return None
    reference, inception = Reference(Path(quality.reference)), quality.inception_weights is not None
    if not inception and quality.extractor is None:
        raise _refused(reference, "no extractor to compare by; needed: inception_weights")
    side = _side_of_directory(reference) if reference.path.is_dir() else _side_of_arrays(reference)
    if not inception and not reference.has_images:
        raise _refused(reference, "mu and sigma are of Inception's features; needed: inception_weights")
    if not inception and side != (64, 64):
        raise _refused(reference, f"images of {side}; without inception_weights (64, 64) are needed")
    return f"{reference.path.name}: {reference.held}"


def _refused(reference: Reference, why: str) -> BadInput:
    return refuse("reference", reference.path, why)


def _side_of_directory(reference: Reference) -> tuple[int, ...]:
    """Width and height that all images have."""
    with usable("reference", reference.path):
        files = reference.files
        _check_count(reference, len(files))
    return files.size


def _check_count(reference: Reference, count: int) -> None:
    if count < FEWEST:
        raise _refused(reference, f"it holds {count} images; needed: {FEWEST} or more")


def _side_of_arrays(reference: Reference) -> tuple[int, ...] | None:
    """Width and height of the images in an .npz, None where it has statistics alone."""
    with usable("reference", reference.path):
        keys = reference.arrays.files
        images = reference.images if "arr_0" in keys else None
        statistics = reference.statistics
    if images is None and statistics is None:
        raise _refused(reference, f"its keys are {', '.join(keys) or 'none'}")
    if images is not None and (images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3):
        raise _refused(reference, f"arr_0 is {images.dtype} {images.shape}; needed: uint8 [n, h, w, 3]")
    if images is not None:
        _check_count(reference, len(images))
    if statistics is not None:
        _check_statistics(reference, statistics)
    return None if images is None else (images.shape[2], images.shape[1])


def _check_statistics(reference: Reference, statistics: Statistics) -> None:
    d = INCEPTION_FEATURES
    if statistics.mu.shape != (d,) or statistics.sigma.shape != (d, d):
        shapes = f"mu is {statistics.mu.shape}, sigma {statistics.sigma.shape}"
        raise _refused(reference, f"{shapes}; needed: ({d},) and ({d}, {d})")
    if not (np.isfinite(statistics.mu).all() and np.isfinite(statistics.sigma).all()):
        raise _refused(reference, "mu or sigma is not finite")
