"""What is recommended and what "no loss" means, at the bounds and where values are missing."""

from __future__ import annotations

from typing import Any

import pytest
from report_records import made, quality

from bench.record import Mean, Quality, Record
from bench.report import selection
from bench.report.selection import Loss, Selection


def exact(value: float) -> Mean:
    return Mean(mean=value, low=value, high=value)


def evenly(candidate: float, own: float = 1.0, n: int = 24, **changes: Any) -> Quality:
    """Every image drifts by `candidate` from converged, and the baseline's by `own`."""
    images = {
        "drift_converged_per_image": [candidate] * n,
        "baseline_drift_converged_per_image": [own] * n,
        "drift_converged": exact(candidate),
        "baseline_drift_converged": exact(own),
    }
    return quality("it", 0.1, own, **images | changes)


def run(name: str, speed: float, lost: Quality | None, method: str = "dqar", **changes: Any) -> Record:
    return made(name, method, speed, 0.1, 0.2, quality=lost, **changes)


def lossless(name: str, speed: float, method: str = "dqar") -> Record:
    return run(name, speed, evenly(1.0), method)


def lossy(name: str, speed: float, method: str = "dqar", drift: float = 2.0) -> Record:
    return run(name, speed, evenly(drift), method)


def near(name: str, speed: float, method: str = "dqar") -> Record:
    """Within the baseline's own by its mean, without single images to claim it."""
    lost = evenly(1.0, drift_converged_per_image=[], baseline_drift_converged_per_image=[])
    return run(name, speed, lost, method)


def test_a_verdict_has_what_it_was_decided_from() -> None:
    """The number of images, the paired difference and the bound; nothing of these without single images."""
    assert selection.loss(lossy("it", 1.1), 0.25) == Loss("loss", 24, exact(1.0), 0.25)
    assert selection.loss(near("it", 1.1)) == Loss("no claim", 0, None, None)
    assert selection.loss(run("it", 1.1, None)) == Loss("no claim", 0, None, None)


def test_a_difference_at_the_margin_is_no_verdict() -> None:
    """The interval must lie below the margin, or above it; one that ends on it is inconclusive."""
    assert selection.loss(run("it", 1.1, evenly(1.25)), 0.25).verdict == "inconclusive"


def test_what_was_not_measured_ranks_last() -> None:
    """No drift from converged is infinite, no timing no speed, no counted FLOPs no room for a speedup."""
    bare = run("bare", 1.1, None, timing=None, limits=None)
    unconverged = run("it", 1.1, quality("it", 0.1, drift_converged=None))
    assert selection.drift_from_converged(bare) == float("inf")
    assert selection.drift_from_converged(unconverged) == float("inf")
    assert (selection.speed(bare), selection.limit(bare)) == (0.0, 1.0)


def test_the_baselines_drift_is_of_the_most_images() -> None:
    """Of the runs that measured it, the one on the most images; null where none did."""
    few = run("few", 1.1, quality("few", 0.1, own=0.25, n_converged=8))
    many = run("many", 1.1, quality("many", 0.1, own=0.5, n_converged=16))
    without = run("without", 1.1, quality("without", 0.1, baseline_drift_converged=None, n_converged=64))
    drift = Selection([few, many, without, run("blind", 1.1, None)]).baseline_drift
    assert drift is not None and drift.mean == 0.5
    assert Selection([without]).baseline_drift is None


def test_the_suites_margin_decides() -> None:
    """A selection judges loss and nearness at its own margin, whose bound is still near."""
    record = run("it", 1.1, evenly(1.25))
    assert Selection([record], 0.5).loss(record).verdict == "no loss"
    assert Selection([record], 0.25).within_baseline(record)
    assert not Selection([record], 0.125).within_baseline(record)


def test_a_paired_loss_is_not_near() -> None:
    """A mean that looks near does not count where the paired images show a loss."""
    contradicted = run("it", 1.1, evenly(2.0, drift_converged=exact(1.0)))
    assert not Selection([contradicted]).within_baseline(contradicted)


@pytest.mark.parametrize(
    ("lost", "allowed", "basis"),
    [
        (evenly(1.0, drift_converged=exact(2.0)), 1.1, "likeliest"),  # no loss by its images, if not by means
        (evenly(1.0, n=5), 1.1, "likeliest"),  # near by means, images too few
        (evenly(2.0), 1.1, "none"),
        (evenly(1.0), 1.005, "none"),  # counted FLOPs allow no speedup to speak of
    ],
)
def test_a_run_that_is_not_faster_yet_must_promise_it(lost: Quality, allowed: float, basis: str) -> None:
    """It loses nothing by its images or by its mean, and counted FLOPs allow it to be faster."""
    record = run("it", 1.0, lost)
    assert record.limits is not None
    limited = record.model_copy(
        update={"limits": record.limits.model_copy(update={"speedup_limit": allowed})}
    )
    assert Selection([limited]).recommended.basis == basis


def test_the_lead_is_the_recommended_or_the_fastest_of_those_that_lose() -> None:
    """Where all that are faster lose, the headline names the fastest first, else what is recommended."""
    losing = Selection([lossy("fast", 1.5, drift=3.0), lossy("minor", 1.2)])
    assert losing.recommended.record and losing.recommended.record.name == "minor"
    assert losing.lead and losing.lead.name == "fast"
    fine = Selection([lossy("fast", 1.5), lossless("good", 1.2)])
    assert fine.lead and fine.lead.name == "good"


@pytest.mark.parametrize(
    ("records", "name"),
    [
        ([lossless("ours", 1.5), lossy("fast", 1.4, "fora"), lossless("good", 1.2, "pab")], "good"),
        ([near("ours", 1.5), lossy("fast", 1.4, "fora"), near("close", 1.2, "pab")], "close"),
        ([lossless("ours", 1.5), lossy("slow", 1.1, "fora"), lossy("fast", 1.4, "fora")], "fast"),
        ([lossless("ours", 1.5), lossy("fast", 1.4, "fora"), lossy("minor", 1.2, "pab", 1.5)], "minor"),
        ([lossless("ours", 1.5), lossy("fast", 1.4, "fora"), near("close", 1.2, "pab")], "close"),
        ([lossy("ours", 1.5), lossy("fast", 1.4, "fora"), lossy("minor", 1.3, "pab", 1.5)], "fast"),
        ([lossless("theirs", 1.5, "fora"), lossless("other", 1.4, "pab"), lossless("ours", 1.1)], "ours"),
        ([lossless("ours", 1.5), lossless("ours too", 1.4)], None),
        ([lossy("slow", 0.9)], None),
    ],
)
def test_the_alternative_is_the_best_of_the_other_side(records: list[Record], name: str | None) -> None:
    """DQAR against competitors and these against DQAR: the best on the lead's basis, or what comes nearest to
    it; the fastest where the lead is the fastest alone."""
    chosen = Selection(records).alternative()
    assert (chosen and chosen.name) == name


def test_the_lowest_drift_is_from_converged_or_else_from_the_baseline() -> None:
    """Where no drift from converged was measured, that from the baseline ranks; without either none does."""
    unconverged = [
        run(name, 1.2, quality(name, drift, drift_converged=None))
        for name, drift in (("far", 0.3), ("close", 0.1), ("mid", 0.2))
    ]
    chosen = Selection(unconverged).lowest_drift
    assert chosen is not None and chosen.name == "close"
    assert Selection([run("blind", 1.2, None)]).lowest_drift is None
