"""The phrases that reports share: a metric of one record with its interval, always in the same form.

`tests/test_report_sentences.py` recognises each form and recomputes its numbers from the records.
"""

# ruff: noqa: RUF001 - the sign × is meant

from __future__ import annotations

from bench.record import Interval, Record
from bench.report.escape import code
from bench.report.selection import MIN_IMAGES, Loss
from bench.report.tables.columns import fixed, shown_with_interval, significant

three = significant(3)
_times = fixed(2, "×")


def with_interval(value: Interval) -> str:
    """`0.0538 [0.0473, 0.0608]`."""
    return shown_with_interval(value, three)


def times(value: Interval) -> str:
    """`1.10× [1.08, 1.11]`."""
    return f"{_times(value.value)} [{value.low:.2f}, {value.high:.2f}]"


def named(record: Record) -> str:
    """`name` (method)."""
    return f"{code(record.name)} ({record.method})"


def speed(record: Record) -> str:
    """`name` at 1.10× [1.08, 1.11] the baseline's speed."""
    if record.timing is None:
        return f"{code(record.name)}, which was not timed,"
    return f"{code(record.name)} at {times(record.timing.speedup)} the baseline's speed"


def drift(record: Record) -> str:
    """The drift from the baseline, with its interval."""
    if record.quality is None:
        return "drift not measured"
    return f"drift from the baseline {with_interval(record.quality.drift)}"


def converged(record: Record) -> str:
    """The drift from the converged trajectory, and the baseline's own; empty where not measured."""
    quality = record.quality
    if quality is None or quality.drift_converged is None or quality.baseline_drift_converged is None:
        return ""
    return (
        f"drift from the converged trajectory {with_interval(quality.drift_converged)}, the baseline's own "
        f"{with_interval(quality.baseline_drift_converged)}, over {quality.n_converged} images"
    )


def difference(found: Loss) -> str:
    """The paired difference with the margin that it is held against, or why there is none."""
    if found.difference is None or found.bound is None:
        return "not measured pair by pair: no claim"
    shown = f"paired difference {with_interval(found.difference)} over {found.n} images"
    if found.n < MIN_IMAGES:
        return f"{shown}, too few to decide: at least {MIN_IMAGES} are needed"
    return f"{shown}, margin {three(found.bound)}: {found.verdict}"
