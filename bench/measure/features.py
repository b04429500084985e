"""Features of images for distributional distances: Inception's, else the embedded extractor's."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bench.machine.device import device_type
from bench.spec.external_files import usable
from bench.spec.settings import QualitySettings

INCEPTION = "inception-v3-compat"  # torch-fidelity's name for it
LAYER = "2048"
BATCH = 32  # images


class Extractor(NamedTuple):
    """What turns uint8 images [n, 3, h, w] into float32 features [n, d], on the CPU."""

    name: str
    extract: Callable[[Tensor], Tensor]
    side: int | None  # pixels of the images that it takes; None: any

    def takes(self, images: Tensor) -> bool:
        """Whether it extracts features of images [n, 3, h, w] of this size.

        Args:
            images: any dtype `[n, 3, h, w]`.

        Returns:
            True where it takes any size, or this one.
        """
        return self.side is None or tuple(images.shape[-2:]) == (self.side, self.side)


def chosen(quality: QualitySettings) -> Extractor | None:
    """The extractor of a suite: Inception where its weights are given, else its own.

    Args:
        quality: The suite's quality settings.

    Returns:
        None where the suite has none.
    """
    if quality.inception_weights:
        return Extractor(INCEPTION, Inception(Path(quality.inception_weights)), None)
    if quality.extractor is None:
        return None
    from bench.embedded import extractor

    return Extractor(extractor.EXTRACTOR, extractor.extract, 64)


def check(quality: QualitySettings) -> None:
    """Check that Inception's weights, where given, are torch-fidelity's.

    Args:
        quality: The suite's quality settings.

    Raises:
        BadInput: They are not, or cannot be read.
    """
    path = quality.inception_weights
    if path is None:
        return
    with usable("inception_weights", path):
        # First as tensors and nothing else: torch-fidelity itself would run any code in the file.
        torch.load(path, map_location="cpu", weights_only=True)
        _network(Path(path))


class Inception:
    """torch-fidelity's Inception: it resizes the images to 299 x 299 as TensorFlow 1 did.

    Args:
        weights: torch-fidelity's file; it is loaded at the first call, once a process.
    """

    def __init__(self, weights: Path) -> None:
        self.weights = weights

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """uint8 [n, 3, h, w] -> [n, 2048]."""
        device = device_type()
        network = _network(self.weights).to(device)
        features = [network(chunk.to(device))[0].cpu() for chunk in images.split(BATCH)]
        network.cpu()  # the isolated pass that measures memory needs the device for itself
        return torch.cat(features).clone()


@cache
def _network(weights: Path) -> Any:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    return FeatureExtractorInceptionV3(INCEPTION, [LAYER], feature_extractor_weights_path=str(weights))
