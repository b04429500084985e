"""Features of real images under held-out names, for distances of the text-to-image model's samples."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from bench.embedded import extractor
from bench.embedded.text_to_image.emoji import TextData

REFERENCE = Path(__file__).parent / "reference.safetensors"


def write(data: TextData) -> None:
    """Store the features of the split "names", in half precision.

    Args:
        data: the dataset of images, labels and splits.
    """
    save_file({"names": extractor.extract(data.images[data.rows("names")]).half()}, REFERENCE)


def features() -> Tensor:
    """Load the stored features.

    Returns:
        float32 `[n, 96]`.
    """
    return load_file(REFERENCE)["names"].float()
