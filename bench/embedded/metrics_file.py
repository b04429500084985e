"""The metrics of a shipped model, kept in the `metrics.json` next to its README."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
DIRECTORIES = {"embedded": HERE, "embedded-t2i": HERE / "text_to_image"}
KEPT = ("distance_at", "distance_trials", "recognised")  # by guidance, next to what `evaluate` writes


def write(directory: Path, values: dict[str, Any]) -> str:
    """Write a model's metrics; those of KEPT that were measured earlier stay.

    Args:
        directory: the one of the model's README.
        values: the metrics, ready for JSON.

    Returns:
        What it writes to `metrics.json`.
    """
    path = directory / "metrics.json"
    before = json.loads(path.read_text()) if path.exists() else {}
    kept = {key: before[key] for key in KEPT if key in before}
    text = json.dumps(values | kept, indent=2)
    path.write_text(text + "\n")
    return text


def add(model: str, key: str, name: str, value: Any) -> None:
    """Add a value to a model's metrics.

    Args:
        model: one of MODELS.
        key: one of KEPT.
        name: what the value is of, such as the guidance.
        value: ready for JSON; it replaces one of the same name.
    """
    path = DIRECTORIES[model] / "metrics.json"
    values = json.loads(path.read_text())
    values[key] = values.get(key, {}) | {name: value}
    path.write_text(json.dumps(values, indent=2) + "\n")
