"""The images of a run as PNG files, where `--keep-images` asks for them: on the machine that makes them.

`DIRECTORY/SUITE/CONFIGURATION/SEED.png`; the baseline's are those of a configuration of method `baseline`.
"""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import TYPE_CHECKING

from bench.machine.files import write_atomic

if TYPE_CHECKING:  # torch, which whoever keeps no images need not load
    from torch import Tensor

    from bench.run.worker import Job
    from bench.spec.run_spec import RunSpec


def write(directory: Path, spec: RunSpec, images: Tensor, first: int) -> None:
    """Write images of a configuration, each whole or not at all.

    Args:
        directory: the root of all images that are kept.
        spec: the configuration.
        images: uint8 `[n, 3, height, width]`.
        first: the number of the first one; image i has the seed `spec.seed + i`.

    Raises:
        BadInput: the directory cannot be written.
    """
    from PIL import Image

    place = directory / spec.suite / spec.name
    for number, pixels in enumerate(images.permute(0, 2, 3, 1).cpu().numpy(), start=first):
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "PNG")
        write_atomic(place / f"{spec.seed + number}.png", stream.getvalue())


def write_made(directory: Path, job: Job) -> None:
    """Write the images that runs on this machine have made of a configuration, and kept in its cache.

    Args:
        directory: the root of all images that are kept.
        job: the configuration, with what its images depend on.

    Raises:
        BadInput: the directory cannot be written.
    """
    from bench.store.tensors import Cache

    spec, cache = job.spec, Cache(job.store.cache, job.inputs)
    if not spec.measures_quality:
        return
    key, n, size = cache.candidate_key(spec), spec.quality.n, spec.batch_size
    for batch in range(math.ceil(n / size)):
        # Not of one that was skipped, or failed before it came to this.
        if (made := cache.read(f"images/candidate-{key}/{batch:05d}")) is not None:
            write(directory, spec, made["images"][: n - batch * size], batch * size)
