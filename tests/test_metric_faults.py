"""Metrics of images that carry none: refused by name, where a value would look like any other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DiTPipeline
from PIL import Image
from test_evaluation import MeanColour
from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY, register_feature_extractor

from bench.errors import NonFinite as NonFiniteRun
from bench.pipeline.session import generate
from bench.run.preflight import check
from bench.spec.settings import QualitySettings
from dqar.errors import NonFinite
from dqar.evaluation.frechet import fitted, frechet_distance
from dqar.evaluation.image_files import MAX_PIXELS, ImageFiles
from dqar.evaluation.metrics import compute_clip_score, compute_fid


def colours(count: int = 6) -> torch.Tensor:
    return torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module", autouse=True)
def extractor() -> None:
    """A feature extractor that needs no weights."""
    if "mean-colour" not in FEATURE_EXTRACTORS_REGISTRY:
        register_feature_extractor("mean-colour", MeanColour)


def distance(generated: object, reference: object) -> float:
    fid = compute_fid(generated, reference, extractor="mean-colour")  # type: ignore[arg-type]
    return float(fid["fd"])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_images_that_are_not_finite_have_no_metric(bad: float) -> None:
    """NaN and infinite values are named with the image that has them, by distance and CLIP score."""
    images = colours()
    images[4, 1, 2, 3] = bad
    message = "images: image 4 of 6 has values that are NaN or infinite"
    with pytest.raises(NonFinite, match=message):
        distance(images, colours())
    with pytest.raises(NonFinite, match=message):
        distance(colours(), images.permute(0, 2, 3, 1).numpy())
    with pytest.raises(NonFinite, match=message):
        compute_clip_score(images, ["a"] * 6, "nowhere")


def test_a_decoder_that_makes_nan_fails_the_run(pipe: DiTPipeline) -> None:
    """A NaN from the decoder, after finite latents, is NonFinite: as bytes it would be a black image."""
    hook = pipe.vae.decoder.register_forward_hook(lambda module, args, output: output * float("nan"))
    call = {"class_labels": [1, 2], "num_inference_steps": 2, "output_type": "pt"}
    with pytest.raises(NonFiniteRun, match=r"the decoded image is NaN or infinite \(2 of 2 of the batch\)"):
        generate(pipe, call)
    hook.remove()
    assert generate(pipe, call).images.dtype == torch.uint8


def test_a_set_is_at_distance_zero_from_itself_and_one_image_has_none() -> None:
    """The distance of a set to itself is exactly 0 though singular; one image is refused."""
    assert distance(colours(), colours()) == 0.0
    singular = torch.randn(5, 64, generator=torch.Generator().manual_seed(0))
    assert frechet_distance(fitted(singular), fitted(singular)) == 0.0
    with pytest.raises(ValueError, match="generated: 1 image has no covariance; needed: 2 or more"):
        distance(colours(1), colours())
    with pytest.raises(ValueError, match="reference: 0 image"):
        distance(colours(), colours(0))
    with pytest.raises(ValueError, match="images has no entries"):
        distance([], colours())


def write(path: Path, value: int, side: int = 64) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (side, side), (value, 0, 0)).save(path, lossless=True)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Five images: at the top, in a subdirectory, as webp, behind a linked directory that links back."""
    top = tmp_path / "top"
    write(top / "a.png", 10)
    write(top / "below" / "deeper" / "b.PNG", 20)
    write(top / "c.webp", 30)
    write(tmp_path / "elsewhere" / "d.bmp", 40)
    write(tmp_path / "elsewhere" / "e.png", 50)
    (top / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(top)
    (top / "labels.txt").write_text("a b c")
    return top


def test_one_reader_finds_every_image_and_counts_them(directory: Path) -> None:
    """`compute_fid` and `--reference` read subdirectories, webp and linked directories alike, each once,
    and state how many there are."""
    images = ImageFiles(directory)
    assert [int(images[i][0, 0, 0]) for i in range(len(images))] == [10, 20, 30, 40, 50]
    same = torch.zeros(5, 3, 64, 64, dtype=torch.uint8)
    same[:, 0] = torch.tensor([10, 20, 30, 40, 50], dtype=torch.uint8)[:, None, None]
    assert distance(directory, same) == 0.0
    (line,) = check(QualitySettings(reference=str(directory)))
    assert line == "reference: top: 5 images of 64 x 64; 1 other files skipped"


def test_what_cannot_be_read_is_refused_by_name(directory: Path) -> None:
    """A broken image, one of another size, and one of too many pixels are each named."""
    for file, side, message in (("x.png", 32, "x.png is "), ("y.png", 0, "y.png is not readable")):
        (write(directory / file, 0, side) if side else (directory / file).write_bytes(b"no image"))
        with pytest.raises(ValueError, match=message):
            distance(directory, colours())
        (directory / file).unlink()
    width = MAX_PIXELS // 1000 + 1
    Image.fromarray(np.zeros((1000, width), np.uint8)).save(directory / "bomb.png")
    with pytest.raises(ValueError, match=f"bomb.png has {width} x 1000 pixels; allowed: at most"):
        ImageFiles(directory)
    with pytest.raises(
        ValueError, match="generated = 'nowhere' is not allowed; allowed: images, or a directory"
    ):
        distance("nowhere", colours())
