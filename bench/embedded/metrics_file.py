"""The metrics of a shipped model, kept in the `metrics.json` next to its README."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
DIRECTORIES = {"embedded": HERE, "embedded-t2i": HERE / "text_to_image"}
# Next to what `evaluate` writes: the extractor's own, and by guidance.
KEPT = ("extractor_accuracy_heldout", "distance_at", "distance_trials", "recognised")


def write(directory: Path, values: dict[str, Any]) -> str:
    """Write a model's metrics; those of KEPT that were measured earlier stay.

    Args:
        directory: the one of the model's README.
        values: the metrics, ready for JSON.

    Returns:
        What it writes to `metrics.json`.
    """
    before = _read(directory)
    return _written(directory, values | {key: before[key] for key in KEPT if key in before})


def put(model: str, key: str, value: Any) -> None:
    """Put a value into a model's metrics.

    Args:
        model: one of DIRECTORIES.
        key: one of KEPT.
        value: ready for JSON; it replaces the former one.
    """
    directory = DIRECTORIES[model]
    _written(directory, _read(directory) | {key: value})


def add(model: str, key: str, name: str, value: Any) -> None:
    """Add a value to those of a key in a model's metrics.

    Args:
        model: one of DIRECTORIES.
        key: one of KEPT.
        name: what the value is of, such as the guidance.
        value: ready for JSON; it replaces one of the same name.
    """
    put(model, key, _read(DIRECTORIES[model]).get(key, {}) | {name: value})


def _read(directory: Path) -> dict[str, Any]:
    path = directory / "metrics.json"
    values: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return values


def _written(directory: Path, values: dict[str, Any]) -> str:
    text = json.dumps(values, indent=2)
    (directory / "metrics.json").write_text(text + "\n")
    return text
