"""Suites of which nothing is timed: what is measured all the same, and what the page claims."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from report_records import COMMAND, distance, made, quality
from sentence_checks import Sentence
from typer.testing import CliRunner

from bench.cli.main import app
from bench.measure import jackknife
from bench.measure.distributions import BLOCKS
from bench.measure.distributions import distance as measured
from bench.record import Mean, Record
from bench.report.selection import Selection
from bench.report.suite_report import SuiteReport
from bench.report.text import distances
from bench.run import worker
from bench.run.estimate import estimate
from bench.run.worker import Job
from bench.spec.run_spec import RunSpec
from bench.spec.suite import Suite
from bench.store import derived, keys
from dqar.evaluation.frechet import fitted, frechet_distance

UNTIMED = {"min_pairs": 0, "max_pairs": 0}


def spec(model: Path, method: str, **options: Any) -> RunSpec:
    return RunSpec(
        suite="untimed", name=method.replace("_", "-"), method=method, options=options, model=str(model),
        num_inference_steps=6, batch_size=2, timing=UNTIMED, memory=False,  # type: ignore[arg-type]
        quality={"n": 5, "converged_n": 0, "extractor": None, "worst": 1},  # type: ignore[arg-type]
    )  # fmt: skip


def records(model: Path, results: Path) -> dict[str, Record]:
    specs = [spec(model, "baseline"), spec(model, "dqar", preset="maximum")]
    jobs = []
    for one in specs:
        given = keys.inputs(one)
        key = keys.key_of(one.public(), given)
        jobs.append(Job(spec=one, key=key, inputs=given, results=results, parent=0))
    return {record.name: record for _, record, _ in worker.records(jobs)}


def test_what_is_not_timed_is_measured_all_the_same(tiny_model_dir: Path, tmp_path: Path) -> None:
    """A record of no pairs has its images, its reuse and what FLOPs allow, no seconds, no rate, and is valid;
    the control drifts by exactly 0."""
    found = records(tiny_model_dir, tmp_path)
    base, reused = found["baseline"], found["dqar"]
    assert (base.status, reused.status) == ("ok", "ok"), (base.reason, reused.reason)
    assert base.timing is None and reused.timing is None
    assert base.quality and base.quality.identical and reused.quality and reused.quality.drift.mean > 0
    assert reused.quality.n == 5 and reused.reuse and reused.reuse.ratio > 0
    assert reused.limits and reused.limits.speedup_limit > 1 and reused.limits.mfu is None
    assert derived.inconsistency(reused) is None


def test_a_stopped_untimed_run_resumes(
    tiny_model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Started again, no batch that is there is made again."""
    records(tiny_model_dir, tmp_path)
    first = capsys.readouterr().out
    records(tiny_model_dir, tmp_path)
    assert "images of the" in first and "images of the" not in capsys.readouterr().out


def test_an_untimed_suite_takes_no_time_for_timing() -> None:
    """Its estimate is that of its images, and `show` states that nothing is timed."""
    suite = Suite.load("distances")
    few = Suite.load("distances", quality={"n": 44})
    assert estimate(suite.configurations).low > 10 * estimate(few.configurations).low
    shown = CliRunner().invoke(app, ["show", "distances"]).output
    assert re.search(rf"{len(suite.names)} runs, nothing timed; about", shown)


@pytest.mark.parametrize("name", ["distances", "distances-t2i"])
def test_the_suites_of_distances_have_configurations_of_the_front(name: str) -> None:
    """Each one has its counterpart of the same name and options in the front's suite, DQAR's and others'."""
    fronts = Suite.load(name.replace("distances", "front"))
    known = {one.name: (one.method, one.options, one.batch_size) for one in fronts.configurations}
    ours = Suite.load(name).configurations
    assert all(known[one.name] == (one.method, one.options, one.batch_size) for one in ours)
    methods = [one.method for one in ours]
    assert methods.count("baseline") == 1 and 3 <= methods.count("dqar") <= len(ours) - 3


def features(n: int, shift: float = 0.0, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, 8, generator=torch.Generator().manual_seed(seed)) + shift


def test_the_jackknife_removes_the_bias_of_few_images() -> None:
    """Of two sets of one distribution the distance is far above 0, without bias it is near 0, and its
    interval is that of the distances of fresh sets."""
    given = fitted(features(100_000, seed=1))
    plain, values = [], []
    for seed in range(2, 42):
        few = features(200, seed=seed)
        plain.append(frechet_distance(fitted(few), given))
        values.append(np.mean(jackknife.pseudo_values(few, given)))
    assert np.mean(plain) > 0.1 and abs(np.mean(values)) < 0.1 * np.mean(plain)
    spread = np.std(jackknife.pseudo_values(features(200, seed=2), given)) / BLOCKS**0.5
    assert spread == pytest.approx(np.std(values), rel=0.7)


def test_changes_are_paired() -> None:
    """The same images change nothing, at all; images that are all shifted come further away, measurably; few
    images, or wide features, have no jackknife, and the reason is stated."""
    reference = features(500, seed=1)
    base = features(300, seed=2)
    given = fitted(reference)

    def changed(ours: torch.Tensor, theirs: torch.Tensor) -> Any:
        return jackknife.with_changes(measured(ours, reference, "e", "r"), ours, theirs, reference, given)

    same, shifted = changed(base, base), changed(base + 0.3, base)
    assert same.fd_change == same.kid_change == Mean(mean=0, low=0, high=0)
    assert shifted.fd_change.low > 0 and shifted.kid_change.low > 0
    assert shifted.fd_change.mean == pytest.approx(shifted.fd_unbiased.mean - same.fd_unbiased.mean)
    few = changed(base[:15], base[:15])
    assert few.fd_unbiased is None and few.kid_change and "16 are needed" in few.missing["fd_change"]


def untimed(name: str, method: str, kid: float, change: float) -> Record:
    """A record of a suite of distances."""
    around = {"low": change - 0.002, "high": change + 0.002}
    far = distance(
        3.2, kid=Mean(mean=kid, low=kid - 0.01, high=kid + 0.01), kid_change=Mean(mean=change, **around)
    )
    shown = quality(name, 0.0 if method == "baseline" else 0.1, n_converged=0, to_reference=far,
                    drift_converged=None, baseline_drift_converged=None)  # fmt: skip
    return made(name, method, 1.0, 0.1, quality=shown, timing=None)


RECORDS = [
    untimed("baseline", "baseline", 0.010, 0.0),
    untimed("near", "dqar", 0.0110, 0.001),
    untimed("far", "fora", 0.0150, 0.005),
]


def test_the_headline_counts_what_is_measurably_further_away() -> None:
    """It has the baseline's distances, how many changes lie above 0, and the largest."""
    text = distances.headline(Selection(RECORDS), "a test")
    assert "the baseline's 300 images have FD 3.20, KID 0.010 [0.000, 0.020]" in text
    assert not Sentence(text, RECORDS, 0.05).explain()
    assert "by KID 1 of 2 other configurations" in text and "0.005 [0.003, 0.007] of `far` (fora)" in text


def test_a_page_without_times_claims_none(tmp_path: Path) -> None:
    """No speed is recommended, drawn or explained; the answers state that nothing was timed."""
    report = SuiteReport(RECORDS, tmp_path, COMMAND, "a test", subject="distances")
    text = report.write(tmp_path / "page").read_text()
    assert "nothing timed" in text and "- Nothing was timed." in text
    assert not any(
        word in text for word in ("*Speedup*", "Which to use", "Speed against loss", "the baseline's speed")
    )
