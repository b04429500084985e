"""Records on disk: `results/<suite>/<machine>/<name>-<key>.json`, written whole or not at all.

The key is a hash of all that decides a record's figures, so a finished run is found again by it.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bench import assets, models
from bench.errors import BadInput
from bench.measure import environment
from bench.record import SCHEMA_VERSION, Record
from bench.suite import RunSpec

log = logging.getLogger(__name__)

NOT_OURS = {".cache", "asv"}  # folders under results/ that hold other JSON than records
ROOM = 2**20  # bytes that must be free to begin: some records with their pictures

# The sources that produce figures: a commit to anything else recomputes nothing.
SOURCES = (
    "dqar/**/*.py",
    "bench/process.py",
    "bench/worker.py",
    "bench/models.py",
    "bench/stats.py",
    "bench/record.py",
    "bench/measure/*.py",
    "bench/methods/*.py",
    "bench/embedded/__init__.py",
    "bench/embedded/extractor.py",
    "bench/embedded/extractor/*",
)


def inputs(spec: RunSpec) -> dict[str, Any]:
    """What a record depends on besides its configuration."""
    files = sorted({f for pattern in SOURCES for f in environment.ROOT.glob(pattern)})
    return {
        "sources": models.digest([f for f in files if f.is_file()], environment.ROOT),
        "model": models.fingerprint(spec),
        "packages": environment.versions(),
        "machine": environment.machine(),
        **assets.plan(spec),
        **(assets.digests(spec.quality) if spec.measures_quality else {}),
    }


def key_of(config: dict[str, Any], given: dict[str, Any]) -> str:
    """The content key, 16 hex digits, of a configuration as recorded and its `inputs`."""
    return _hash({"config": config, "inputs": given})


def seal(record: Record) -> Record:
    """The record with the digest of its own content, by which a later edit is found."""
    return record.model_copy(update={"digest": _digest(record.model_dump())})


def _digest(content: dict[str, Any]) -> str:
    return _hash({key: value for key, value in content.items() if key != "digest"})


def _hash(content: dict[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Store:
    """The records of one suite on one machine."""

    def __init__(self, results: Path, suite: str, machine: str) -> None:
        self.folder = results / suite / machine
        self.cache = self.folder / ".cache"

    def prepare(self) -> None:
        """Make the folders and try a write; BadInput where that fails, before anything runs."""
        write_atomic(self.cache / "probe", bytes(ROOM))
        (self.cache / "probe").unlink(missing_ok=True)

    def path(self, name: str, key: str, suffix: str = ".json") -> Path:
        """Where the record of that name and key stands, or a file beside it."""
        return self.folder / f"{name}-{key}{suffix}"

    def finished(self, name: str, key: str) -> bool:
        """Whether a sound record with status "ok" is there; failures are tried again."""
        path = self.path(name, key)
        return path.exists() and not flaw(path) and read(path).status == "ok"

    def write(self, record: Record, picture: bytes | None = None) -> None:
        """Write the record, and its picture first; only then remove those it supersedes."""
        if picture is not None:
            write_atomic(self.path(record.name, record.key, ".png"), picture)
        text = seal(record).model_dump_json(indent=1)
        write_atomic(self.path(record.name, record.key), text.encode())
        for path in self.folder.iterdir():
            name, _, key = path.stem.rpartition("-")
            if name == record.name and key != record.key and path.suffix in (".json", ".png"):
                path.unlink(missing_ok=True)
        for path in self.folder.glob(f".{record.name}-{record.key}.*.tmp"):
            path.unlink(missing_ok=True)  # of one who was killed while writing it

    @contextmanager
    def lock(self, key: str) -> Iterator[None]:
        """Held by whoever runs that configuration; another suite waits, and finds it finished.

        The kernel releases it when its holder dies. The file stays: removing it would let two in.
        """
        path = self.cache / f"{key}.lock"
        with _saying(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            stream = path.open("w")
        with stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            yield

    def records(self, names: list[str] | None = None) -> list[Record]:
        """The sound records of those names, in that order, or of all by name; unsound ones are logged."""
        found = {record.name: record for record in sound(self.folder)}
        return [found[name] for name in (sorted(found) if names is None else names) if name in found]


def write_atomic(path: Path, content: bytes) -> None:
    """Write and fsync a temporary file, then rename it; BadInput leaves what was there."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with _saying(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def _saying(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BadInput(
            f"results: {path.parent} cannot be written: {error.strerror}; needed: a writable folder with room"
        ) from error


def read(path: Path) -> Record:
    """A record; OSError or ValueError (of which ValidationError is one) where it is not sound."""
    return Record.model_validate_json(path.read_text(encoding="utf-8"))


def record_files(folder: Path) -> list[Path]:
    """Every record under `folder`: what caches and asv keep there has forms of its own."""
    return sorted(p for p in folder.rglob("*.json") if not NOT_OURS & {*p.relative_to(folder).parts[:-1]})


def sound(folder: Path) -> list[Record]:
    """The records under `folder` that have no flaw; the others are logged."""
    flaws = {path: flaw(path) for path in record_files(folder)}
    for path, why in flaws.items():
        if why:
            log.warning("%s: %s; left out", path.name, why)
    return [read(path) for path, why in flaws.items() if not why]


def flaw(path: Path) -> str | None:
    """What is wrong with a record file in one line: truncated, foreign, tampered; None if sound."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if why := _other_schema(content):
            return why
        record = Record.model_validate(content)
    except json.JSONDecodeError:
        return "truncated, or not JSON"
    except ValidationError as error:
        field = ".".join(str(part) for part in error.errors()[0]["loc"])
        return f"not a record: {field or 'content'}: {error.errors()[0]['msg']}"
    except (OSError, ValueError) as error:
        return f"not readable: {error}"
    return _foreign(path, record) or _tampered(path, record, content)


def _other_schema(content: Any) -> str | None:
    """Asked before the content is validated: another schema's fields are no flaw of its own."""
    version = content.get("schema_version") if isinstance(content, dict) else None
    if version is None or version == SCHEMA_VERSION:
        return None
    return f"schema {version}, but this harness reads {SCHEMA_VERSION}"


def _foreign(path: Path, record: Record) -> str | None:
    if path.stem != f"{record.name}-{record.key}":
        return f"foreign: its content is of {record.name}-{record.key}"
    if path.parent.parent.name != record.suite:
        return f"foreign: its content is of suite {record.suite}"
    machine = record.environment.get("machine")
    if path.parent.name != machine:
        return f"foreign: its content is of machine {machine}"
    return None


def _tampered(path: Path, record: Record, content: dict[str, Any]) -> str | None:
    # The digest is of the file as it stands: fields that the schema has gained since are not in it.
    if _digest(content) != record.digest:
        return "tampered: its content does not match its digest"
    if key_of(record.config, record.environment.get("inputs", {})) != record.key:
        return "tampered: its configuration does not match its key"
    picture = record.quality and record.quality.picture
    if picture and not (path.parent / picture).exists():
        return f"incomplete: its picture {picture} is missing"
    return None
