"""What was measured on each model: a JSON file each, with where it was measured."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.machine import provenance
from bench.machine.files import write_atomic
from bench.studies.generality.setting import SEED, SETTINGS
from dqar.utils.foreign import read_json


def save(data: Mapping[str, Any], directory: Path) -> Path:
    """Write what was measured on a model.

    Args:
        data: the measurements.
        directory: the directory that the file goes to.

    Returns:
        The file.
    """
    path = directory / f"{data['facts']['model']}.json"
    content = dict(data) | {"provenance": provenance.provenance(SEED)}
    write_atomic(path, (json.dumps(content, separators=(",", ":")) + "\n").encode())
    return path


def load(directory: Path) -> dict[str, Any]:
    """Read what was measured on the models.

    Args:
        directory: the directory that `save` wrote to.

    Returns:
        The measurements by model, in the order of SETTINGS.

    Raises:
        InvalidFile: A file is damaged.
    """
    files = {name: directory / f"{name}.json" for name in SETTINGS}
    return {name: read_json(path, "rows") for name, path in files.items() if path.exists()}
