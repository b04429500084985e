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
    """Show a value with its interval, as 0.0538 [0.0473, 0.0608].

    Args:
        value: a drift, or a number of that size.

    Returns:
        The phrase, three significant digits.
    """
    return shown_with_interval(value, three)


def times(value: Interval) -> str:
    """Show a ratio with its interval, as 1.10× [1.08, 1.11].

    Args:
        value: the ratio with its interval.

    Returns:
        The phrase.
    """
    return f"{_times(value.value)} [{value.low:.2f}, {value.high:.2f}]"


def named(record: Record) -> str:
    """Name a configuration, as `name` (method).

    Args:
        record: the record of one configuration.

    Returns:
        The phrase, in Markdown.
    """
    return f"{code(record.name)} ({record.method})"


def speed(record: Record) -> str:
    """Report a speedup, as `name` at 1.10× [1.08, 1.11] the baseline's speed.

    Args:
        record: the record of one configuration.

    Returns:
        The phrase, in Markdown; of one without timing that it was not timed.
    """
    if record.timing is None:
        return f"{code(record.name)}, which was not timed,"
    return f"{code(record.name)} at {times(record.timing.speedup)} the baseline's speed"


def drift(record: Record) -> str:
    """Report the drift from the baseline, with its interval.

    Args:
        record: the record of one configuration.

    Returns:
        The phrase; of one without quality that it was not measured.
    """
    if record.quality is None:
        return "drift not measured"
    return f"drift from the baseline {with_interval(record.quality.drift)}"


def converged(record: Record) -> str:
    """Report the drift from the converged trajectory, and the baseline's own.

    Args:
        record: the record of one configuration.

    Returns:
        The phrase; empty where not measured.
    """
    quality = record.quality
    if quality is None or quality.drift_converged is None or quality.baseline_drift_converged is None:
        return ""
    return (
        f"drift from the converged trajectory {with_interval(quality.drift_converged)}, the baseline's own "
        f"{with_interval(quality.baseline_drift_converged)}, over {quality.n_converged} images"
    )


def difference(loss: Loss) -> str:
    """Report the paired difference with the margin that it is held against.

    Args:
        loss: the verdict on a configuration.

    Returns:
        The phrase, or why there is no difference.
    """
    if loss.difference is None or loss.bound is None:
        return "not measured pair by pair: no claim"
    shown = f"paired difference {with_interval(loss.difference)} over {loss.n} images"
    if loss.n < MIN_IMAGES:
        return f"{shown}, too few to decide: at least {MIN_IMAGES} are needed"
    return f"{shown}, margin {three(loss.bound)}: {loss.verdict}"
