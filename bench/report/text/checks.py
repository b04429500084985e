"""What a reader must know about the measurement itself: warnings, controls and excluded pairs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from bench.record import Record
from bench.report.escape import code
from bench.report.selection import Selection
from bench.report.tables.columns import interval
from bench.report.text import phrases


def warnings(selection: Selection) -> list[str]:
    """Name configurations that did nothing, or the same as another, and controls that are off.

    Args:
        selection: the suite's records, with what follows from them.

    Returns:
        One line each; none where all is well.
    """
    return [*_did_nothing(selection), *_twins(selection.finished), *_bad_controls(selection)]


def _did_nothing(selection: Selection) -> list[str]:
    lines = []
    for record in selection.candidates:
        idle = record.reuse is not None and not record.reuse.ratio and not record.reuse.conditional_only
        same = record.quality is not None and record.quality.identical
        faults = ["reused nothing"] * idle + ["gave images identical to the baseline's"] * same
        lines += [f"{code(record.name)} {' and '.join(faults)}."] if faults else []
    return lines


def _twins(records: Sequence[Record]) -> list[str]:
    """Two configurations with the same digest of latents: the option between them changes nothing.
    Those identical to the baseline are named already."""
    drawn = [(r.name, r.quality.latents_sha256) for r in records if r.quality and not r.quality.identical]
    return [
        f"{code(a)} and {code(b)} gave identical images: what differs between them changes nothing."
        for (a, digest_a), (b, digest_b) in combinations(drawn, 2)
        if digest_a == digest_b
    ]


def _bad_controls(selection: Selection) -> list[str]:
    if not selection.controls:
        return ["The suite has no finished control: the baseline was not measured against itself."]
    off = [r for r in selection.controls if not _covers_one(r) and r.timing and r.timing.verdict != "SAME"]
    drifted = [r for r in selection.controls if r.quality and r.quality.drift.mean != 0]
    return [
        *[f"The control {code(r.name)} is off: the baseline against itself is not 1." for r in off],
        *[f"The control {code(r.name)} drifts from itself: it is not deterministic." for r in drifted],
    ]


def _covers_one(record: Record) -> bool:
    return record.timing is None or record.timing.speedup.contains(1)


def controls(selection: Selection) -> list[str]:
    """Report the baseline against itself, and how many measured pairs were excluded.

    Args:
        selection: the suite's records, with what follows from them.

    Returns:
        One line each.
    """
    lines = [line for record in selection.controls for line in _control(record)]
    return [*lines, *_contaminated(selection.finished)]


def _control(record: Record) -> list[str]:
    lines = []
    if timing := record.timing:
        covers = "covers" if _covers_one(record) else "does not cover"
        shown = interval(timing.speedup, 3)
        lines.append(f"{code(record.name)}: ratio {shown}, which {covers} 1 ({timing.verdict}).")
    if quality := record.quality:
        exact = "exactly 0" if quality.drift.mean == 0 else phrases.with_interval(quality.drift)
        lines.append(f"{code(record.name)}: drift from itself {exact}.")
    return lines


def _contaminated(records: Sequence[Record]) -> list[str]:
    """How many pairs were contaminated by other processes, where, and whether they were excluded."""
    timed = [(r.name, r.timing) for r in records if r.timing]
    if not timed:
        return ["Nothing was timed."]
    total = sum(len(timing.pairs) for _, timing in timed)
    counts = [(name, len(timing.excluded)) for name, timing in timed if timing.excluded]
    named = ", ".join(f"{code(name)} {count}" for name, count in counts)
    count = sum(count for _, count in counts)
    used = ", ".join(code(name) for name, t in timed if t.contaminated and not t.excluded)
    lines = [f"Contaminated pairs excluded from the metrics: {count} of {total} ({named or 'none'})."]
    return lines + [f"All pairs used, because fewer than two were undisturbed: {used}."] * bool(used)
