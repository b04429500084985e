"""Small helpers around a generation: random seeds, loading a model, writing images."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dqar.errors import InvalidFile, InvalidValue, NonFinite, short_repr

if TYPE_CHECKING:
    from diffusers import DiTPipeline
    from PIL.Image import Image

Pixels = npt.NDArray[Any]
Images: TypeAlias = "Tensor | Pixels | Sequence[Image]"
"""`[n, 3, h, w]` tensor or `[n, h, w, 3]` array, uint8 or float in [0, 1]; or PIL images."""


def seed_everything(seed: int) -> None:
    """Set the random seed of Python, NumPy and PyTorch, on all devices.

    Args:
        seed: 0 to 2^32 - 1, which is what NumPy takes.
    """
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def load_dit_model(
    path: str | Path, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
) -> DiTPipeline:
    """Load a `DiTPipeline`: transformer, VAE and scheduler.

    Args:
        path: A directory or a hub id.
        device: Where to put it.
        dtype: Floating-point type of the weights.

    Returns:
        The pipeline on `device`, without DQAR.

    Raises:
        InvalidFile: There is none that can be read; in one line.
    """
    from diffusers import DiTPipeline

    try:
        pipe = DiTPipeline.from_pretrained(str(path), torch_dtype=dtype).to(device)
    except (OSError, ValueError, RuntimeError, AttributeError) as error:
        why = " ".join(str(error).split())[:160]
        raise InvalidFile(f"path = {short_repr(str(path))} holds no readable DiTPipeline: {why}") from error
    return cast("DiTPipeline", pipe)


def as_uint8(images: Images) -> Tensor:
    """Images as a uint8 tensor on the CPU.

    Args:
        images: `[n, 3, h, w]` tensor, `[n, h, w, 3]` array or PIL images.

    Returns:
        `[n, 3, h, w]`.

    Raises:
        InvalidValue: No images, another shape, or floats outside [0, 1].
        NonFinite: NaN or infinite values: rounded to bytes they would pass for black.
    """
    if isinstance(images, Sequence):
        if not images:
            raise InvalidValue("images has no entries; allowed: one or more")
        images = np.stack([np.asarray(image.convert("RGB")) for image in images])
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2) if isinstance(images, np.ndarray) else images
    if pixels.ndim != 4 or pixels.shape[1] != 3:
        raise InvalidValue(
            f"images has shape {tuple(images.shape)}; allowed: [n, 3, h, w] (NumPy: [n, h, w, 3])"
        )
    pixels = pixels.detach().cpu()
    if pixels.dtype == torch.uint8:
        return pixels
    broken = (~pixels.isfinite()).flatten(1).any(dim=1).nonzero().flatten().tolist()
    if broken:
        which = f"image {broken[0]} of {len(pixels)}" + (f" and {len(broken) - 1} more" if broken[1:] else "")
        raise NonFinite(f"images: {which} has values that are NaN or infinite; allowed: 0 to 1, or uint8")
    if len(pixels) and (pixels.min() < 0 or pixels.max() > 1):
        raise InvalidValue("images has floats outside 0 to 1; allowed: 0 to 1, or uint8")
    return (pixels.float() * 255).round().to(torch.uint8)


def save_images(images: Images, path: str | Path) -> list[Path]:
    """Write images: as one grid if `path` has a suffix (.png, .jpg), else as 0000.png, 0001.png, … in it.

    Args:
        images: As `as_uint8` takes them.
        path: A file, or a directory, which is made where it is missing.

    Returns:
        The files.

    Raises:
        InvalidValue: As `as_uint8`.
    """
    from PIL import Image

    path, pixels = Path(path), as_uint8(images).permute(0, 2, 3, 1).numpy()
    if path.suffix:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(_grid(pixels)).save(path)
        return [path]
    path.mkdir(parents=True, exist_ok=True)
    files = [path / f"{number:04d}.png" for number in range(len(pixels))]
    for file, image in zip(files, pixels, strict=True):
        Image.fromarray(image).save(file)
    return files


def _grid(pixels: Pixels) -> Pixels:
    """Images `[n, h, w, 3]` as one, as square as can be, row by row; empty cells are white."""
    n, height, width, _ = pixels.shape
    columns = int(np.ceil(np.sqrt(n)))
    rows = -(-n // columns)
    sheet: Pixels = np.full((rows * columns, height, width, 3), 255, dtype=np.uint8)
    sheet[:n] = pixels
    return sheet.reshape(rows, columns, height, width, 3).swapaxes(1, 2).reshape(rows * height, -1, 3)
