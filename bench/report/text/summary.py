"""The headline of a suite's report: with intervals, that claims no more than was measured."""

from __future__ import annotations

from bench.record import Record
from bench.report.selection import OURS, Selection, speed
from bench.report.tables.columns import fixed
from bench.report.text import phrases

_megabytes = fixed(1, " MB")


def headline(selection: Selection, setup: str) -> str:
    """Sum up a suite.

    Args:
        selection: The suite's records and margin.
        setup: What was run on what, see `bench.report.setup`.

    Returns:
        One or two sentences of Markdown.
    """
    if not selection.finished:
        return f"On {setup}, no configuration finished; see the failures below."
    if not selection.faster:
        return f"On {setup}, no configuration is faster than the baseline{_nearest(selection)}."
    return f"On {setup}, {_recommended(selection)}{_alternative(selection)}."


def _recommended(selection: Selection) -> str:
    record, basis = selection.recommended
    assert record is not None  # something is faster
    fastest = selection.faster[0]
    gain = phrases.speed(record)
    paired = phrases.difference(selection.loss(record))
    if basis == "no loss":
        return f"use {gain}: {phrases.drift(record)}; {phrases.converged(record)} ({paired})"
    if basis == "within the baseline's own":
        return (
            "the fastest whose mean drift from the converged trajectory is within the baseline's own is "
            f"{gain}: {phrases.drift(record)}; {phrases.converged(record)} ({paired})"
        )
    if basis == "speed only":
        return f"the fastest is {gain}; its quality was not measured"
    return f"the fastest is {phrases.speed(fastest)}, {phrases.drift(fastest)}{_lossy(selection)}"


def _lossy(selection: Selection) -> str:
    """What the faster configurations lose, where none keeps to the baseline's own drift."""
    if selection.baseline_drift is None:
        return "; the converged trajectory was not measured, so whether that is a loss is unknown"
    lowest = selection.lowest_drift
    text = "; every faster configuration drifts further from the converged trajectory than the baseline"
    if lowest is None or lowest is selection.faster[0]:
        return text
    return f"{text}, the lowest-drift one is {phrases.speed(lowest)}, {phrases.drift(lowest)}"


def _alternative(selection: Selection) -> str:
    """What DQAR reaches, where another method is named first; else what another method reaches."""
    lead, other = selection.lead, selection.alternative()
    ours = lead is not None and lead.method == OURS
    if other is not None:
        whose = "the best of another method" if ours else "DQAR's best"
        return f"; {whose} is {phrases.speed(other)}, {phrases.drift(other)}"
    measured = any(record.method == OURS for record in selection.candidates)
    return "; no DQAR configuration is faster than the baseline" if measured and not ours else ""


def _nearest(selection: Selection) -> str:
    timed = [record for record in selection.candidates if record.timing]
    best = max(timed, key=speed, default=None)
    return f"; the fastest measured is {phrases.speed(best)}{_doubt(best)}" if best else ""


def _doubt(record: Record) -> str:
    """Why it does not count as faster although its interval lies above 1."""
    timing = record.timing
    return f", but {timing.verdict_why}" if timing and timing.speedup.low > 1 and timing.verdict_why else ""


def memory_headline(selection: Selection, setup: str) -> str:
    """Sum up a suite about memory: what caches hold, and the peaks.

    Args:
        selection: The suite's records.
        setup: What was run on what, see `bench.report.setup`.

    Returns:
        One or two sentences of Markdown.
    """
    held = [(r.memory.cache_bytes, r) for r in selection.candidates if r.memory and r.memory.cache_bytes]
    if not held:
        return f"On {setup}, no cache was measured."
    (least, smallest), (most, largest) = min(held, key=_first), max(held, key=_first)
    return (
        f"On {setup}, caches hold from {_megabytes(least / 1e6)} ({phrases.named(smallest)}) to "
        f"{_megabytes(most / 1e6)} ({phrases.named(largest)}){_peak(selection)}."
    )


def _peak(selection: Selection) -> str:
    for field, where in (("torch_allocated_peak", "on the device"), ("rss_peak", "in host memory")):
        peaks = [(peak, r) for r in selection.finished if (peak := getattr(r.memory, field, None))]
        if peaks:
            peak, record = max(peaks, key=_first)
            return f"; the highest peak {where} is {_megabytes(peak / 1e6)} ({phrases.named(record)})"
    return ""


def _first(pair: tuple[int, Record]) -> int:
    return pair[0]
