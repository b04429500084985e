"""The A/A study: what it counts, and the allocator that its steadiness rests on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bench import stats
from bench.machine.process import ALLOCATOR
from bench.measure.timing import Pairs, summarise
from bench.record import Record
from bench.run.preflight import check_model
from bench.studies import control

FAULTS = """
import resource, torch
def work():
    for _ in range(5):
        several = [torch.ones(2**20) for _ in range(20)]; del several
work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def repetition(number: int, ratios: list[float], seconds: float = 1.0) -> Record:
    spec = control.specs(number + 1)[number]
    timing = summarise(Pairs(seconds=[(r * seconds, seconds) for r in ratios], stopped="target"), spec)
    return Record(
        key="0" * 16, suite="control", name=spec.name, method="baseline", config=spec.public(),
        status="ok", environment={"machine": "here"}, timing=timing,
    )  # fmt: skip


def test_repetitions_share_no_seed() -> None:
    """Every repetition is the same configuration under a name and seeds of its own."""
    specs = control.specs(3)
    assert len({spec.name for spec in specs}) == len({spec.seed for spec in specs}) == 3
    assert len({spec.model_copy(update={"name": "x", "seed": 0}).model_dump_json() for spec in specs}) == 1


def test_the_study_is_of_any_model() -> None:
    """A model and its prompts stand in place of the suite's, in every repetition."""
    specs = control.specs(2, "embedded-t2i", "emoji")
    check_model(specs)
    assert {(spec.model, spec.prompts and spec.prompts.file) for spec in specs} == {
        ("embedded-t2i", "emoji.txt")
    }


def test_a_study_counts_the_intervals_that_hold_one(tmp_path: Path) -> None:
    """One repetition of four misses 1.0: share, verdict and the report state it."""
    undisturbed = [0.98, 0.99, 1.0, 1.01, 1.02]
    records = [repetition(i, undisturbed) for i in range(3)] + [repetition(3, [r + 0.1 for r in undisturbed])]
    study = control.study(records)
    assert (study.covering, study.share.median, study.holds) == (3, 0.75, False)
    assert study.seconds == pytest.approx(10, rel=0.02)
    text = control.write_report(records, tmp_path).read_text()
    assert "3 of 4 repetitions, fewer than the 90% required" in text
    assert (tmp_path / "control.webp").stat().st_size > 0
    assert list(pd.read_csv(tmp_path / "repetitions.csv")["median"]) == [i.median for i in study.intervals]


def test_a_study_of_nothing_is_an_error() -> None:
    """Without a finished repetition there is no share."""
    with pytest.raises(ValueError, match="no finished repetition"):
        control.study([])


def test_wilson_interval_of_a_proportion() -> None:
    """36 of 40 agree with Wilson's interval as published tables have it; all of n stay below 1."""
    share = stats.proportion(36, 40)
    assert (share.low, share.high) == pytest.approx((0.769, 0.960), abs=1e-3)
    assert stats.proportion(40, 40).high == pytest.approx(1)
    assert stats.proportion(40, 40).low == pytest.approx(0.912, abs=1e-3)


@pytest.mark.slow
def test_stopping_at_the_target_leaves_the_interval_honest() -> None:
    """Pairs are added until the interval is narrow, which favours lucky ones: with the suite's least
    number of pairs, and scatter with the heavy tail of a shared machine, 9 in 10 still hold 1.0."""
    spec, rng = control.specs(1)[0], np.random.default_rng(0)
    held = [_covers(rng, spec.timing.min_pairs, spec.timing.target_halfwidth) for _ in range(100)]
    assert np.mean(held) >= 0.9


def _covers(rng: np.random.Generator, count: int, target: float) -> bool:
    ratios = np.exp(0.04 * rng.standard_t(3, 200))
    while count < 200 and (interval := stats.median_interval(ratios[:count])).relative_half_width > target:
        count += 4
    return interval.low <= 1 <= interval.high


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="glibc's settings")
def test_the_allocator_keeps_freed_memory() -> None:
    """With the workers' settings, tensors made and freed again and again fault in a fraction of the
    pages that they do where each is handed back; which of both glibc does by itself is chance."""
    handed_back = {"MALLOC_MMAP_THRESHOLD_": str(2**20), "MALLOC_TRIM_THRESHOLD_": str(2**20)}
    kept, back = (_faults(os.environ | settings) for settings in (ALLOCATOR, handed_back))
    assert kept < back / 4


def _faults(env: dict[str, str]) -> int:
    done = subprocess.run([sys.executable, "-c", FAULTS], env=env, capture_output=True, text=True, check=True)
    return int(done.stdout)
