"""Derived values of a record are those of its raw samples: a forgery that is sealed again is refused."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bench import stats
from bench.record import Limits, Mean, Median, Quality, Record, Reuse, Timing, Worst
from bench.store import keys, validation
from bench.store.derived import inconsistency
from bench.store.images import digest

PAIRS = [(2.16, 2.0), (2.2, 2.0), (2.1, 2.0), (2.14, 2.0), (2.18, 2.0), (9.0, 2.0)]
DRIFTS = [0.01, 0.02, 0.04, 0.03]


def png(grey: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.full((4, 2, 3), grey, dtype=np.uint8)).save(stream, "PNG")
    return stream.getvalue()


IMAGE = png(0)


def timing() -> Timing:
    derived = stats.timed(PAIRS[:5], 5, 0.02, seed=3)
    return Timing(
        **derived._asdict(), pairs=PAIRS, contaminated=[5], contaminated_why=["load"], baseline="eager",
        batch_size=1, stopped="pairs",
    )  # fmt: skip


def quality() -> Quality:
    mean = stats.mean_interval(DRIFTS)
    return Quality(
        n=4, drift=mean, drift_per_image=DRIFTS, psnr_db=None, ssim=mean, lpips=None,
        drift_converged=mean, baseline_drift_converged=mean, drift_converged_per_image=DRIFTS,
        baseline_drift_converged_per_image=DRIFTS, n_converged=4, to_reference=None, to_baseline=None,
        identical=False, latents_sha256="", image="it.png", image_sha256=digest(IMAGE),
        worst=[Worst(index=2, seed=2, label="a", drift=0.04, psnr_db=None)], missing={},
    )  # fmt: skip


def record(**changes: Any) -> Record:
    inputs = {"machine": "m"}
    config = {"seed": 3, "timing": {"verdict_threshold": 0.02}}
    timed = timing()
    ratio, base = timed.speedup.median, timed.baseline_s.median
    fields: dict[str, Any] = {
        "key": keys.key_of(config, inputs),
        "suite": "tiny",
        "name": "run",
        "method": "dqar",
        "config": config,
        "status": "ok",
        "environment": {"machine": "m", "inputs": inputs},
        "timing": timed,
        "quality": quality(),
        "reuse": Reuse(ratio=0.25, plan_ratio=None, map=[[0, 1], [0, 0]], entropy=None, snr=[], reasons={}),
        "limits": Limits(
            flops_generation=1e9, attention_share=0.3, speedup_limit=1.1, realised=(ratio - 1) / (1.1 - 1),
            flops_per_second=1e9 / base, mfu=1e9 / base / 1e10, peak=1e10, peak_source="a sheet",
        ),
    }  # fmt: skip
    return Record(**fields | changes)


def stored(directory: Path, sealed: Record, image: bytes = IMAGE) -> Path:
    """The record, sealed, where it belongs, with its image."""
    where = directory / "tiny" / "m"
    where.mkdir(parents=True)
    (where / "it.png").write_bytes(image)
    path = where / f"run-{sealed.key}.json"
    path.write_text(keys.seal(sealed).model_dump_json())
    return path


def test_a_measured_record_is_valid(tmp_path: Path) -> None:
    """One whose derived values are those of its samples has no validation error."""
    assert validation.validation_error(stored(tmp_path, record())) is None


def part(of: Any, **changes: Any) -> Any:
    return of.model_copy(update=changes)


FORGERIES = {
    "timing.speedup": {"timing": part(timing(), speedup=Median(median=9.99, low=9.9, high=10.1))},
    "timing.baseline_s": {"timing": part(timing(), baseline_s=Median(median=3.0, low=2.9, high=3.1))},
    "timing.candidate_s": {"timing": part(timing(), candidate_s=Median(median=1.0, low=0.9, high=1.1))},
    "timing.verdict": {"timing": part(timing(), verdict="SLOWER")},
    "timing.pairs": {"timing": part(timing(), pairs=[(2.0, 0.0)])},
    "timing.pairs ": {"timing": part(timing(), contaminated=[77])},
    "timing.contaminated_why": {"timing": part(timing(), contaminated_why=[])},
    "quality.n": {"quality": part(quality(), n=400)},
    "quality.drift": {"quality": part(quality(), drift=Mean(mean=0.001, low=0.0, high=0.002))},
    "quality.identical": {"quality": part(quality(), identical=True)},
    "quality.worst": {"quality": part(quality(), worst=[part(quality().worst[0], drift=0.02)])},
    "quality.drift_converged": {
        "quality": part(quality(), drift_converged=Mean(mean=0.0, low=0.0, high=0.0))
    },
    "quality.drift_converged_per_image": {"quality": part(quality(), n_converged=64)},
    "quality.baseline_drift_converged": {
        "quality": part(quality(), baseline_drift_converged=Mean(mean=0.9, low=0.8, high=1.0))
    },
    "limits.realised": {"limits": part(record().limits, realised=0.99)},
    "limits.mfu": {"limits": part(record().limits, mfu=0.9)},
    "limits.flops_per_second": {"limits": part(record().limits, flops_per_second=1.0)},
    "reuse.ratio": {"reuse": part(record().reuse, ratio=0.9)},
}


@pytest.mark.parametrize("field", FORGERIES)
def test_a_forged_value_is_found_though_sealed(tmp_path: Path, field: str) -> None:
    """A derived value that was changed, and the record sealed again, is named: its samples do not give it."""
    error = validation.validation_error(stored(tmp_path, record(**FORGERIES[field])))
    assert error is not None and error.startswith(f"inconsistent: {field.strip()} is ")


def fast(**changes: Any) -> dict[str, Any]:
    """Timing and limits of pairs far below a second, FLOPs counted to a limit of 2."""
    pairs = [(0.25, 0.125)] * 5
    derived = stats.timed(pairs, 5, 0.02, seed=3)
    timed = Timing(
        **derived._asdict(), pairs=pairs, contaminated=[], contaminated_why=[], baseline="eager",
        batch_size=1, stopped="pairs",
    )  # fmt: skip
    limits = Limits(
        flops_generation=1.0, attention_share=0.3, speedup_limit=2.0, realised=1.0, flops_per_second=4.0,
        mfu=8.0, peak=0.5, peak_source="a sheet",
    )  # fmt: skip
    return {"timing": timed, "limits": limits.model_copy(update=changes)}


ZEROS = [0.0, 0.0]
SAME = quality().model_copy(
    update={
        "n": 2, "drift_per_image": ZEROS, "drift": Mean(mean=0.0, low=0.0, high=0.0), "identical": True,
        "worst": [], "drift_converged_per_image": [], "baseline_drift_converged_per_image": [],
    }
)  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [
        {"quality": None},
        {"timing": None},
        {"limits": None},
        {"reuse": None},
        {"reuse": part(record().reuse, map=[], ratio=0.5)},
        {"quality": SAME},
        fast(),
        fast(realised=None),
        fast(speedup_limit=1.0, realised=None),
        fast(peak=0.0, mfu=3.0),
        fast(flops_per_second=4.0 * (1 + 1e-8), mfu=8.0),
    ],
)
def test_what_has_no_samples_is_not_compared(changes: dict[str, Any]) -> None:
    """Nulls, no map, no room for a speedup and no known peak are no inconsistency; nor is rounding."""
    assert inconsistency(record(**changes)) is None


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        (fast(realised=0.75), "limits.realised is 0.75, its raw samples give 1"),
        (fast(flops_per_second=4.001), "limits.flops_per_second is 4.001, its raw samples give 4"),
        (fast(mfu=8.5), "limits.mfu is 8.5, its raw samples give 8"),
        ({"quality": part(SAME, identical=False)}, "quality.identical is False, its raw samples give True"),
        ({"quality": part(quality(), n=400)}, "quality.n is 400, its raw samples give 4"),
        (
            {"quality": part(SAME, drift=Mean(mean=1.0, low=0.0, high=1.5))},
            "quality.drift is 1 [0, 1.5], its raw samples give 0 [0, 0]",
        ),
        (
            {"quality": part(quality(), drift_converged=None)},
            "quality.drift_converged is None, its raw samples give 0.025 [0.015, 0.035]",
        ),
        ({"timing": part(timing(), pairs=[])}, "timing.pairs is False, its raw samples give True"),
        (
            {"timing": part(timing(), pairs=[(2.0, 1.0), (0.0, 1.0)], contaminated=[])},
            "timing.pairs is False, its raw samples give True",
        ),
        (
            {"timing": part(timing(), contaminated=[5, 5], contaminated_why=["a", "b"])},
            "timing.pairs is False, its raw samples give True",
        ),
    ],
)
def test_the_reason_has_field_and_both_values(changes: dict[str, Any], why: str) -> None:
    """A value that its samples do not give is named with what they give, to six digits."""
    assert inconsistency(record(**changes)) == why


@pytest.mark.parametrize("contaminated", [[0], [4, 0], [0, 1, 2, 3, 4]])
def test_contaminated_pairs_carry_no_verdict(contaminated: list[int]) -> None:
    """Fewer than five others are AMBIGUOUS; where none is left the statistics are those of all."""
    pairs = [(0.25, 0.125)] * 5
    derived = stats.timed(pairs, 5 - len(contaminated), 0.02, seed=3)
    assert derived.verdict == "AMBIGUOUS"
    changed = derived._asdict() | {
        "contaminated": contaminated,
        "contaminated_why": ["a"] * len(contaminated),
    }
    assert inconsistency(record(timing=part(fast()["timing"], **changed), limits=None)) is None


@pytest.mark.parametrize(
    ("config", "seed", "threshold"),
    [
        ({"seed": 3, "timing": {"verdict_threshold": 0.5}}, 3, 0.5),
        ({"seed": 3}, 3, 0.02),
        ({"timing": {}}, 0, 0.02),
        ({"seed": "three", "timing": "long"}, 0, 0.02),
    ],
)
def test_seed_and_threshold_are_the_configurations(
    config: dict[str, Any], seed: int, threshold: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a verdict depends on is read from the recorded configuration; 0 and 2 % where it states none."""
    monkeypatch.setattr(stats, "RESAMPLES", 5)  # so few that each seed has its own interval
    pairs = [(1.0 + 0.03 * i, 0.9 + 0.001 * i * i) for i in range(9)]
    limits = {"limits": None, "quality": None}

    def timed(seed: int, threshold: float) -> Timing:
        derived = stats.timed(pairs, 9, threshold, seed)._asdict()
        timed_pairs: Timing = part(timing(), pairs=pairs, contaminated=[], contaminated_why=[], **derived)
        return timed_pairs

    assert inconsistency(record(config=config, timing=timed(seed, threshold), **limits)) is None
    for other in (seed + 1, seed + 2):
        why = inconsistency(record(config=config, timing=timed(other, threshold), **limits))
        assert why is not None and why.startswith("timing.")
    why = inconsistency(record(config=config, timing=timed(seed, 0.52 - threshold), **limits))
    assert why is not None and why.startswith("timing.verdict is")


def test_each_forgery_is_one_line_with_both_values() -> None:
    """The value recorded and the one that the samples give stand in the reason."""
    why = inconsistency(record(**FORGERIES["timing.speedup"]))
    assert why is not None and "9.99" in why and "1.08" in why and "\n" not in why


def test_an_image_that_was_exchanged_is_found(tmp_path: Path) -> None:
    """Another image than the recorded digest's, or one elsewhere, is a validation error; an older
    record without a digest is not."""
    assert "does not match its digest" in str(
        validation.validation_error(stored(tmp_path / "a", record(), png(1)))
    )
    outside = record(quality=part(quality(), image="../it.png"))
    assert "missing" in str(validation.validation_error(stored(tmp_path / "b", outside)))
    older = record(quality=part(quality(), image_sha256=None))
    assert validation.validation_error(stored(tmp_path / "c", older, png(1))) is None


def test_ends_in_the_wrong_order_are_no_record(tmp_path: Path) -> None:
    """An interval whose low end lies above its high end is refused on reading, whatever its digest."""
    path = stored(tmp_path, record())
    text = path.read_text()
    speedup = timing().speedup
    swapped = text.replace(f'"low":{speedup.low}', f'"low":{speedup.high + 1}', 1)
    assert swapped != text
    path.write_text(swapped)
    assert "not in this order" in str(validation.validation_error(path))


def test_published_records_are_consistent() -> None:
    """Every derived value of every committed record is what its raw samples give."""
    root = Path(__file__).parents[1] / "results"
    root = root / "published" if (root / "published").is_dir() else root
    paths = [p for p in validation.files(root) if p.parts[-3] not in ("signals", "asv-check", "local")]
    assert len(paths) > 200
    wrong = {path.name: why for path in paths[::4] if (why := validation.validation_error(path))}
    assert not wrong


OWN, BEFORE = [0.25, 0.5, 0.75, 0.5], [0.5, 0.5, 0.25, 0.125]
SCORED = part(
    quality(),
    text_score_per_image=OWN,
    baseline_text_score_per_image=BEFORE,
    text_score=stats.mean_interval(OWN),
    baseline_text_score=stats.mean_interval(BEFORE),
    text_score_change=stats.mean_interval([-0.25, 0.0, 0.5, 0.375]),
)
OTHER = Mean(mean=0.5, low=0.0, high=1.0)


def test_text_scores_follow_from_those_of_each_image() -> None:
    """Both arms' means and that of their paired difference, where there are as many of both."""
    assert inconsistency(record(quality=SCORED)) is None
    assert inconsistency(record(quality=part(SCORED, text_score_per_image=[], text_score=OTHER))) is None


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"text_score": OTHER}, "text_score"),
        ({"baseline_text_score": OTHER}, "baseline_text_score"),
        ({"text_score_change": OTHER}, "text_score_change"),
        ({"text_score_per_image": OWN[:3]}, "text_score_per_image"),
        ({"baseline_text_score_per_image": BEFORE[:3]}, "baseline_text_score_per_image"),
    ],
)
def test_a_forged_text_score_is_found(changes: dict[str, Any], field: str) -> None:
    """Each of the three means, and a number of images that differs."""
    why = inconsistency(record(quality=part(SCORED, **changes)))
    assert why is not None and why.startswith(f"quality.{field} is ")
