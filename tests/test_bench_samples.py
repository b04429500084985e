"""Images are made once for each arm and seed range, kept, and shared by all quality metrics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from bench.measure import timing
from bench.measure.samples import Collector, Samples
from bench.pipeline.session import Session
from bench.run import worker
from bench.run.worker import Job
from bench.spec.run_spec import RunSpec
from bench.store import keys
from bench.store.tensors import Cache

QUALITY = {"n": 7, "converged_n": 0, "extractor": None, "worst": 2}  # three and a half batches


def spec(model: Path, method: str = "baseline", **changes: Any) -> RunSpec:
    settings: dict[str, Any] = {
        "suite": "tiny",
        "name": method,
        "method": method,
        "options": {"preset": "maximum"} if method == "dqar" else {},
        "model": str(model),
        "num_inference_steps": 4,
        "batch_size": 2,
        "timing": {"min_pairs": 2, "max_pairs": 2, "warmup": 0},
        "quality": QUALITY,
        "memory": False,
    }
    return RunSpec(**settings | changes)


def collected(
    session: Session, directory: Path, pairs: timing.Pairs | None = None
) -> tuple[tuple[Samples, Samples], list[str]]:
    """The images, and the lines on those that were generated."""
    progress: list[str] = []
    cache = Cache(directory, keys.inputs(session.spec))
    numbers = range(session.spec.quality.n)
    return Collector(session, pairs or timing.Pairs(), cache, progress.append).both(numbers), progress


def same(a: Samples, b: Samples) -> bool:
    return torch.equal(a.latents, b.latents) and torch.equal(a.images, b.images)


def test_images_are_timed_or_made_and_never_again(tiny_model_dir: Path, tmp_path: Path) -> None:
    """Timing's images are used as they are, those beyond are made, with progress reported; afterwards
    all come from the store without a model."""
    session = Session.open(spec(tiny_model_dir, "dqar"))
    pairs = timing.measure(session, say=lambda text: None)
    (base, cand), progress = collected(session, tmp_path, pairs)
    assert progress == [f"images of the {arm}: {i} of 7" for arm in ("baseline", "candidate") for i in (4, 6)]
    whole = torch.cat([session.baseline(range(i, i + 2)).latents for i in (0, 2, 4, 6)])[:7]
    assert torch.equal(base.latents, whole) and len(base.images) == 7
    assert torch.equal(cand.latents[2:4], pairs.candidate[1].latents)
    session.pipe = None  # nothing can be made any more
    again, progress = collected(session, tmp_path)
    assert same(again[0], base) and same(again[1], cand) and not progress


def test_a_killed_run_makes_only_what_is_missing(tiny_model_dir: Path, tmp_path: Path) -> None:
    """Batches that are missing or damaged are made again, the same; the others are kept."""
    session = Session.open(spec(tiny_model_dir))
    (base, _), _ = collected(session, tmp_path)
    files = sorted((tmp_path / "images").glob("baseline-*/*.safetensors"))
    files[1].unlink()
    files[3].write_bytes(files[3].read_bytes()[:50])
    (again, _), progress = collected(session, tmp_path)
    assert progress == ["images of the baseline: 2 of 7", "images of the baseline: 6 of 7"]
    assert same(again, base)


def test_the_baselines_images_are_the_whole_suites(tiny_model_dir: Path, tmp_path: Path) -> None:
    """Another configuration makes its own images only; the same with more images makes the
    rest; another seed or number of steps makes all."""
    collected(Session.open(spec(tiny_model_dir)), tmp_path)
    _, other = collected(Session.open(spec(tiny_model_dir, "dqar")), tmp_path)
    assert {line.split(":")[0] for line in other} == {"images of the candidate"}
    _, more = collected(Session.open(spec(tiny_model_dir, quality=QUALITY | {"n": 10})), tmp_path)
    assert more == ["images of the baseline: 8 of 10", "images of the candidate: 8 of 10"]
    changes: list[dict[str, Any]] = [{"seed": 1}, {"num_inference_steps": 5}]
    for change in changes:
        _, again = collected(Session.open(spec(tiny_model_dir, **change)), tmp_path)
        assert len(again) == 8


def test_images_do_not_depend_on_what_is_done_with_them(tiny_model_dir: Path, tmp_path: Path) -> None:
    """Another extractor, another timing or another name finds the images there; another option of
    the method or another source does not."""
    plain = spec(tiny_model_dir, "dqar")
    cache = Cache(tmp_path, keys.inputs(plain))
    quality, times = QUALITY | {"extractor": "embedded"}, {"min_pairs": 5}
    other = spec(tiny_model_dir, "dqar", quality=quality, timing=times, name="other")
    weights = Cache(tmp_path, cache.inputs | {"inception_weights": "a digest"})
    assert cache.candidate_key(plain) == weights.candidate_key(other)
    options = spec(tiny_model_dir, "dqar", options={"preset": "recommended"})
    edited = Cache(tmp_path, cache.inputs | {"sources": "edited"})
    assert cache.candidate_key(options) != cache.candidate_key(plain) != edited.candidate_key(plain)
    assert cache.key(options) == cache.key(plain) == edited.key(plain)


def test_reuse_is_that_of_a_timed_generation(tiny_model_dir: Path, tmp_path: Path) -> None:
    """Making images outside the timing leaves what the session knows of the timed ones alone."""
    session = Session.open(spec(tiny_model_dir, "dqar"))
    pairs = timing.measure(session, say=lambda text: None)
    timed = session.reuse
    _, progress = collected(session, tmp_path, pairs)
    assert timed and progress and session.reuse is timed


@pytest.mark.everyday("1")
@pytest.mark.parametrize("times", [1, 2])
def test_the_control_is_identical_beyond_the_timed_images(
    tiny_model_dir: Path, tmp_path: Path, times: int
) -> None:
    """The baseline against itself drifts by exactly 0, on fresh images and on kept ones."""
    wanted = spec(tiny_model_dir)
    given = keys.inputs(wanted)
    job = Job(spec=wanted, key=keys.key_of(wanted.public(), given), inputs=given, results=tmp_path, parent=0)
    for _ in range(times):
        ((_, record, _),) = worker.records([job])
    assert record.timing and record.quality, record.reason
    assert (len(record.timing.pairs), record.quality.n) == (2, 7)
    assert record.quality.identical and record.quality.drift.mean == 0
