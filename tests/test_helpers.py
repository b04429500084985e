"""The helpers do what their names say, and refuse in one line."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dqar.utils.helpers import as_uint8, load_dit_model, save_images, seed_everything


def test_seed_everything() -> None:
    """The same seed gives the same numbers from Python, NumPy and PyTorch."""

    def draw() -> tuple[float, float, float]:
        seed_everything(3)
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    assert draw() == draw()


def test_load_dit_model(tiny_model_dir: Path, tmp_path: Path) -> None:
    """A saved pipeline loads in the dtype asked for; a directory without one is one clear line."""
    pipe = load_dit_model(tiny_model_dir, dtype=torch.bfloat16)
    assert pipe.transformer.dtype == torch.bfloat16 and not pipe.transformer.training
    with pytest.raises(ValueError, match="holds no readable DiTPipeline") as error:
        load_dit_model(tmp_path)
    assert "\n" not in str(error.value)


def test_save_images(tmp_path: Path) -> None:
    """A directory gets one file an image, a file name one grid, and pixels come back as they were."""
    images = torch.randint(0, 256, (5, 3, 4, 6), dtype=torch.uint8)
    files = save_images(images, tmp_path / "directory")
    assert [file.name for file in files] == [f"{i:04d}.png" for i in range(5)]
    with Image.open(files[4]) as image:
        assert torch.equal(as_uint8([image])[0], images[4])
    (grid,) = save_images(images.permute(0, 2, 3, 1).numpy(), tmp_path / "grid.png")
    with Image.open(grid) as image:
        assert image.size == (18, 8)  # three columns, two rows
        assert torch.equal(as_uint8([image])[0][:, 4:, 6:12], images[4])


def test_bad_images() -> None:
    """Floats outside 0 to 1 and other shapes are refused."""
    with pytest.raises(ValueError, match="images has floats outside 0 to 1"):
        as_uint8(torch.full((1, 3, 2, 2), -1.0))
    with pytest.raises(ValueError, match=r"images has shape \(3, 2, 2\)"):
        as_uint8(torch.zeros(3, 2, 2))
