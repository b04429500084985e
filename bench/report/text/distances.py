"""The headline of a report on distances between sets of images."""

from __future__ import annotations

from bench.record import Distance, Record
from bench.report.selection import Selection
from bench.report.tables.columns import fixed, shown_with_interval, significant
from bench.report.text import phrases

_three = significant(3)
_signed = fixed(3)


def headline(selection: Selection, setup: str) -> str:
    """Sum up how far the configurations' images are from the reference's, next to the baseline's.

    Args:
        selection: The suite's records.
        setup: What was run on what, see `bench.report.setup`.

    Returns:
        One or two sentences of Markdown.
    """
    measured = [(record, found) for record in selection.candidates if (found := _to_reference(record))]
    base = next((found for record in selection.controls if (found := _to_reference(record))), None)
    if base is None or not measured:
        return f"On {setup}, no distance was measured."
    kid = f", KID {shown_with_interval(base.kid, _signed)}" if base.kid else ""
    return (
        f"On {setup}, the baseline's {base.n} images have FD {_three(base.fd)}{kid} from the reference's"
        f"{_changes(measured)}."
    )


def _to_reference(record: Record) -> Distance | None:
    return record.quality.to_reference if record.quality else None


def _changes(measured: list[tuple[Record, Distance]]) -> str:
    """How many configurations come measurably further away, and which the furthest."""
    changes = [(found.kid_change, record) for record, found in measured if found.kid_change]
    if not changes:
        return ""
    further = sum(change.low > 0 for change, _ in changes)
    largest, record = max(changes, key=lambda pair: pair[0].mean)
    return (
        f"; by KID {further} of {len(changes)} other configurations are measurably further away (paired by"
        f" blocks of the same seeds), the largest change is {shown_with_interval(largest, _signed)} of"
        f" {phrases.named(record)}"
    )
