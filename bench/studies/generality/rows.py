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


def save(data: Mapping[str, Any], folder: Path) -> Path:
    """Write what was measured on a model to `folder`; the file's path."""
    path = folder / f"{data['facts']['model']}.json"
    content = dict(data) | {"provenance": provenance.provenance(SEED)}
    write_atomic(path, (json.dumps(content, separators=(",", ":")) + "\n").encode())
    return path


def load(folder: Path) -> dict[str, Any]:
    """What was measured on the models, in their order.

    Raises:
        InvalidFile: A file is damaged.
    """
    files = {name: folder / f"{name}.json" for name in SETTINGS}
    return {name: read_json(path, "rows") for name, path in files.items() if path.exists()}
