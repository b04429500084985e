"""What a report recommends and claims: made-up records whose answer is known."""

# ruff: noqa: RUF001 - the sign × is meant

from __future__ import annotations

import re

import numpy as np
import pytest
from report_records import failed, made, memory, paired, quality

from bench.record import Mean, Record
from bench.report import selection
from bench.report.escape import code, escape
from bench.report.selection import Selection
from bench.report.text import recommendation, summary

BASELINE = made("baseline", "baseline", 1.0, 0.0)


def lossless(name: str = "good", speed: float = 1.1, method: str = "dqar") -> Record:
    return made(name, method, speed, 0.03, 0.2, quality=paired(name, 0.03, 0.0))


def lossy(name: str = "lossy", speed: float = 1.4, method: str = "dqar") -> Record:
    return made(name, method, speed, 0.3, 0.3, quality=paired(name, 0.3, 0.02))


def unpaired(name: str, speed: float, converged: float, own: float = 0.05) -> Record:
    """A record that holds no drift from converged image by image."""
    around = {"low": 0.9 * converged, "high": 1.1 * converged}
    lost = quality(name, 0.04, own, drift_converged=Mean(mean=converged, **around))
    return made(name, "dqar", speed, 0.04, 0.2, quality=lost)


@pytest.mark.parametrize(
    ("added", "scatter", "n", "verdict"),
    [
        (0.0, 0.001, 24, "no loss"),
        (0.001, 0.0005, 24, "no loss"),  # surely worse, but by less than the margin of 0.0025
        (0.01, 0.001, 24, "loss"),
        (0.0025, 0.004, 24, "inconclusive"),  # the interval holds the margin
        (0.0, 0.001, 23, "inconclusive"),  # too few images, however close
        (0.01, 0.001, 23, "inconclusive"),
    ],
)
def test_no_loss_is_a_paired_difference_below_the_margin(
    added: float, scatter: float, n: int, verdict: str
) -> None:
    """Each verdict where the candidate lies so much above the baseline, image by image, on n images whose
    own drifts scatter far more than that; the margin is 5 % of the baseline's own 0.05 and a little more."""
    lost = paired("it", 0.03, added, scatter, n)
    assert selection.loss(made("it", "dqar", 1.1, 0.03, quality=lost)).verdict == verdict


def test_the_margin_is_the_suites() -> None:
    """What is a loss at 5 % is none at 50 %; the bound is that share of the baseline's mean drift."""
    record = made("it", "dqar", 1.1, 0.03, quality=paired("it", 0.03, 0.01, 0.001))
    assert record.quality is not None
    baseline = float(np.mean(record.quality.baseline_drift_converged_per_image))
    assert [selection.loss(record, margin).verdict for margin in (0.05, 0.5)] == ["loss", "no loss"]
    assert selection.loss(record, 0.5).bound == pytest.approx(0.5 * baseline)


def test_more_images_never_make_a_false_claim_easier() -> None:
    """A candidate worse by 0.008 on every image is a loss on 24 images as on 400, though the baseline's own
    interval, by which the unpaired comparison judged, would still reach over it on 24."""
    for n in (24, 400):
        lost = paired("it", 0.03, 0.008, 0.001, n)
        assert selection.loss(made("it", "dqar", 1.1, 0.03, quality=lost)).verdict == "loss"
    few = paired("it", 0.03, 0.008, 0.001, 24)
    assert few.drift_converged and few.baseline_drift_converged
    assert few.drift_converged.mean <= few.baseline_drift_converged.high


def test_records_without_single_images_support_no_claim() -> None:
    """They are recommended by their mean at best, and the text states that nothing is claimed."""
    near = unpaired("near", 1.1, converged=0.05)
    found = Selection([BASELINE, near])
    assert found.loss(near).verdict == "no claim"
    assert found.recommended == (near, "within the baseline's own")
    text = summary.headline(found, "a test") + " ".join(answer for _, answer in recommendation.answers(found))
    assert text.count("no claim") >= 2 and "without measurable loss" not in text


@pytest.mark.parametrize(
    ("records", "name", "basis"),
    [
        ([lossy(), lossless()], "good", "no loss"),
        ([lossless("slower", 1.05), lossless()], "good", "no loss"),
        ([unpaired("near", 1.3, 0.05), lossless()], "good", "no loss"),  # a claim before a faster mean
        ([lossy(), unpaired("near", 1.1, 0.05)], "near", "within the baseline's own"),
        ([lossy(), unpaired("far", 1.1, 0.06)], "far", "lowest drift"),
        ([lossy(), lossless("slow", 1.01)], "slow", "likeliest"),
        ([made("blind", "dqar", 1.4, 0.5, 0.3, quality=None)], "blind", "speed only"),
        ([], None, "none"),
    ],
)
def test_the_strongest_basis_is_recommended(records: list[Record], name: str | None, basis: str) -> None:
    """To use is the fastest without loss; else what comes nearest to that, and the basis states which."""
    chosen = Selection([BASELINE, *records]).recommended
    assert (chosen.record and chosen.record.name, chosen.basis) == (name, basis)


def answered(*records: Record) -> dict[str, str]:
    return dict(recommendation.answers(Selection([BASELINE, *records])))


def test_the_answers_are_about_the_recommended_configuration() -> None:
    """What to use, what it loses and what its cache holds are of the same record, with its intervals."""
    answers = answered(lossy(), lossless())
    assert answers["Which to use"].startswith("`good` at 1.10× [1.09, 1.11] ")
    assert "0.0300 [0.0273, 0.0327]" in answers["What it loses"]
    assert re.findall(r"`(.+?)` ([\d.]+) MB", answers["What its cache holds"])[0] == ("good", "2.7")
    assert "1.00 [0.99, 1.01]" in answers["How certain that is"]
    assert {"2 FASTER", "1 loss", "1 no loss"} <= set(
        re.findall(r"\d [a-zA-Z ]+", answers["How certain that is"])
    )


def test_the_images_that_decide_are_counted() -> None:
    """What was run distinguishes the images compared with the baseline from those that decide on loss."""
    counts = [
        int(number)
        for number in re.findall(r"(\d+) (?:images|of them)", answered(lossless())["What was run"])
    ]
    assert counts == [24, 24] or counts == [64, 24]
    none = made("bare", "dqar", 1.1, 0.03, quality=quality("bare", 0.03, n_converged=0))
    assert "which decides" not in dict(recommendation.answers(Selection([none])))["What was run"]


def test_who_shared_a_process_is_counted() -> None:
    """Separate processes, or as many at most as the fullest process had."""
    one = lossless()
    assert "separate process" in answered(one)["What was run"] and one.timing
    shared = one.timing.model_copy(update={"shared_with": ["baseline", "other"]})
    assert "up to 3 to a process" in answered(one.model_copy(update={"timing": shared}))["What was run"]


def test_nothing_finished_answers_nothing() -> None:
    """Where no run finished there is nothing to recommend."""
    assert recommendation.answers(Selection([failed()])) == []


def test_the_headline_compares_with_another_method() -> None:
    """Where a competitor leads, DQAR's best is named; where DQAR leads, the best of another method."""
    competitor = lossless("competitor", 1.5, "fora")
    assert [named(lossless(), competitor), named(lossless("better", 1.8), competitor)] == [
        ["competitor", "good"],
        ["better", "competitor"],
    ]


def named(*records: Record) -> list[str]:
    return re.findall("`(.+?)`", summary.headline(Selection([BASELINE, *records]), "a test"))


def test_the_headline_admits_that_nothing_was_gained() -> None:
    """Where all lose, the fastest and the lowest-drift are named; where none is faster, the fastest
    measured, with its interval."""
    slower = made("minor", "dqar", 1.2, 0.1, 0.3, quality=paired("minor", 0.1, 0.01))
    assert named(lossy(), slower) == ["lossy", "minor"]
    slow = made("slow", "dqar", 0.9, 0.01, 0.3)
    text = summary.headline(Selection([BASELINE, slow]), "a test")
    assert "`slow` at 0.90× [0.89, 0.91]" in text and "no configuration is faster" in text


def test_a_suite_about_memory_has_its_headline_about_memory() -> None:
    """It names what holds least and most, and the highest peak, not a speed."""
    small, large = made("small", "dqar", 1.1, 0.1), made("large", "dqar", 1.2, 0.1)
    held = memory().model_copy(update={"cache_bytes": 9_000_000, "rss_peak": 900_000_000})
    text = summary.memory_headline(
        Selection([BASELINE, small, large.model_copy(update={"memory": held})]), "a test"
    )
    assert re.findall(r"([\d.]+) MB \(`(\w+)`", text) == [
        ("2.7", "small"),
        ("9.0", "large"),
        ("900.0", "large"),
    ]
    assert "×" not in text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a | b\nc", r"a \| b c"),
        ("<script>x</script>", "&lt;script&gt;x&lt;/script&gt;"),
        ("[x](javascript:y) ![z](w)", r"\[x\](javascript:y) !\[z\](w)"),
        ("*a* `b` _c_ d_e \\", r"\*a\* \`b\` \_c\_ d_e \\"),
        ("a & b", "a &amp; b"),
    ],
)
def test_text_is_no_markup(text: str, shown: str) -> None:
    """What records hold cannot be markup, a link, HTML, nor leave its table cell."""
    assert escape(text) == shown


def test_a_name_stays_in_its_code() -> None:
    """Neither a backtick nor a line break nor a bar ends the code style of a name or its cell."""
    assert code("a`b|c\nd") == "`a'b¦c d`"
