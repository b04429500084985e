"""LPIPS (Zhang et al. 2018) with VGG16, torch-fidelity's: how different two images look."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.machine.device import device_type
from bench.spec.external_files import LPIPS_FILES, lpips_directory, refuse, usable
from bench.spec.settings import QualitySettings

BATCH = 16  # images


def check(quality: QualitySettings) -> None:
    """Check that the directory of weights, where given, has those of torch-fidelity's LPIPS.

    Args:
        quality: The suite's quality settings.

    Raises:
        BadInput: It has not.
    """
    path = quality.lpips_weights
    if path is None:
        return
    directory = lpips_directory(quality)
    if directory is None:
        raise refuse("lpips_weights", path, "a file is missing")
    with usable("lpips_weights", path):
        for name in LPIPS_FILES:  # as tensors and nothing else: the loaders would run code in them
            torch.load(directory / name, map_location="cpu", weights_only=True)
        _network(directory)


@torch.inference_mode()
def lpips(images: Tensor, reference: Tensor, directory: Path) -> Tensor:
    """The distance of each image from its counterpart.

    Args:
        images: uint8 `[n, 3, h, w]`.
        reference: The same shape.
        directory: Of the weights, as `lpips_directory` gives it.

    Returns:
        float64 `[n]` on the CPU; 0 = equal.
    """
    device = device_type()
    network = _network(directory).to(device)
    chunks = zip(images.split(BATCH), reference.split(BATCH), strict=True)
    values = [network(a.to(device), b.to(device)).double().cpu().reshape(-1) for a, b in chunks]
    network.cpu()  # the isolated pass that measures memory needs the device for itself
    return torch.cat(values).clone()


@cache
def _network(directory: Path) -> Any:
    from torch_fidelity.sample_similarity_lpips import SampleSimilarityLPIPS

    with _hub(directory):
        return SampleSimilarityLPIPS("lpips-vgg16")


@contextmanager
def _hub(directory: Path) -> Iterator[None]:
    """torch hub with `directory` as its cache: its loaders take the weights from there and nowhere else."""
    # Not get_dir(): what that returns, set again, would outlast any later change of TORCH_HOME.
    before = torch.hub._hub_dir
    with tempfile.TemporaryDirectory() as temporary:
        (Path(temporary) / "checkpoints").symlink_to(directory.resolve())
        torch.hub.set_dir(temporary)
        try:
            yield
        finally:
            torch.hub._hub_dir = before
