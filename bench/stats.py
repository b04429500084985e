"""Statistics of paired measurements: ratios, bootstrap intervals, verdicts, the Pareto front."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bench.record import Interval, Mean, Median

Verdict = Literal["SAME", "FASTER", "SLOWER", "AMBIGUOUS"]
RESAMPLES = 10_000
LEVEL = 0.95
_ENDS = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)
_CHUNK = 4_000_000  # resampled values held at once: bounds memory for thousands of images
# Of fewer pairs even the widest interval of a median, from least to greatest, covers less than
# 1 - 2^(1-n) = 94 %: no verdict on them.
MIN_PAIRS = 5


def median_interval(values: ArrayLike, seed: int = 0) -> Median:
    """The median of a sample with its percentile bootstrap 95 % interval (Efron 1979).

    Args:
        values: Any shape, flattened; one value or more.
        seed: Of the resampling.

    Returns:
        In the unit of the values.

    Raises:
        ValueError: There is no value.
    """
    median, low, high = _interval(values, np.median, seed)
    return Median(median=median, low=low, high=high)


def mean_interval(values: ArrayLike, seed: int = 0) -> Mean:
    """The mean of a sample with its percentile bootstrap 95 % interval (Efron 1979).

    Args:
        values: Any shape, flattened; one value or more.
        seed: Of the resampling.

    Returns:
        In the unit of the values.

    Raises:
        ValueError: There is no value.
    """
    mean, low, high = _interval(values, np.mean, seed)
    return Mean(mean=mean, low=low, high=high)


def speedup(pairs: Sequence[tuple[float, float]], seed: int = 0) -> Median:
    """Median of the paired ratios baseline / candidate.

    Args:
        pairs: Seconds of (baseline, candidate), one pair or more.
        seed: Of the resampling of pairs.

    Returns:
        A ratio; above 1 the candidate is faster.

    Raises:
        ValueError: There is no pair.
    """
    seconds = np.asarray(pairs, dtype=float).reshape(-1, 2)
    return median_interval(seconds[:, 0] / seconds[:, 1], seed)


def ratio_of_medians(before: ArrayLike, after: ArrayLike, seed: int = 0) -> Median:
    """Median of one sample over that of another, unpaired: each is resampled independently.

    Args:
        before: The numerator's sample, flattened.
        after: The denominator's, flattened; of any other length.
        seed: Of the resampling of `before`; that of `after` has the next one.

    Returns:
        A ratio; above 1 `after` is smaller.
    """
    samples = [np.asarray(values, dtype=float).ravel() for values in (before, after)]
    drawn = [_resampled(sample, np.median, seed + i) for i, sample in enumerate(samples)]
    low, high = np.quantile(drawn[0] / drawn[1], _ENDS)
    return Median(median=float(np.median(samples[0]) / np.median(samples[1])), low=low, high=high)


def ratio_of_sums(parts: ArrayLike, wholes: ArrayLike, seed: int = 0) -> Mean:
    """Sum over sum, both of the same units, which are resampled.

    Args:
        parts: Of each unit, `[n]`.
        wholes: Of each unit, `[n]`, with a sum other than 0.
        seed: Of the resampling.

    Returns:
        The ratio of the sums.
    """
    units = np.column_stack([np.asarray(parts, dtype=float), np.asarray(wholes, dtype=float)])
    drawn, (part, whole) = _resampled(units, np.sum, seed), units.sum(axis=0)
    low, high = np.quantile(drawn[:, 0] / drawn[:, 1], _ENDS)
    return Mean(mean=float(part / whole), low=low, high=high)


def mean_difference(candidate: ArrayLike, baseline: ArrayLike, seed: int = 0) -> Mean:
    """The mean of candidate - baseline, paired: pairs are resampled, never their sides alone.

    Args:
        candidate: `[n]`.
        baseline: `[n]`, in the same order and unit.
        seed: Of the resampling.

    Returns:
        In the unit of both; above 0 the candidate's are larger.

    Raises:
        ValueError: n = 0.
    """
    return mean_interval(np.asarray(candidate, dtype=float) - np.asarray(baseline, dtype=float), seed)


def proportion(hits: int, n: int) -> Median:
    """A share of trials with its 95 % interval after Wilson (1927).

    Args:
        hits: Trials that count, 0 to `n`.
        n: Trials.

    Returns:
        hits / n; the interval stays within 0 to 1.

    Raises:
        ValueError: n = 0.
    """
    if not n:
        raise ValueError("a proportion needs at least one trial")
    z, share = NormalDist().inv_cdf((1 + LEVEL) / 2), hits / n
    middle, room = share + z * z / (2 * n), z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    return Median(median=share, low=max(0.0, (middle - room) / scale), high=min(1.0, (middle + room) / scale))


def verdict(ratio: Interval, threshold: float) -> tuple[Verdict, str]:
    """Whether a ratio baseline / candidate differs from 1 by more than `threshold`, and why.

    As in nvbench-compare, AMBIGUOUS means neither changed nor unchanged: the interval is too wide
    for either. SAME needs the whole interval within 1 ± threshold; FASTER and SLOWER need the whole
    interval on one side of 1 and the value beyond the threshold.

    Args:
        ratio: Median of the paired ratios baseline / candidate, with its interval.
        threshold: Smallest relative change that counts, above 0 and below 1.

    Returns:
        The verdict, and a clause with the values that it rests on.
    """
    shown = f"{ratio.value:.3f} [{ratio.low:.3f}, {ratio.high:.3f}]"
    if 1 - threshold <= ratio.low and ratio.high <= 1 + threshold:
        return "SAME", f"{shown} lies within 1 ± {threshold:g}"
    if ratio.low > 1 and ratio.value > 1 + threshold:
        return "FASTER", f"{shown} lies above 1, the median beyond {1 + threshold:g}"
    if ratio.high < 1 and ratio.value < 1 - threshold:
        return "SLOWER", f"{shown} lies below 1, the median beyond {1 - threshold:g}"
    return "AMBIGUOUS", f"{shown} is too wide or too near 1 ± {threshold:g}"


class Timed(NamedTuple):
    """What the pairs of one configuration come to: the derived fields of a record's timing."""

    speedup: Median
    baseline_s: Median
    candidate_s: Median
    verdict: Verdict
    verdict_why: str


def timed(
    undisturbed: Sequence[tuple[float, float]], n_undisturbed: int, threshold: float, seed: int
) -> Timed:
    """The derived fields of a timing, from its raw pairs.

    Args:
        undisturbed: (baseline, candidate) seconds of the pairs that count (`Timing.undisturbed`).
        n_undisturbed: How many pairs were not contaminated; below MIN_PAIRS there is no verdict.
        threshold: Smallest relative change that counts.
        seed: Of the bootstrap.

    Returns:
        Speedup, seconds of both arms, verdict and its reason.
    """
    ratio = speedup(undisturbed, seed)
    outcome, why = verdict(ratio, threshold)
    if n_undisturbed < MIN_PAIRS:
        outcome, why = "AMBIGUOUS", f"{n_undisturbed} undisturbed pairs carry no verdict; needed: {MIN_PAIRS}"
    baseline, candidate = (median_interval([pair[arm] for pair in undisturbed], seed) for arm in (0, 1))
    return Timed(ratio, baseline, candidate, outcome, why)


def pareto(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Which points no other point dominates: by gaining as much and losing as little, and not being equal.

    Gain is better higher (a speedup), loss better lower (an error). Equal points are both on the front.

    Args:
        points: (gain, loss) of each.

    Returns:
        For each point whether it is on the front, in order.
    """
    return [not any(_dominates(other, point) for other in points) for point in points]


def _dominates(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return one[0] >= other[0] and one[1] <= other[1] and one != other


def _interval(
    values: ArrayLike, statistic: Callable[..., NDArray[np.float64]], seed: int
) -> tuple[float, float, float]:
    sample = np.asarray(values, dtype=float).ravel()
    if not sample.size:
        raise ValueError("an interval needs at least one value")
    low, high = np.quantile(_resampled(sample, statistic, seed), _ENDS)
    return float(statistic(sample)), float(low), float(high)


def _resampled(
    sample: NDArray[np.float64], statistic: Callable[..., NDArray[np.float64]], seed: int
) -> NDArray[np.float64]:
    """Percentile bootstrap (Efron 1979): the statistic of RESAMPLES draws of rows with replacement."""
    rng = np.random.default_rng(seed)
    rows = max(1, _CHUNK // sample.size)
    counts = [min(rows, RESAMPLES - start) for start in range(0, RESAMPLES, rows)]
    draws = (rng.integers(len(sample), size=(count, len(sample))) for count in counts)
    return np.concatenate([statistic(sample[draw], axis=1) for draw in draws])
