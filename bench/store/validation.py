"""Reading records, and what makes one invalid: truncated, misplaced, or a checksum mismatch."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bench.errors import one_line, without_path
from bench.record import SCHEMA_VERSION, Quality, Record
from bench.store import images, record_files
from bench.store.derived import inconsistency
from bench.store.keys import content_digest, key_of
from dqar.errors import InvalidFile

log = logging.getLogger(__name__)

# Directories under results/ that hold other JSON than records: caches, and studies with data of their own.
NOT_OURS = {
    ".cache",
    "asv",
    "calibrate",
    "generality",
    "gpu-check",
    "policy",
    "prompt-length",
    "scaling",
    "signals",
    "tune",
}


def files(directory: Path) -> list[Path]:
    """Every record under a directory: what caches and asv keep there has forms of its own.

    Args:
        directory: Where to look, at any depth.

    Returns:
        The files, sorted.
    """
    paths = (path for path in record_files.found(directory) if path.name != images.INDEX)
    return sorted(path for path in paths if not NOT_OURS & {*path.relative_to(directory).parts[:-1]})


def valid_records(directory: Path) -> list[Record]:
    """The valid records under a directory; the others are logged.

    Args:
        directory: Where to look, at any depth.

    Returns:
        The records, by the order of their files.
    """
    valid = []
    for path in files(directory):
        record = checked(path)
        if isinstance(record, str):
            log.warning("%s: %s; skipped", path.name, record)
        else:
            valid.append(record)
    return valid


def validation_error(path: Path) -> str | None:
    """What is wrong with a record's file.

    Args:
        path: The file, `<suite>/<machine>/<name>-<key>.json`.

    Returns:
        One line: truncated, misplaced, a mismatch; None where the record is valid.
    """
    record = checked(path)
    return record if isinstance(record, str) else None


def checked(path: Path) -> Record | str:
    """Read and validate a record's file.

    Args:
        path: The file, `<suite>/<machine>/<name>-<key>.json`.

    Returns:
        The record, or what is wrong with it as `validation_error` returns it.
    """
    try:
        content = record_files.read(path)
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
    return _misplaced(path, record) or _mismatch(path, record, content) or record


def _other_schema(content: Any) -> str | None:
    """Asked before the content is validated: another schema's fields are no errors of their own."""
    version = content.get("schema_version") if isinstance(content, dict) else None
    if version is None or version == SCHEMA_VERSION:
        return None
    return f"schema {version}, but this harness reads {SCHEMA_VERSION}"


def _misplaced(path: Path, record: Record) -> str | None:
    if record_files.stem(path) != f"{record.name}-{record.key}":
        return f"misplaced: its content is of {record.name}-{record.key}"
    if path.parent.parent.name != record.suite:
        return f"misplaced: its content is of suite {record.suite}"
    machine = record.environment.get("machine")
    if path.parent.name != machine:
        return f"misplaced: its content is of machine {machine}"
    return None


def _mismatch(path: Path, record: Record, content: dict[str, Any]) -> str | None:
    # The digest is of the file as it stands: fields that the schema has gained since are not in it.
    if content_digest(content) != record.digest:
        return "checksum mismatch: its content does not match its digest"
    if key_of(record.config, record.environment.get("inputs", {})) != record.key:
        return "key mismatch: its configuration does not match its key"
    if why := inconsistency(record):
        return f"inconsistent: {why}"
    return _wrong_image(path.parent, record.quality) if record.quality else None


def _wrong_image(directory: Path, quality: Quality) -> str | None:
    """What is wrong with the image that a record names."""
    name = quality.image
    if name is None:
        return None
    if Path(name).name != name or not images.accounted(directory, name):
        return f"incomplete: its image {name} is missing"
    if quality.image_sha256 is None or not images.published(directory, name):
        return None
    pixels = images.mosaic(directory, name)
    if pixels is None:
        return f"incomplete: its image {name} is damaged"
    if images.digest(pixels) != quality.image_sha256:
        return f"checksum mismatch: its image {name} does not match its digest"
    return None
