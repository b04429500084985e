"""What a reader asks first, answered above the tables: what was run, what to use, what is lost, how sure."""

# ruff: noqa: RUF001 - the sign × is meant

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from bench.record import Record
from bench.report.escape import code
from bench.report.selection import Selection, limit
from bench.report.tables.columns import interval
from bench.report.text import phrases

_BRACKETS = "Brackets are 95 % intervals."
_REASONS = {
    "no loss": "{}: the fastest without measurable loss.",
    "within the baseline's own": (
        "{}: the fastest whose mean drift from the converged trajectory is within the baseline's own."
    ),
    "speed only": "{}, by speed only: quality was not measured.",
    "none": "The untouched baseline: no configuration is faster.",
}


def answers(selection: Selection) -> list[tuple[str, str]]:
    """Answer what a reader asks.

    Args:
        selection: the suite's records and the margin of loss.

    Returns:
        Question and answer, in the order in which they are asked; none where nothing finished.
    """
    if not selection.finished:
        return []
    if not any(record.timing for record in selection.finished):
        return [("What was run", _run(selection)), ("How certain that is", _BRACKETS)]
    chosen = selection.recommended.record
    return [
        ("What was run", _run(selection)),
        ("Which to use", _which(selection)),
        ("What it loses", _lost(selection, chosen)),
        *_held(selection, chosen),
        ("How certain that is", _certain(selection)),
    ]


def _which(selection: Selection) -> str:
    record, basis = selection.recommended
    if record is None:
        return _REASONS["none"]
    gain = phrases.speed(record)
    if basis == "likeliest":
        return (
            f"None is faster without more drift. The likeliest is {gain}, where counted FLOPs allow "
            f"{limit(record):.2f}×."
        )
    if basis == "lowest drift":
        known = record.quality and record.quality.drift_converged
        why = "None is faster without more drift" if known else "What drift is a loss is unknown"
        return f"{why}. Of those that are faster, the lowest-drift one is {gain}."
    return _REASONS[basis].format(gain)


def _run(selection: Selection) -> str:
    timed = [record.timing for record in selection.finished if record.timing]
    measured = [record.quality for record in selection.finished if record.quality]
    shared = max((len(timing.shared_with) for timing in timed), default=0)
    n = len(selection.records)
    process = f"up to {shared + 1} to a process, which share each baseline's seconds" if shared else (
        "each in a separate process"
    )  # fmt: skip
    parts = [f"{n} configuration{'s' * (n != 1)}, {process if timed else 'nothing timed'}"]
    if timed:
        pairs = _range([len(timing.pairs) for timing in timed])
        parts.append(f"{pairs} timed pairs of generations, interleaved with the untouched baseline")
    if measured:
        parts.append(
            f"{_range([q.n for q in measured])} images compared with the baseline's of the same noise"
        )
        if deciding := [q.n_converged for q in measured if q.n_converged]:
            parts.append(f"{_range(deciding)} of them with the converged trajectory, which decides on loss")
    return "; ".join(parts) + "."


def _range(numbers: Sequence[int]) -> str:
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low} to {high}"


def _lost(selection: Selection, record: Record | None) -> str:
    if record is None:
        return "Nothing."
    quality = record.quality
    if quality is None:
        return "Not measured in this suite."
    parts = [
        f"{phrases.drift(record)[:1].upper()}{phrases.drift(record)[1:]} (relative L2; 0: the same image)"
    ]
    if quality.psnr_db:
        parts.append(f"mean PSNR {quality.psnr_db.mean:.1f} dB")
    if quality.worst:
        parts.append(f"the worst of {quality.n} images drifts by {phrases.three(quality.worst[0].drift)}")
    if near := phrases.converged(record):
        parts += [near, phrases.difference(selection.loss(record))]
    return "; ".join(parts) + "."


def _held(selection: Selection, chosen: Record | None) -> list[tuple[str, str]]:
    """What caches hold, where memory was measured."""
    held = {r.name: r.memory.cache_bytes / 1e6 for r in selection.finished if r.memory}
    if not held:
        return []
    most = max(held, key=lambda name: held[name])
    cached = f"{code(chosen.name)} {held[chosen.name]:.1f} MB; " if chosen and chosen.name in held else ""
    return [("What its cache holds", f"{cached}the most of all is {code(most)} {held[most]:.1f} MB.")]


def _certain(selection: Selection) -> str:
    """What the control shows of the timing, and how many verdicts there are."""
    parts = [_BRACKETS]
    control = next((r.timing for r in selection.controls if r.timing), None)
    if control:
        parts.append(
            f"The baseline against itself: {interval(control.speedup, 2)}; a speedup within that interval is "
            "no evidence."
        )
    verdicts = Counter(r.timing.verdict for r in selection.candidates if r.timing)
    counted = ", ".join(f"{count} {verdict}" for verdict, count in sorted(verdicts.items()))
    if counted:
        parts.append(f"Verdicts on speed: {counted}.")
    lossy = Counter(selection.loss(r).verdict for r in selection.candidates if r.quality)
    losses = ", ".join(f"{count} {verdict}" for verdict, count in sorted(lossy.items()))
    if losses:
        parts.append(f"Verdicts on loss: {losses}.")
    return " ".join(parts)
