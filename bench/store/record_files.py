"""A record's file: JSON where it was measured, the same JSON under xz where it is published."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.machine.files import decompressed
from bench.record import Record
from dqar.errors import InvalidFile
from dqar.utils.foreign import MAX_JSON_BYTES, parse_json, read_bytes

LOCAL, PUBLISHED = ".json", ".json.xz"


def found(directory: Path) -> Iterator[Path]:
    """Look for JSON files, packed or not.

    Args:
        directory: where to look, at any depth.

    Yields:
        The files, in no order.
    """
    for suffix in (LOCAL, PUBLISHED):
        yield from directory.rglob(f"*{suffix}")


def place(directory: Path, record: Record) -> Path:
    """Find the file of a record.

    Args:
        directory: where the suite's records of its machine are.
        record: the record.

    Returns:
        The packed file where it is there, else the other.
    """
    name = f"{record.name}-{record.key}"
    published = directory / f"{name}{PUBLISHED}"
    return published if published.exists() else directory / f"{name}{LOCAL}"


def stem(path: Path) -> str:
    """Take the suffixes of a record's file off its name.

    Args:
        path: the file.

    Returns:
        NAME-KEY.
    """
    return path.name.removesuffix(".xz").removesuffix(LOCAL)


def read(path: Path) -> Any:
    """Read the JSON of a file, packed or not.

    Args:
        path: the file.

    Returns:
        Its content, as `dqar.utils.foreign.read_json` returns it.

    Raises:
        InvalidFile: it cannot be read, or is not JSON under xz.
    """
    content = read_bytes(path, "record")
    if path.suffix == ".xz":
        try:
            content = decompressed(content, MAX_JSON_BYTES)
        except ValueError as error:
            raise InvalidFile(f"record = {path.name}: is not JSON under xz: {error}") from error
    return parse_json(content, path, "record")
