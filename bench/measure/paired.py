"""Distances between two sets of images, or of latents, one value an image."""

from __future__ import annotations

import io
from collections.abc import Callable

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

CHUNK = 64  # images processed at once: thousands in double precision would take all memory


def each(measure: Callable[[Tensor, Tensor], Tensor], ours: Tensor, theirs: Tensor) -> Tensor:
    """Measure each image against its counterpart, CHUNK at a time.

    Args:
        measure: Takes `[m, ...]` and the same, returns `[m]`.
        ours: `[n, ...]`.
        theirs: The same shape.

    Returns:
        `[n]`.
    """
    chunks = zip(ours.split(CHUNK), theirs.split(CHUNK), strict=True)
    return torch.cat([measure(a, b) for a, b in chunks])


def drift(latents: Tensor, reference: Tensor) -> Tensor:
    """Relative L2 of each latent, ||x - ref|| / ||ref||.

    Args:
        latents: `[n, ...]`.
        reference: The same shape.

    Returns:
        `[n]`, float64; 0 = equal.
    """
    gap: Tensor = (latents - reference).flatten(1).double().norm(dim=1)
    size: Tensor = reference.flatten(1).double().norm(dim=1)
    return gap / size


def ssim(images: Tensor, reference: Tensor) -> Tensor:
    """Structural similarity.

    Wang et al. 2004: an 11 x 11 Gaussian window of sigma 1.5, K1 = 0.01, K2 = 0.03, the mean over all whole
    windows and the three colours.

    Args:
        images: uint8 `[n, 3, h, w]`, h and w at least 11.
        reference: The same shape.

    Returns:
        `[n]`, float64; 1 = equal.
    """
    x, y = images.double(), reference.double()
    mx, my = _blur(x), _blur(y)
    vx, vy = _blur(x * x) - mx * mx, _blur(y * y) - my * my
    covariance = _blur(x * y) - mx * my
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    similarity = (2 * mx * my + c1) * (2 * covariance + c2)
    return (similarity / ((mx * mx + my * my + c1) * (vx + vy + c2))).flatten(1).mean(dim=1)


def _blur(x: Tensor) -> Tensor:
    """Gaussian window means, valid windows only: [n, 3, h, w] -> [n, 3, h - 10, w - 10]."""
    at = torch.arange(11, dtype=x.dtype) - 5
    kernel = torch.exp(-(at**2) / (2 * 1.5**2))
    window = torch.outer(kernel, kernel) / kernel.sum() ** 2
    channels = x.shape[1]
    return F.conv2d(x, window.expand(channels, 1, 11, 11), groups=channels)


def mosaic(top: Tensor, bottom: Tensor) -> bytes:
    """Two rows of images as one.

    Args:
        top: uint8 `[n, 3, h, w]`.
        bottom: The same shape.

    Returns:
        A lossless PNG of 2 h by n w pixels.
    """
    rows = [torch.cat(list(row), dim=2) for row in (top, bottom)]
    stream = io.BytesIO()
    image = torch.cat(rows, dim=1).permute(1, 2, 0).contiguous().numpy()
    Image.fromarray(image).save(stream, format="PNG", optimize=True)
    return stream.getvalue()
