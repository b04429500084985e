"""Digests of files, each read once while it does not change."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path


def digest(files: list[Path], root: Path) -> str:
    """A hash of files' names and contents; an unchanged file is read only once a process.

    Args:
        files: The files, in the order that they are hashed in.
        root: The directory that names are relative to; all files are below it.

    Returns:
        16 hex digits of a SHA-256.
    """
    total = hashlib.sha256()
    for file in files:
        stat = file.stat()
        content = _content(file, stat.st_size, stat.st_mtime_ns)
        total.update(f"{file.relative_to(root).as_posix()} {content}\n".encode())
    return total.hexdigest()[:16]


@cache
def _content(file: Path, size: int, modified: int) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
