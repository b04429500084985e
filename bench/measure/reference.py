"""Reference pictures for distributional distances: a folder, or an .npz as ADM has them.

ADM (Dhariwal and Nichol 2021, github.com/openai/guided-diffusion, `evaluations/`) publishes pictures
as `arr_0`, uint8 [n, h, w, 3], and the mean and covariance of Inception's features as `mu` [2048] and
`sigma` [2048, 2048]: of the whole training set, where `arr_0` is a sample of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from bench.errors import BadInput
from bench.measure.distributions import Statistics
from bench.spec.external_files import refuse, usable
from bench.spec.suite import Quality

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
CHUNK = 256  # pictures held at once
INCEPTION_FEATURES = 2048


class Reference:
    """What a path holds; nothing is read before it is asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def has_images(self) -> bool:
        """Whether there are pictures, not statistics alone."""
        return bool(self.files) if self.path.is_dir() else "arr_0" in self.arrays

    @cached_property
    def files(self) -> list[Path]:
        """The pictures of a folder and of those in it, sorted."""
        return sorted(f for f in self.path.rglob("*") if f.suffix.lower() in SUFFIXES)

    @cached_property
    def arrays(self) -> Any:
        """The .npz, its arrays not yet read."""
        return np.load(self.path, allow_pickle=False)

    @cached_property
    def statistics(self) -> Statistics | None:
        """Of Inception's features, where the file has them."""
        if self.path.is_dir() or not {"mu", "sigma"} <= set(self.arrays.files):
            return None
        return Statistics(*(np.asarray(self.arrays[key], np.float64) for key in ("mu", "sigma")))

    def chunks(self) -> Iterator[Tensor]:
        """The pictures in order, uint8 [at most CHUNK, 3, h, w] each."""
        if self.path.is_dir():
            for start in range(0, len(self.files), CHUNK):
                yield torch.stack([_picture(file) for file in self.files[start : start + CHUNK]]).contiguous()
        else:
            for chunk in torch.from_numpy(self.arrays["arr_0"]).split(CHUNK):
                yield chunk.permute(0, 3, 1, 2).contiguous()


def _picture(file: Path) -> Tensor:
    with Image.open(file) as opened:
        return torch.from_numpy(np.array(opened.convert("RGB"))).permute(2, 0, 1)


def check(quality: Quality) -> None:
    """BadInput unless the reference, where given, can be used with the extractor in use."""
    if quality.reference is None:
        return
    reference, inception = Reference(Path(quality.reference)), quality.inception_weights is not None
    if not inception and quality.extractor is None:
        raise _refused(reference, "no extractor to compare by; needed: inception_weights")
    side = _side_of_folder(reference) if reference.path.is_dir() else _side_of_arrays(reference)
    if not inception and not reference.has_images:
        raise _refused(reference, "mu and sigma are of Inception's features; needed: inception_weights")
    if not inception and side != (64, 64):
        raise _refused(reference, f"pictures of {side}; without inception_weights (64, 64) are needed")


def _refused(reference: Reference, why: str) -> BadInput:
    return refuse("reference", reference.path, why)


def _side_of_folder(reference: Reference) -> tuple[int, ...]:
    """Width and height that all pictures have."""
    if not reference.files:
        raise _refused(reference, f"no pictures ({', '.join(SUFFIXES)}) in it")
    sides = {_side(reference, file): file.name for file in reference.files}
    if len(sides) > 1:
        (a, one), (b, other), *_ = sides.items()
        raise _refused(reference, f"{one} is {a}, {other} is {b}; needed: pictures of one size")
    return next(iter(sides))


def _side(reference: Reference, file: Path) -> tuple[int, int]:
    try:
        with Image.open(file) as opened:
            return opened.size
    except OSError as error:
        raise _refused(reference, f"{file.name} is not readable as a picture") from error


def _side_of_arrays(reference: Reference) -> tuple[int, ...] | None:
    """Width and height of the pictures in an .npz, None where it has statistics alone."""
    with usable("reference", reference.path):
        keys = reference.arrays.files
        images = reference.arrays["arr_0"] if "arr_0" in keys else None
        statistics = reference.statistics
    if images is None and statistics is None:
        raise _refused(reference, f"its keys are {', '.join(keys) or 'none'}")
    if images is not None and (images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3):
        raise _refused(reference, f"arr_0 is {images.dtype} {images.shape}; needed: uint8 [n, h, w, 3]")
    if statistics is not None:
        _check_statistics(reference, statistics)
    return None if images is None else (images.shape[2], images.shape[1])


def _check_statistics(reference: Reference, found: Statistics) -> None:
    d = INCEPTION_FEATURES
    if found.mu.shape != (d,) or found.sigma.shape != (d, d):
        shapes = f"mu is {found.mu.shape}, sigma {found.sigma.shape}"
        raise _refused(reference, f"{shapes}; needed: ({d},) and ({d}, {d})")
    if not (np.isfinite(found.mu).all() and np.isfinite(found.sigma).all()):
        raise _refused(reference, "mu or sigma is not finite")
