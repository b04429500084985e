"""Peak signal-to-noise ratio of images."""

from __future__ import annotations

import torch
from torch import Tensor


def psnr(images: Tensor, reference: Tensor, peak: float = 255.0) -> Tensor:
    """10 log10(peak² / mean squared error), image by image.

    Args:
        images: `[n, ...]` of any dtype.
        reference: The same shape.
        peak: The width of the range of values: 255 of uint8, 2 of floats from -1 to 1.

    Returns:
        dB, `[n]` in double precision; infinite where an image is identical to its reference.
    """
    error = (images.double() - reference.double()).square().flatten(1).mean(dim=1)
    return 10 * torch.log10(peak**2 / error)
