"""FID, precision and recall, and LPIPS, by torch-fidelity's networks with random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import random_weights
import torch
from PIL import Image
from torch import Tensor

from bench.measure import distributions, features, perceptual, quality, timing
from bench.measure.distances import distances
from bench.measure.reference import Reference
from bench.measure.samples import Collector
from bench.pipeline.session import Session
from bench.record import Distance
from bench.spec.run_spec import RunSpec
from bench.store import keys
from bench.store.tensors import Cache
from dqar.evaluation.frechet import Statistics


@pytest.fixture(scope="module")
def inception(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_weights.inception(tmp_path_factory.mktemp("weights") / "inception.pth")


@pytest.fixture(scope="module")
def lpips_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_weights.lpips(tmp_path_factory.mktemp("vgg"))


def noise(n: int, side: int = 64, seed: int = 0) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.randint(256, (n, 3, side, side), dtype=torch.uint8, generator=rng)


def spec(model: str = "embedded", **quality: Any) -> RunSpec:
    return RunSpec(
        suite="s",
        name="half",
        method="fewer_steps",
        options={"steps": 3},
        model=model,
        num_inference_steps=6,
        batch_size=2,
        timing={"min_pairs": 2, "max_pairs": 2, "warmup": 0},  # type: ignore[arg-type]
        quality={"n": 4, "converged_n": 0, "worst": 2} | quality,  # type: ignore[arg-type]
    )


def test_precision_and_recall_of_half_of_the_modes() -> None:
    """Images like one of two kinds lie all among the real ones, of which they cover half."""
    rng = torch.Generator().manual_seed(0)
    one, other, generated = (torch.randn(200, 2, generator=rng) for _ in range(3))
    found = distributions.distance(generated, torch.cat([one, other + 100]), "identity", "two Gaussians")
    assert found.precision == pytest.approx(1, abs=0.1)
    assert found.recall == pytest.approx(0.5, abs=0.05)
    assert not found.missing


def test_what_cannot_be_had_of_a_reference_is_null_with_its_reason() -> None:
    """Of statistics alone there is an FD and nothing else; of few images no precision."""
    generated = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
    unit = Statistics(np.zeros(4), np.eye(4))
    of_statistics = distributions.distance(generated, None, "identity", "a Gaussian", unit)
    absent = {"kid", "precision", "recall", "n_reference"}
    assert {field for field in absent if getattr(of_statistics, field) is None} == absent
    assert set(of_statistics.missing) == absent and 0 < of_statistics.fd < 2
    few = distributions.distance(generated, generated[:8], "identity", "a few")
    assert few.precision is None and few.kid and "fewer than 16" in few.missing["recall"]


def test_lpips_is_zero_for_equals_and_grows_with_the_difference(lpips_weights: Path) -> None:
    """Each image has its own distance: none from itself, more the more it differs."""
    base = noise(3, side=32)
    near = (base.float() * 0.9).to(torch.uint8)
    far = torch.stack([base[0], near[1], 255 - base[2]])
    values = perceptual.lpips(far, base, lpips_weights)
    assert values[0] == 0 and 0 < values[1] < values[2]


@pytest.mark.slow
def test_a_run_with_every_file(
    tiny_model_dir: Path, tmp_path: Path, inception: Path, lpips_weights: Path
) -> None:
    """With weights and a reference from files a run has LPIPS, and a FID that follows the
    reference's mean and covariance: from a point at a distance of 10 from the images' mean it is
    100 and their total variance."""
    reference = tmp_path / "adm.npz"
    files = {"inception_weights": inception, "lpips_weights": lpips_weights, "reference": reference}
    wanted = spec(str(tiny_model_dir), **{field: str(path) for field, path in files.items()})
    session = Session.open(wanted)
    pairs = timing.measure(session, lambda text: None)
    generated = torch.cat([generation.images for generation in pairs.candidate])
    extractor = features.chosen(wanted.quality)
    assert extractor
    fitted = extractor.extract(generated).double().numpy()
    shifted = fitted.mean(axis=0) + (np.arange(2048) < 100)
    arr = noise(5, side=16).permute(0, 2, 3, 1).numpy()
    np.savez(reference, arr_0=arr, mu=shifted, sigma=np.zeros((2048, 2048)))

    cache = Cache(tmp_path / "cache", keys.inputs(wanted))
    metrics, _ = quality.measure(session, pairs, cache, "p.png", lambda text: None)
    assert metrics and metrics.lpips and metrics.lpips.mean > 0
    far, near = metrics.to_reference, metrics.to_baseline
    assert far and near and far.kid and near.kid
    assert far.fd == pytest.approx(100 + fitted.var(axis=0, ddof=1).sum(), rel=1e-3)
    assert near.extractor == far.extractor == "inception-v3-compat"
    assert (far.reference, far.n_reference) == ("adm.npz (FID by its mu and sigma)", 5)
    assert near.fd > 0 and near.precision is None and "fewer than 16" in near.missing["precision"]
    assert str(tmp_path) not in metrics.model_dump_json() + str(wanted.public())


def test_without_weights_the_names_show_it(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without VGG16's weights LPIPS is null with the reason, without Inception's the distance bears
    the embedded extractor's name, and without an extractor there is none."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    session = Session.open(spec(str(tiny_model_dir), extractor=None))
    pairs = timing.measure(session, lambda text: None)
    cache = Cache(tmp_path, keys.inputs(session.spec))
    metrics, _ = quality.measure(session, pairs, cache, "p.png", lambda text: None)
    assert metrics and metrics.lpips is None and "--lpips-weights" in metrics.missing["lpips"]
    assert metrics.to_reference is None and metrics.missing["to_reference"] == "no extractor in the suite"
    far = measured(tmp_path)["to_reference"]
    assert far and far.extractor == "dqar-emoji-96" and far.reference.startswith("held-out")


def measured(directory: Path, **given: str) -> dict[str, Distance | None]:
    """The distances of 20 images of noise by the embedded extractor."""
    wanted = spec(n=20, **given)
    extractor = features.chosen(wanted.quality)
    assert extractor
    baseline, candidate = ({"features": extractor.extract(noise(20, seed=i))} for i in (0, 1))
    missing: dict[str, str] = {}
    by_field = distances(wanted, [baseline], [candidate], Cache(directory, keys.inputs(wanted)), missing)
    assert not missing
    return by_field


def save_samples(directory: Path, images: Tensor) -> Path:
    (directory / "class").mkdir(parents=True)
    for i, image in enumerate(images):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(directory / "class" / f"{i:03d}.png")
    return directory


def test_a_directory_and_an_array_of_the_same_images_are_one_reference(tmp_path: Path) -> None:
    """Images come out of a directory, its subdirectories included, as they do out of `arr_0`: another
    reference has another distance, from features kept apart."""
    real = noise(18, seed=2)
    directory = save_samples(tmp_path / "real", real)
    np.savez(tmp_path / "real.npz", arr_0=real.permute(0, 2, 3, 1).numpy())
    assert torch.equal(torch.cat(list(Reference(directory).chunks())), real)
    one, other = (measured(tmp_path, reference=str(tmp_path / name)) for name in ("real", "real.npz"))
    a, b = one["to_reference"], other["to_reference"]
    assert a and b and (a.reference, b.reference) == ("real", "real.npz")
    assert a.model_copy(update={"reference": "real.npz"}) == b
    assert a.n_reference == 18 and a.precision is not None and a.recall is not None
    (directory / "class" / "000.png").write_bytes((directory / "class" / "001.png").read_bytes())
    changed = measured(tmp_path, reference=str(directory))["to_reference"]
    assert changed and changed.fd != a.fd


def test_the_contents_of_files_are_part_of_the_key(tmp_path: Path) -> None:
    """Other contents under the same name make another key, the same elsewhere do not."""
    found = []
    for place, seed in (("a", 0), ("b", 0), ("c", 1)):
        directory = save_samples(tmp_path / place / "real", noise(2, seed=seed))
        wanted = spec(reference=str(directory))
        found.append(keys.key_of(wanted.public(), keys.inputs(wanted)))
    assert found[0] == found[1] != found[2]


def test_inception_weights_make_no_image_again(tiny_model_dir: Path, tmp_path: Path, inception: Path) -> None:
    """A run with other weights finds all images of the one before."""
    session = Session.open(spec(str(tiny_model_dir)))
    for given in ({}, {"inception_weights": str(inception)}):
        session.spec = spec(str(tiny_model_dir), **given)
        progress: list[str] = []
        cache = Cache(tmp_path, keys.inputs(session.spec))
        Collector(session, timing.Pairs(), cache, progress.append).both(range(4))
        assert len(progress) == (0 if given else 4)
