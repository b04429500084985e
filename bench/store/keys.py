"""The content key of a record: a hash of all that decides its values, by which a run is found again."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from bench.errors import BadInput
from bench.machine import hashing, provenance
from bench.machine.identity import machine_id
from bench.machine.scrub import refused_name, scrubbed
from bench.pipeline import models
from bench.record import Record
from bench.spec import external_files
from bench.spec.run_spec import RunSpec
from bench.store.places import RESULTS

# The sources that produce values: a commit to anything else recomputes nothing.
SOURCES = (
    "dqar/**/*.py",
    "bench/machine/device.py",
    "bench/machine/process.py",
    "bench/run/worker.py",
    "bench/pipeline/*.py",
    "bench/stats.py",
    "bench/record.py",
    "bench/measure/*.py",
    "bench/methods/*.py",
    "bench/embedded/__init__.py",
    "bench/embedded/extractor.py",
    "bench/embedded/extractor/*",
    "bench/embedded/text_to_image/scorer.py",
    "bench/embedded/text_to_image/reference.py",
    "bench/embedded/text_to_image/*.safetensors",
)
IDENTIFIERS = ("suite", "name", "method", "key")  # of a record: its place and file


def inputs(spec: RunSpec, results: Path = RESULTS) -> dict[str, Any]:
    """What a record depends on besides its configuration.

    Args:
        spec: the configuration.
        results: the root of the records, which holds a part of the machine's identity.

    Returns:
        Digests and versions by name. `machine_id` makes the key this very machine's: no other resumes it.
    """
    files = sorted({f for pattern in SOURCES for f in provenance.ROOT.glob(pattern)})
    return {
        "sources": hashing.digest([f for f in files if f.is_file()], provenance.ROOT),
        "model": models.fingerprint(spec),
        "packages": provenance.versions(),
        "machine": provenance.machine(),
        "machine_id": machine_id(results),
        **external_files.plan(spec),
        **({"prompts": spec.prompts.digest} if spec.prompts else {}),
        **(external_files.digests(spec.quality) if spec.measures_quality else {}),
    }


def key_of(config: dict[str, Any], given: dict[str, Any]) -> str:
    """The content key of a run.

    Args:
        config: The configuration as recorded.
        given: Its `inputs`.

    Returns:
        16 hex digits.
    """
    return _hash({"config": config, "inputs": given})


def seal(record: Record) -> Record:
    """The record as it may be written: nothing in it identifies the machine, and it has a digest.

    The digest is of its own content: a later edit is found by it.

    Args:
        record: The record as measured.

    Returns:
        A new record; numbers are as they were.

    Raises:
        BadInput: the name of the suite or the run holds the user's or the host's.
    """
    content = scrubbed(record.model_dump())
    for field in IDENTIFIERS:
        if content[field] != getattr(record, field):
            raise BadInput(f"{field}: {refused_name(getattr(record, field))}")
    return Record.model_validate(content | {"digest": content_digest(content)})


def content_digest(content: dict[str, Any]) -> str:
    """The hash of a record's content but for the digest that it holds.

    Args:
        content: The record as it stands in its file.

    Returns:
        16 hex digits.
    """
    return _hash({key: value for key, value in content.items() if key != "digest"})


def _hash(content: dict[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
