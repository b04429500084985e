"""Shards of quality: cut anywhere, they come to what all images at once do."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench.measure import quality, shards, timing
from bench.measure.moments import Moments
from bench.measure.samples import Collector
from bench.pipeline.session import Session
from bench.record import Quality
from bench.spec.run_spec import RunSpec
from bench.store import keys
from bench.store.tensors import Cache
from dqar.evaluation.frechet import Statistics, fitted, frechet_distance

TOLERANCE = 1e-10  # relative, of an FID from float64 sums; of the order of additions alone


@pytest.mark.parametrize("sizes", [(4000,), (1, 1, 3998), (500,) * 8, (1999, 1, 2000)])
def test_fid_of_parts_is_that_of_the_whole(sizes: Sequence[int]) -> None:
    """Mean, covariance and FID of streamed features are those of all at once, although the mean is a hundred
    times the spread: sums of plain squares would lose four digits there."""
    rng = torch.Generator().manual_seed(0)
    features = torch.randn(4000, 32, generator=rng) * torch.linspace(0.1, 3, 32) + 100
    moments = Moments()
    for part in features.split(list(sizes)):
        moments.add(part)
    whole, streamed = fitted(features), moments.statistics
    np.testing.assert_allclose(streamed.mu, whole.mu, rtol=TOLERANCE)
    np.testing.assert_allclose(streamed.sigma, whole.sigma, rtol=TOLERANCE, atol=TOLERANCE)
    other = Statistics(whole.mu + 1, np.eye(32))
    assert frechet_distance(streamed, other) == pytest.approx(frechet_distance(whole, other), rel=TOLERANCE)


def test_features_that_are_not_finite_are_refused() -> None:
    """One NaN would make the whole FID one, a few hours later."""
    with pytest.raises(ValueError, match="finite"):
        Moments().add(torch.tensor([[1.0, float("nan")]]))


def spec(model: Path, **changes: Any) -> RunSpec:
    settings: dict[str, Any] = {
        "suite": "s", "name": "half", "method": "fewer_steps", "options": {"steps": 3}, "model": str(model),
        "num_inference_steps": 6, "batch_size": 2, "memory": False,
        "timing": {"min_pairs": 2, "max_pairs": 2, "warmup": 0},
        "quality": {"n": 9, "converged_n": 5, "converged_steps": 12, "extractor": None, "worst": 2},
    }  # fmt: skip
    return RunSpec(**settings | changes)


def cut(session: Session, directory: Path, bounds: Sequence[int]) -> Quality:
    """The quality of a configuration by shards that end at these images."""
    own_cache = Cache(directory, keys.inputs(session.spec))
    baseline, candidate = [], []
    for start, stop in itertools.pairwise(bounds):
        numbers = range(start, stop)
        base, cand = Collector(session, timing.Pairs(), own_cache, lambda text: None).both(numbers)
        solved = shards.solved(session, own_cache, numbers)
        baseline.append(shards.of_baseline(session, base, numbers, solved))
        candidate.append(shards.of_candidate(session, base, cand, numbers, solved))
    return quality.merged(session.spec, baseline, candidate, own_cache, "p.png")[0]


@pytest.mark.slow
def test_shards_come_to_the_record_of_one_go(tiny_model_dir: Path, tmp_path: Path) -> None:
    """Wherever the images are cut, every field is that of `measure`: image by image, the worst images and
    their mosaic, the digest of all latents, and the drift from the converged trajectory."""
    session = Session.open(spec(tiny_model_dir))
    cache = Cache(tmp_path / "whole", keys.inputs(session.spec))
    whole, _ = quality.measure(session, timing.Pairs(), cache, "p.png", lambda text: None)
    assert whole and not whole.identical and whole.n_converged == 5
    assert [one.drift for one in whole.worst] == sorted(whole.drift_per_image, reverse=True)[:2]
    for bounds in ([0, 9], [0, 2, 4, 6, 8, 9], [0, 6, 9]):
        merged = cut(session, tmp_path / "cut", bounds)
        # The blur of a single image and of several differ in the last bit.
        assert merged.ssim.mean == pytest.approx(whole.ssim.mean, rel=1e-12)
        assert merged.model_copy(update={"ssim": whole.ssim}) == whole
    control = Session.open(spec(tiny_model_dir, method="baseline", options={}))
    assert cut(control, tmp_path / "cut", [0, 4, 9]).identical


def test_a_shard_is_found_by_what_it_depends_on(tiny_model_dir: Path, tmp_path: Path) -> None:
    """More images, other names and another budget find the shards that are there; another method or other
    metrics do not, and of these only the metrics change the baseline's."""
    one = spec(tiny_model_dir)
    cache = Cache(tmp_path, keys.inputs(one))

    def both(**changes: Any) -> tuple[str, str]:
        changed = spec(tiny_model_dir, **changes)
        return shards.key(cache, changed, False), shards.key(cache, changed, True)

    own, before = both()
    assert both(name="other", quality=one.quality.model_dump() | {"n": 40}, timeout_s=9) == (own, before)
    assert both(options={"steps": 2})[0] != own and both(options={"steps": 2})[1] == before
    worse = both(quality=one.quality.model_dump() | {"worst": 1})
    assert worse[0] != own and worse[1] != before
