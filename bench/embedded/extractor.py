"""96 features of a 64x64 image, for torch-fidelity: FD and KID where Inception does not fit.

A small network trained to distinguish this data's classes (see `classifier.py`). Its distances are
no FID: they compare images of this kind only, as the extractor's name states.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch_fidelity.feature_extractor_base import FeatureExtractorBase
from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY, register_feature_extractor

EXTRACTOR = "dqar-emoji-96"
LAYER = "96"
FEATURES = 96
DIRECTORY = Path(__file__).parent / "extractor"
WEIGHTS = DIRECTORY / "weights.safetensors"
REFERENCE = DIRECTORY / "reference.safetensors"


def _stage(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
    return [convolution, nn.BatchNorm2d(outputs), nn.ReLU()]


class EmojiFeatures(nn.Module):
    """Four convolutions and a mean over the plane: [n, 3, 64, 64] in [-1, 1] to [n, 96] >= 0."""

    def __init__(self) -> None:
        super().__init__()
        widths = [(3, 24, 2), (24, 48, 2), (48, 96, 2), (96, FEATURES, 1)]
        self.body = nn.Sequential(*[layer for width in widths for layer in _stage(*width)])

    def forward(self, images: Tensor) -> Tensor:
        """Compute features.

        Args:
            images: RGB images, float `[n, 3, 64, 64]` in [-1, 1].

        Returns:
            Features `[n, 96]`, not negative.
        """
        features: Tensor = self.body(images).mean(dim=(2, 3))
        return features


class EmojiExtractor(FeatureExtractorBase):  # type: ignore[misc]
    """torch-fidelity's view of the network: uint8 [n, 3, 64, 64] to a tuple of [n, 96].

    Args:
        name: the extractor's name at torch-fidelity.
        features_list: names of the layers asked for.
    """

    def __init__(self, name: str, features_list: list[str], **_: Any) -> None:
        super().__init__(name, features_list)
        self.network = EmojiFeatures()
        self.network.load_state_dict(load_file(WEIGHTS))
        self.eval().requires_grad_(False)

    @staticmethod
    def get_provided_features_list() -> tuple[str, ...]:
        """List the layers that are offered.

        Returns:
            The one.
        """
        return (LAYER,)

    @staticmethod
    def get_default_feature_layer_for_metric(metric: str) -> str:
        """Choose a metric's layer.

        Args:
            metric: the metric's name, which does not matter.

        Returns:
            The one layer.
        """
        return LAYER

    @staticmethod
    def can_be_compiled() -> bool:
        """Whether torch-fidelity may compile the network.

        Returns:
            True: nothing here depends on the data.
        """
        return True

    @staticmethod
    def get_dummy_input_for_compile() -> Tensor:
        """Make an input to compile with.

        Returns:
            One black image, uint8 `[1, 3, 64, 64]`.
        """
        return torch.zeros(1, 3, 64, 64, dtype=torch.uint8)

    def forward(self, input: Tensor) -> tuple[Tensor, ...]:
        """Compute features.

        Args:
            input: RGB images, uint8 `[n, 3, 64, 64]`.

        Returns:
            A tuple of features `[n, 96]`.
        """
        return (self.network(input.float() / 127.5 - 1),)


def register() -> str:
    """Make the extractor known to torch-fidelity (which refuses a name twice).

    Returns:
        Its name.
    """
    if EXTRACTOR not in FEATURE_EXTRACTORS_REGISTRY:
        register_feature_extractor(EXTRACTOR, EmojiExtractor)
    return EXTRACTOR


@cache
def _extractor() -> EmojiExtractor:
    return EmojiExtractor(EXTRACTOR, [LAYER])


@torch.inference_mode()
def extract(images_uint8: Tensor) -> Tensor:
    """Compute features.

    Args:
        images_uint8: RGB images, uint8 `[n, 3, 64, 64]`.

    Returns:
        float32 `[n, 96]`.

    Raises:
        TypeError: the images are not uint8.
        ValueError: they have another shape.
    """
    if images_uint8.dtype != torch.uint8:
        raise TypeError(f"images: {images_uint8.dtype}; allowed: torch.uint8")
    if images_uint8.shape[1:] != (3, 64, 64):
        raise ValueError(f"images: shape {tuple(images_uint8.shape)}; allowed: (n, 3, 64, 64)")
    return torch.cat([_extractor()(chunk)[0] for chunk in images_uint8.split(256)]).clone()


def reference_features(split: str = "heldout") -> Tensor:
    """Load the stored features of real images.

    Args:
        split: "heldout" or "train".

    Returns:
        float32 `[n, 96]`.
    """
    return _reference(f"{split}.features").float()


def reference_labels(split: str = "heldout") -> Tensor:
    """Load the class labels of `reference_features`.

    Args:
        split: "heldout" or "train".

    Returns:
        int64 `[n]`.
    """
    return _reference(f"{split}.labels").long()


def _reference(key: str) -> Tensor:
    stored = load_file(REFERENCE)
    if key not in stored:
        allowed = sorted({name.split(".")[0] for name in stored})
        raise ValueError(f"split: {key.split('.')[0]!r}; allowed: {allowed}")
    return stored[key]
