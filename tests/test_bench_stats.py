"""Statistics of paired measurements against cases worked out by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from bench import stats
from bench.record import Estimate, Interval, Mean, Median


def test_speedup_is_the_median_of_paired_ratios() -> None:
    """Ratios are taken within pairs, so a slow period that affects both arms changes nothing."""
    ratio = stats.speedup([(2.0, 1.0), (20.0, 10.0), (3.0, 1.0)])
    assert ratio.median == 2.0
    assert ratio.low == 2.0
    assert ratio.high == 3.0


def test_interval_of_a_mean_agrees_with_the_normal_one() -> None:
    """The bootstrap interval of a mean of 400 normals is 1.96 standard errors wide each side."""
    values = np.random.default_rng(1).normal(5.0, 2.0, 400)
    interval = stats.mean_interval(values)
    error = 1.96 * values.std() / 20
    assert interval.high - interval.mean == pytest.approx(error, rel=0.1)
    assert interval.mean - interval.low == pytest.approx(error, rel=0.1)


def test_ratio_of_unpaired_medians() -> None:
    """Samples of different length that do not vary give their ratio, exactly; those that do, an interval."""
    exact = stats.ratio_of_medians([3.0] * 4, [2.0] * 7)
    assert (exact.low, exact.median, exact.high) == (1.5, 1.5, 1.5)
    rng = np.random.default_rng(3)
    wide = stats.ratio_of_medians(rng.normal(3, 0.3, 20), rng.normal(2, 0.2, 30))
    assert wide.low < 1.5 < wide.high


def test_ratio_of_sums_weighs_units_by_their_size() -> None:
    """A large unit counts for more than a small one, and units are drawn whole."""
    ratio = stats.ratio_of_sums([1.0, 90.0], [10.0, 100.0])
    assert ratio.mean == pytest.approx(91 / 110)
    assert (ratio.low, ratio.high) == pytest.approx((0.1, 0.9))


def test_interval_covers_the_median_as_often_as_it_claims() -> None:
    """Over 200 samples of 9 the interval covers the true median in at least 90 % of them."""
    rng = np.random.default_rng(2)
    intervals = [stats.median_interval(rng.normal(1.0, 0.05, 9)) for _ in range(200)]
    assert sum(i.low <= 1.0 <= i.high for i in intervals) >= 180


def test_intervals_are_seeded() -> None:
    """The same values and seed give the same interval; another seed gives another one."""
    values = np.random.default_rng(0).random(50)
    assert stats.mean_interval(values, 1) == stats.mean_interval(values, 1)
    assert stats.mean_interval(values, 1) != stats.mean_interval(values, 2)


VALUES = np.random.default_rng(5).random((40, 2)) + 0.5


@pytest.mark.parametrize(
    "interval",
    [
        lambda *seed: stats.median_interval(VALUES[:, 0], *seed),
        lambda *seed: stats.mean_interval(VALUES[:, 0], *seed),
        lambda *seed: stats.speedup([(one, other) for one, other in VALUES], *seed),
        lambda *seed: stats.ratio_of_medians(VALUES[:, 0], VALUES[:, 1], *seed),
        lambda *seed: stats.ratio_of_sums(VALUES[:, 0], VALUES[:, 1], *seed),
        lambda *seed: stats.mean_difference(VALUES[:, 0], VALUES[:, 1], *seed),
    ],
)
def test_every_interval_has_its_seed(
    interval: Callable[..., Interval], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each kind of interval is the same for the same seed, another for another; unless stated, it is 0."""
    monkeypatch.setattr(stats, "RESAMPLES", 50)  # of 10,000 even another seed's ends are mostly the same
    assert interval() == interval(0) != interval(1) == interval(1)


@pytest.mark.parametrize("n", [1, 7, 900])
def test_as_many_draws_as_promised(n: int) -> None:
    """A bootstrap has 10,000 draws, whether they are held at once or in parts."""
    assert len(stats._resampled(np.arange(n, dtype=float), np.mean, 0)) == 10_000


def test_interval_of_nothing_is_an_error() -> None:
    """No values, no interval."""
    with pytest.raises(ValueError, match="at least one"):
        stats.median_interval([])


@pytest.mark.parametrize(
    ("low", "median", "high", "verdict"),
    [
        (0.99, 1.0, 1.01, "SAME"),
        (1.05, 1.1, 1.2, "FASTER"),
        (0.8, 0.9, 0.99, "SLOWER"),
        (0.9, 1.0, 1.1, "AMBIGUOUS"),  # too wide
        (1.005, 1.015, 1.03, "AMBIGUOUS"),  # faster, but by less than counts
        (0.97, 0.985, 0.995, "AMBIGUOUS"),  # slower, but by less than counts
        (0.9, 1.1, 1.2, "AMBIGUOUS"),  # faster, but not certainly
        (0.8, 0.9, 1.1, "AMBIGUOUS"),  # slower, but not certainly
    ],
)
def test_verdicts(low: float, median: float, high: float, verdict: str) -> None:
    """Each verdict is given for the interval it names, with the values as its reason."""
    given, why = stats.verdict(Median(median=median, low=low, high=high), threshold=0.02)
    assert given == verdict
    assert f"{median:.3f}" in why


@pytest.mark.parametrize(
    ("low", "median", "high", "verdict"),
    [
        (0.75, 1.0, 1.25, "SAME"),  # as wide as the threshold allows
        (1.0, 1.5, 2.0, "AMBIGUOUS"),  # from 1 itself
        (1.125, 1.25, 1.5, "AMBIGUOUS"),  # the median no further than the threshold
        (0.25, 0.5, 1.0, "AMBIGUOUS"),
        (0.5, 0.75, 0.875, "AMBIGUOUS"),
    ],
)
def test_verdicts_at_their_bounds(low: float, median: float, high: float, verdict: str) -> None:
    """The ends of what is SAME belong to it; FASTER and SLOWER begin beyond their bounds."""
    assert stats.verdict(Median(median=median, low=low, high=high), threshold=0.25)[0] == verdict


def test_a_verdict_names_its_bound() -> None:
    """The reason holds the bound that the median is beyond."""
    faster = stats.verdict(Median(median=1.5, low=1.4, high=1.6), threshold=0.02)
    assert faster == ("FASTER", "1.500 [1.400, 1.600] lies above 1, the median beyond 1.02")
    slower = stats.verdict(Median(median=0.5, low=0.4, high=0.6), threshold=0.02)
    assert slower == ("SLOWER", "0.500 [0.400, 0.600] lies below 1, the median beyond 0.98")


def test_a_proportion_by_hand() -> None:
    """Wilson's interval of 8 of 10 is 0.490 to 0.943; it ends within 0 and 1 where all or none hit."""
    share = stats.proportion(8, 10)
    assert (share.low, share.median, share.high) == pytest.approx((0.49016, 0.8, 0.94332), abs=1e-5)
    none = stats.proportion(0, 10)
    assert (none.low, none.median, none.high) == pytest.approx((0.0, 0.0, 0.27754), abs=1e-5)
    with pytest.raises(ValueError, match="at least one trial"):
        stats.proportion(0, 0)


def test_pareto_front() -> None:
    """A point is on the front unless another gains as much and loses as little."""
    assert stats.pareto([(1.0, 0.5), (1.25, 0.5), (1.25, 0.75)]) == [False, True, False]
    points = [(1.0, 0.0), (1.2, 0.1), (1.1, 0.2), (1.5, 0.3), (1.5, 0.3), (1.5, 0.4)]
    assert stats.pareto(points) == [True, True, False, True, True, False]
    assert stats.pareto([]) == []


def test_a_paired_difference_resamples_pairs() -> None:
    """Where images differ widely but each candidate lies 0.01 above its own baseline, the paired interval is
    as narrow as that difference, which the two means' own intervals are not."""
    rng = np.random.default_rng(4)
    baseline = rng.lognormal(-3, 0.8, 24)
    candidate = baseline + 0.01 + rng.normal(0, 0.001, 24)
    difference = stats.mean_difference(candidate, baseline)
    assert difference.mean == pytest.approx(0.01, abs=0.001) and difference.half_width < 0.001
    assert stats.mean_interval(baseline).half_width > 10 * difference.half_width


def test_what_pairs_come_to() -> None:
    """Speedup, seconds of each arm and verdict follow from the pairs; fewer than five undisturbed pairs
    carry no verdict however clear the ratio."""
    pairs = [(2.0, 1.0), (2.2, 1.0), (2.4, 1.2), (2.0, 1.0), (2.6, 1.3)]
    timing = stats.timed(pairs, 5, 0.02, seed=0)
    assert (timing.speedup.median, timing.baseline_s.median, timing.candidate_s.median) == (2.0, 2.2, 1.0)
    assert timing.verdict == "FASTER"
    other = stats.timed(pairs, 5, 0.02, seed=7)
    assert other.speedup == stats.speedup(pairs, 7)
    assert other.baseline_s == stats.median_interval([2.0, 2.2, 2.4, 2.0, 2.6], 7)
    few = stats.timed(pairs[:4], 4, 0.02, seed=0)
    assert few.verdict == "AMBIGUOUS" and "4 undisturbed" in few.verdict_why


def test_what_pairs_come_to_is_seeded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The intervals of speedup and seconds are those of the seed."""
    monkeypatch.setattr(stats, "RESAMPLES", 50)
    pairs = [(one, other) for one, other in VALUES]
    timing = stats.timed(pairs, 40, 0.02, seed=7)
    assert timing.speedup == stats.speedup(pairs, 7) != stats.speedup(pairs, 0)
    assert timing.baseline_s == stats.median_interval(VALUES[:, 0], 7) != stats.median_interval(VALUES[:, 0])


def test_an_interval_knows_its_value_and_width() -> None:
    """Each kind gives its own statistic as the value, half the width absolute and relative, and whether a
    number lies inside, the ends included."""
    median, mean = Median(median=2.0, low=1.0, high=4.0), Mean(mean=2.5, low=1.0, high=4.0)
    assert (median.value, mean.value, Estimate.exact(3.0).value) == (2.0, 2.5, 3.0)
    assert (median.half_width, median.relative_half_width) == (1.5, 0.75)
    assert [median.contains(x) for x in (0.9, 1.0, 4.0, 4.1)] == [False, True, True, False]


def test_a_ratio_of_intervals_is_as_wide_as_both() -> None:
    """The ratio reaches from the least over the greatest to the greatest over the least."""
    ratio = Median(median=6.0, low=4.0, high=8.0).over(Mean(mean=2.0, low=1.0, high=4.0))
    assert (ratio.value, ratio.low, ratio.high) == (3.0, 1.0, 8.0)


@pytest.mark.parametrize(("low", "median", "high"), [(2.0, 1.0, 3.0), (0.0, 4.0, 3.0), (3.0, 2.0, 1.0)])
def test_an_interval_in_the_wrong_order_is_refused(low: float, median: float, high: float) -> None:
    """A value outside its interval, or ends that are swapped, are no interval."""
    with pytest.raises(ValueError, match="order"):
        Median(median=median, low=low, high=high)
