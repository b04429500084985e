"""Where the figures come from: the environments of the records, as free as they were written."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from bench.record import Record
from bench.report.columns import escape, grid


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """A nested dictionary as one level of dotted keys, sorted, every value as text."""
    flat: dict[str, str] = {}
    for key in sorted(tree):
        value = tree[key]
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value if isinstance(value, str) else json.dumps(value)
    return flat


def by_value(records: Sequence[Record]) -> dict[str, dict[str, list[str]]]:
    """For each environment key its values, and for each value the configurations that had it."""
    flat = [(record.name, flatten(record.environment)) for record in records]
    keys = sorted({key for _, values in flat for key in values})
    found: dict[str, dict[str, list[str]]] = {key: {} for key in keys}
    for name, values in flat:
        for key in keys:
            found[key].setdefault(values.get(key, "not recorded"), []).append(name)
    return found


def common(records: Sequence[Record]) -> str:
    """What all records share, as a table."""
    shared = [(k, next(iter(v))) for k, v in by_value(records).items() if len(v) == 1]
    return grid(["what", "value"], [[escape(k), escape(v)] for k, v in shared])


def differing(records: Sequence[Record]) -> str:
    """What differs between the records, as a table; empty where nothing does."""
    rows = [
        [escape(key), escape(value), escape(", ".join(names))]
        for key, values in by_value(records).items()
        if len(values) > 1
        for value, names in values.items()
    ]
    return grid(["what", "value", "configurations"], rows) if rows else ""
