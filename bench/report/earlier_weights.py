"""Which results were measured on weights with which a model no longer ships."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from bench.pipeline.models import EMBEDDED, fingerprint_of
from bench.record import Record
from dqar.utils.foreign import read_json

_shipped = cache(fingerprint_of)


def warnings(records: Sequence[Record]) -> list[str]:
    """State which shipped models the records are of as they were before they were trained on.

    Args:
        records: a suite's.

    Returns:
        A line for each such model.
    """
    models = dict.fromkeys(r.config["model"] for r in records if _earlier(r.config, r.environment))
    return [f"Measured on earlier weights of `{model}`, with which it no longer ships." for model in models]


def earlier_suites(results: Path) -> list[str]:
    """Find the suites with records of a shipped model's earlier weights.

    Args:
        results: the root of the published records.

    Returns:
        The suites' names, sorted.
    """
    found = (r["suite"] for r in _records(results) if _earlier(r["config"], r["environment"]))
    return sorted(set(found))


def _earlier(config: Mapping[str, Any], environment: Mapping[str, Any]) -> bool:
    model, measured = config.get("model"), (environment.get("inputs") or {}).get("model")
    if model not in EMBEDDED or config.get("weights") == "random" or measured is None:
        return False
    return bool(measured != _shipped(model))


def _records(results: Path) -> Iterator[dict[str, Any]]:
    for path in sorted(results.glob("*/*/*.json")):
        content = read_json(path, "record")
        if isinstance(content, dict) and {"suite", "config", "environment"} <= content.keys():
            yield content
