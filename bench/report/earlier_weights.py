"""Which results were measured on weights with which a model no longer ships."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from bench.pipeline.models import EMBEDDED, fingerprint_of
from bench.record import Record
from bench.store import record_files

_shipped = cache(fingerprint_of)


def warnings(records: Sequence[Record]) -> list[str]:
    """State which shipped models the records are of as they were before they were trained on.

    Args:
        records: a suite's.

    Returns:
        A line for each such model.
    """
    models = dict.fromkeys(_earlier({"config": r.config, "environment": r.environment}) for r in records)
    return [
        f"Measured on earlier weights of `{model}`, with which it no longer ships."
        for model in models
        if model
    ]


def earlier_pages(results: Path) -> list[str]:
    """Find the suites and studies that were measured on a shipped model's earlier weights.

    Args:
        results: the root of the published results.

    Returns:
        The names of their pages, sorted: the suite's, of a study with a page for each model `study/model`.
    """
    found = set()
    for path in sorted(record_files.found(results)):
        name, *machine_and_model = path.relative_to(results).parts[:-1]
        if machine_and_model and _earlier(record_files.read(path)):
            found.add("/".join([name, *machine_and_model[1:]]))
    return sorted(found)


def _earlier(content: Any) -> str | None:
    """The model whose earlier weights a record or a study's facts state; None where there is none."""
    match content:
        case {"config": {"weights": "random"}}:
            return None
        case (
            {"config": {"model": str(model)}, "environment": {"inputs": {"model": str(measured)}}}
            | {"model": str(model), "fingerprint": str(measured)}
            | {"model": {"name": str(model), "fingerprint": str(measured)}}
            | {"facts": {"model": str(model), "fingerprint": str(measured)}}
        ):
            return model if model in EMBEDDED and measured != _shipped(model) else None
    return None
