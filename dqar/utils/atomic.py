"""Writes a file whole or not at all."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path


def write_atomic(
    path: str | Path, content: bytes | str, make_way: Callable[[Path], None] | None = None
) -> None:
    """Write a temporary file of this thread next to `path`, flush it to the disk, then rename it.

    Args:
        path: The file; it is replaced if it is there. Its directory is made where it is missing.
        content: Bytes, or text that is written as UTF-8.
        make_way: Called with `path` once the temporary file is whole, to remove what a rename would not
            replace; None: nothing is removed.

    Raises:
        OSError: The file cannot be written; what was there before is left as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{threading.get_native_id()}.tmp")
    try:
        with temporary.open("wb") as stream:
            stream.write(content.encode() if isinstance(content, str) else content)
            stream.flush()
            os.fsync(stream.fileno())
        if make_way is not None:
            make_way(path)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
