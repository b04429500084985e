"""Which machine this is: a hash that only this very machine has, and that names nothing."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from pathlib import Path

from bench.errors import BadInput
from bench.machine import nvml, provenance
from bench.machine.device import device_type
from bench.machine.files import write_once

FILE = ".machine-id"
_GIB = 2**30
_ID = re.compile(rb"[0-9a-f]{32}")


def machine_id(results: Path) -> str:
    """The identity under which a directory of results holds this machine's records.

    It is a hash of the CPU's model, the cores, the memory (whole GiB), the UUID of the GPU that torch uses,
    and a random id kept in `results`/.machine-id, so that records copied from another machine of the same
    kind, without that file, are not taken for this one's.

    Args:
        results: The root of the records; the random id is made there where it is missing.

    Returns:
        16 hex digits.

    Raises:
        BadInput: where the random id can be neither read nor written, or is none: another one would make all
            finished records those of another machine.
    """
    cpu = provenance.cpu()
    parts = {
        "cpu": cpu["model"],
        "cores": cpu["cores"],
        "memory": round(cpu["memory"] / _GIB),
        "gpu": nvml.uuid() if device_type() == "cuda" else None,
        "random": _random(results / FILE).hex(),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _random(path: Path) -> bytes:
    kept = write_once(path, secrets.token_hex(16).encode())
    if not _ID.fullmatch(kept):
        raise BadInput(
            f"results: {path} is damaged; needed: the file as it was, or its removal, after which finished"
            " configurations are measured again"
        )
    return kept
