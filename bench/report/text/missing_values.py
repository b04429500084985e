"""Why a value of the main table is missing: one line a reason, so that no empty cell is unexplained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench.record import Record
from bench.report.escape import code, escape
from bench.report.tables.columns import Column

# What the schema means by a null that its part gives no reason for.
_BY_SCHEMA = {
    "limits.realised": "the limit is 1: nothing could be gained",
    "quality.psnr_db": "infinite: every image is identical to the baseline's",
}
_OF_TIMING = ("limits.realised", "limits.mfu")  # null, too, where nothing was timed
_FEW = 8  # configurations that are always named one by one
_REUSE_NOTHING = ("baseline", "fewer_steps")
_BY_PART = {
    "timing": "not timed",
    "memory": "memory was not measured",
    "quality": "quality was not measured",
    "reuse": "the method does not report which attention calls it reuses",
    "limits": "no arithmetic limit is known for the method",
}


def missing_lines(records: Sequence[Record], columns: Sequence[Column]) -> list[str]:
    """State why cells are empty.

    Args:
        records: the suite's; those that failed are passed over.
        columns: the columns of the tables shown.

    Returns:
        One line for each set of values that the same configurations lack for the same reason.
    """
    ok = [record for record in records if record.status == "ok"]
    holes: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for column in columns:
        for reason, names in _reasons(ok, column).items():
            holes.setdefault((reason, tuple(names)), []).append(column.title)
    return [
        f"{_bare(titles)}: {escape(reason)} ({_who(names, ok)})." for (reason, names), titles in holes.items()
    ]


def _reasons(records: Sequence[Record], column: Column) -> dict[str, list[str]]:
    by_reason: dict[str, list[str]] = {}
    for record in records:
        if column.find(record) is None or _stated(record, column.path):
            by_reason.setdefault(why_missing(record, column.path), []).append(record.name)
    return by_reason


def why_missing(record: Record, path: str) -> str:
    """State why a value is null.

    Args:
        record: the record of one configuration.
        path: names of fields with dots between, such as `quality.drift_converged`.

    Returns:
        The reason that the record gives, else what the schema means by it.
    """
    part_name = path.split(".")[0]
    part = getattr(record, part_name)
    if part is None and part_name == "reuse" and record.method in _REUSE_NOTHING:
        return "the method reuses nothing"
    if part is None:
        return _BY_PART[part_name]
    if record.timing is None and path in _OF_TIMING:
        return _BY_PART["timing"]
    return _stated(record, path) or _BY_SCHEMA.get(path, "no reason was recorded")


def _stated(record: Record, path: str) -> str | None:
    """The reason that the record gives for a missing or partial value: the first on the way to it."""
    part: Any = record
    for name in path.split("."):
        reason = getattr(part, "missing", {}).get(name)
        if reason:
            return str(reason)
        part = getattr(part, name, None)
    return None


def _who(names: Sequence[str], records: Sequence[Record]) -> str:
    """Every name; of many, a method in place of all its configurations."""
    if len(names) == len(records):
        return "all configurations"
    if len(names) <= _FEW:
        return ", ".join(code(name) for name in names)
    lacking = [record for record in records if record.name not in names]
    whole = {record.method for record in records} - {record.method for record in lacking}
    named = [(record.name, record.method) for record in records if record.name in names]
    parts = [f"all of {method}" if method in whole else code(name) for name, method in named]
    return ", ".join(dict.fromkeys(parts))


def _bare(titles: Sequence[str]) -> str:
    """Titles without the arrows that show which way is better."""
    return ", ".join(titles).replace(" ↑", "").replace(" ↓", "")
