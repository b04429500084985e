"""Where the values come from: the environments of the records, as free as they were written."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from bench.record import Record
from bench.report.escape import escape
from bench.report.tables.columns import grid
from bench.store.tensors import OWN_FILES

_FEW = 3  # distinct values that are listed one by one, with the configurations that had them
_OWN = tuple(f"inputs.{name}" for name in OWN_FILES)
_MUST_AGREE = ("inputs.", "machine")  # what metrics depend on; a commit need not change it
_NAMED = 4  # configurations that are named; more are counted


# Options of `bench run` that change what is measured, each with its field of a record's configuration.
_OPTIONS = {
    "--model": "model",
    "--prompts": "prompts.file",
    "--seed": "seed",
    "--images": "quality.n",
    "--inception-weights": "quality.inception_weights",
    "--reference": "quality.reference",
    "--lpips-weights": "quality.lpips_weights",
    "--clip-weights": "quality.clip_weights",
}


def command(name: str, asked: Mapping[str, Mapping[str, Any]], records: Sequence[Record]) -> str:
    """Write the command that makes records: what differs from the suite's file was given as an option.

    Args:
        name: the suite's name.
        asked: the file's configurations by name, as a record holds them.
        records: the suite's records.

    Returns:
        A command line.
    """
    first = next((record for record in records if record.name in asked), None)
    config, file = (flatten(first.config), flatten(asked[first.name])) if first else ({}, {})
    given = [
        f"{option} {config[key]}" for option, key in _OPTIONS.items() if config.get(key) != file.get(key)
    ]
    return " ".join([f"python -m bench run {name}", *given])


def header(records: Sequence[Record]) -> str:
    """Sum up where records come from.

    Args:
        records: at least one.

    Returns:
        Commit, machine, versions and seed in one line; of each all that the records have.
    """
    values = by_value(records)
    shown = {
        "commit": [value[:7] for value in values.get("git.commit", {})],
        "machine": list(values.get("machine", {})),
        "torch": list(values.get("packages.torch", {})),
        "diffusers": list(values.get("packages.diffusers", {})),
        "seed": list(values.get("seed", {})),
    }
    dirty = " (with changes)" if "true" in values.get("git.dirty", {}) else ""
    parts = [f"{what} {' and '.join(v)}{dirty * (what == 'commit')}" for what, v in shown.items() if v]
    return escape(", ".join(parts))


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Flatten a nested dictionary.

    Args:
        tree: nested dictionaries of JSON's types.
        prefix: what stands before each key.

    Returns:
        One level of dotted keys, sorted, every value as text.
    """
    flat: dict[str, str] = {}
    for key in sorted(tree):
        value = tree[key]
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value if isinstance(value, str) else json.dumps(value)
    return flat


def by_value(records: Sequence[Record]) -> dict[str, dict[str, list[str]]]:
    """Collect what the records' environments hold.

    Args:
        records: the suite's records.

    Returns:
        For each dotted key its values, and for each value the configurations that had it.
    """
    names: dict[str, dict[str, list[str]]] = {}
    for record in records:
        for key, value in flatten(record.environment).items():
            names.setdefault(key, {}).setdefault(value, []).append(record.name)
    return {key: names[key] for key in sorted(names)}


def common(records: Sequence[Record]) -> str:
    """Tabulate what all records share.

    Args:
        records: the suite's records.

    Returns:
        A Markdown table.
    """
    shared = [(k, next(iter(v))) for k, v in by_value(records).items() if len(v) == 1]
    return grid(["what", "value"], [[escape(k), escape(v)] for k, v in shared])


def differing(records: Sequence[Record]) -> str:
    """Tabulate what differs between the records.

    Args:
        records: the suite's records.

    Returns:
        A Markdown table; empty where nothing does.
    """
    several = [(key, values) for key, values in by_value(records).items() if len(values) > 1]
    rows = [[escape(key), escape(_spread(values))] for key, values in several]
    return grid(["what", "values"], rows) if rows else ""


def mixed(records: Sequence[Record]) -> list[str]:
    """Warn of differences that make records incomparable: code, machine, versions.

    Args:
        records: the suite's records.

    Returns:
        One line a difference.
    """
    return [
        f"The records differ in `{key}`: {escape(_spread(values))}."
        for key, values in by_value(records).items()
        if len(values) > 1 and key.startswith(_MUST_AGREE) and key not in _OWN
    ]


def _spread(values: Mapping[str, Sequence[str]]) -> str:
    """Few values with their configurations; of many the range, or how many there are."""
    if len(values) <= _FEW:
        return "; ".join(f"{value} ({_who(names)})" for value, names in values.items())
    numbers = [_number(value) for value in values]
    known = [number for number in numbers if number is not None]
    if len(known) == len(numbers):
        return f"{min(known):g} to {max(known):g} ({len(values)} values)"
    return f"{next(iter(values))} and {len(values) - 1} others"


def _who(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= _NAMED else f"{len(names)} configurations"


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
