"""Reading records, and what makes one invalid: truncated, misplaced, or not what its digest says."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bench.errors import one_line, without_path
from bench.record import SCHEMA_VERSION, Quality, Record
from bench.store.derived import inconsistency
from bench.store.keys import content_digest, key_of
from dqar.errors import InvalidFile
from dqar.utils.foreign import read_json

log = logging.getLogger(__name__)

NOT_OURS = {".cache", "asv"}  # directories under results/ that hold other JSON than records


def read(path: Path) -> Record:
    """A record; OSError or ValueError (of which ValidationError is one) where it is not sound."""
    return Record.model_validate(read_json(path, "record"))


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
        content = read_json(path, "record")
        if why := _other_schema(content):
            return why
        record = Record.model_validate(content)
    except InvalidFile as error:
        why = without_path(error, path)
        return "truncated, or not JSON" if why.startswith("is not JSON") else f"not readable: {why}"
    except ValidationError as error:
        field = ".".join(str(part) for part in error.errors()[0]["loc"])
        return f"not a record: {field[:200] or 'content'}: {one_line(error.errors()[0]['msg'])[:200]}"
    except (OSError, ValueError) as error:
        return f"not readable: {one_line(error)[:200]}"
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
    if content_digest(content) != record.digest:
        return "tampered: its content does not match its digest"
    if key_of(record.config, record.environment.get("inputs", {})) != record.key:
        return "tampered: its configuration does not match its key"
    if why := inconsistency(record):
        return f"inconsistent: {why}"
    return _wrong_image(path, record.quality) if record.quality else None


def _wrong_image(path: Path, quality: Quality) -> str | None:
    """What is wrong with the image file that a record names."""
    if quality.image is None:
        return None
    image = path.parent / quality.image
    if image.parent != path.parent or not image.is_file():
        return f"incomplete: its image {quality.image} is missing"
    if quality.image_sha256 and hashlib.sha256(image.read_bytes()).hexdigest() != quality.image_sha256:
        return f"tampered: its image {quality.image} does not match its digest"
    return None
