"""Values of a record that follow from its raw samples, calculated again: a forged one does not agree."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from bench import stats
from bench.record import Interval, Quality, Record, Timing

_REL, _ABS = 1e-6, 1e-12  # what rounding in another order may change
THRESHOLD = 0.02  # of the verdict, where the configuration states none


def inconsistency(record: Record) -> str | None:
    """Look for a derived value that its raw samples do not give.

    Args:
        record: A record that the schema allows.

    Returns:
        The first such field, its value and the calculated one, in one line; None where all agree.
    """
    return next(_differing(record), None)


def _differing(record: Record) -> Iterator[str]:
    for checks in (_timing(record), _quality(record), _limits(record), _reuse(record)):
        for field, value, expected in checks:
            if not _agree(value, expected):
                yield f"{field} is {_shown(value)}, its raw samples give {_shown(expected)}"


Check = tuple[str, Any, Any]  # field, recorded value, value calculated again


def _timing(record: Record) -> Iterator[Check]:
    timing = record.timing
    if timing is None:
        return
    yield "timing.pairs", _usable(timing), True
    if not _usable(timing):
        return
    yield "timing.contaminated_why", len(timing.contaminated_why), len(timing.contaminated)
    seed, threshold = _setting(record, "seed", 0), _setting(record, "timing.verdict_threshold", THRESHOLD)
    undisturbed = len(timing.pairs) - len(timing.contaminated)
    derived = stats.timed(timing.undisturbed, undisturbed, float(threshold), int(seed))
    for field in ("speedup", "baseline_s", "candidate_s", "verdict"):
        yield f"timing.{field}", getattr(timing, field), getattr(derived, field)


def _usable(timing: Timing) -> bool:
    """Whether there are pairs, all of them longer than nothing, and the indices are of pairs."""
    numbers = set(range(len(timing.pairs)))
    indices = timing.contaminated
    positive = all(seconds > 0 for pair in timing.pairs for seconds in pair)
    return bool(timing.pairs) and positive and set(indices) <= numbers and len(set(indices)) == len(indices)


def _quality(record: Record) -> Iterator[Check]:
    quality = record.quality
    if quality is None or not quality.drift_per_image:
        return
    drifts = quality.drift_per_image
    yield "quality.n", quality.n, len(drifts)
    yield "quality.drift", quality.drift, stats.mean_interval(drifts)
    yield "quality.identical", quality.identical, max(drifts) == 0
    if quality.worst:
        yield "quality.worst", quality.worst[0].drift, max(drifts)
    yield from _converged(quality)
    yield from _text_score(quality)


def _converged(quality: Quality) -> Iterator[Check]:
    """The drifts from the converged trajectory, where they were recorded image by image."""
    for field in ("drift_converged", "baseline_drift_converged"):
        drifts = getattr(quality, f"{field}_per_image")
        if drifts:
            yield f"quality.{field}_per_image", len(drifts), quality.n_converged
            yield f"quality.{field}", getattr(quality, field), stats.mean_interval(drifts)


def _text_score(quality: Quality) -> Iterator[Check]:
    """The text scores of both arms and their difference, where they were recorded image by image."""
    own, before = quality.text_score_per_image, quality.baseline_text_score_per_image
    if not own:
        return
    yield "quality.text_score_per_image", len(own), quality.n
    yield "quality.baseline_text_score_per_image", len(before), len(own)
    yield "quality.text_score", quality.text_score, stats.mean_interval(own)
    yield "quality.baseline_text_score", quality.baseline_text_score, stats.mean_interval(before)
    if len(own) == len(before):
        change = [a - b for a, b in zip(own, before, strict=True)]
        yield "quality.text_score_change", quality.text_score_change, stats.mean_interval(change)


def _limits(record: Record) -> Iterator[Check]:
    limits, timing = record.limits, record.timing
    if limits is None or timing is None:
        return
    if limits.realised is not None and limits.speedup_limit != 1:
        gain = (timing.speedup.median - 1) / (limits.speedup_limit - 1)
        yield "limits.realised", limits.realised, gain
    if timing.baseline_s.median > 0 and limits.flops_per_second is not None:
        rate = limits.flops_generation / timing.baseline_s.median
        yield "limits.flops_per_second", limits.flops_per_second, rate
    if limits.peak and limits.flops_per_second is not None:
        yield "limits.mfu", limits.mfu, limits.flops_per_second / limits.peak


def _reuse(record: Record) -> Iterator[Check]:
    reuse = record.reuse
    calls = [call for step in reuse.map for call in step] if reuse else []
    if reuse and calls:
        yield "reuse.ratio", reuse.ratio, sum(calls) / len(calls)


def _setting(record: Record, path: str, default: float) -> float:
    """A number of the configuration, as recorded; the default where it states none."""
    value: Any = record.config
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value if isinstance(value, int | float) else default


def _agree(value: Any, expected: Any) -> bool:
    if isinstance(value, Interval) and isinstance(expected, Interval):
        ends = ((value.low, expected.low), (value.value, expected.value), (value.high, expected.high))
        return all(_agree(one, other) for one, other in ends)
    if isinstance(value, float) and isinstance(expected, int | float):
        return math.isclose(value, expected, rel_tol=_REL, abs_tol=_ABS)
    return bool(value == expected)


def _shown(value: Any) -> str:
    if isinstance(value, Interval):
        return f"{value.value:.6g} [{value.low:.6g}, {value.high:.6g}]"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
