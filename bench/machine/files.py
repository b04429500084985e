"""Files written whole or not at all, and content under xz."""

from __future__ import annotations

import lzma
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bench.errors import BadInput, without_path
from dqar.errors import InvalidFile
from dqar.utils import atomic
from dqar.utils.foreign import read_bytes

SHORT = 2**16  # bytes of a file that is written once


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file as `dqar.utils.atomic` does, in the place of whatever stands there.

    Args:
        path: The file; what is there is replaced, see `make_way`; its directory is made where it is missing.
        content: The file's whole content.

    Raises:
        BadInput: It cannot be written; what was there is left as it was.
    """
    with write_errors_named(path):
        atomic.write_atomic(path, content, make_way)


def make_way(path: Path) -> None:
    """Remove what stands in the place of a file and is none: a pipe, a device, a link, an empty directory.

    Args:
        path: The file that is to be written.

    Raises:
        OSError: a directory that holds something.
    """
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    elif path.is_symlink() or (path.exists() and not path.is_file()):
        path.unlink()


def write_once(path: Path, content: bytes) -> bytes:
    """Write a file unless it is there, whole or not at all.

    Of processes that write at the same time one wins, and all return what it wrote.

    Args:
        path: The file; its directory is made where it is missing.
        content: What to write where the file is not there, SHORT bytes at most.

    Returns:
        What the file holds.

    Raises:
        BadInput: it can be neither read nor written.
    """
    temporary = path.with_name(f".{path.name}.{threading.get_native_id()}.tmp")
    with write_errors_named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if not os.path.lexists(path):
            try:
                temporary.write_bytes(content)
                with suppress(FileExistsError):
                    path.hardlink_to(temporary)
            finally:
                temporary.unlink(missing_ok=True)
        try:
            return read_bytes(path, "file", SHORT)
        except InvalidFile as error:
            raise BadInput(f"results: {path.name}: {without_path(error, path)}") from error


def replace_tree(built: Path, path: Path) -> None:
    """Put a finished directory in the place of another.

    Args:
        built: The finished directory; it is copied and stays.
        path: The directory that is replaced; it need not be there.

    Raises:
        BadInput: It cannot be written; what was there is left as it was.
    """
    complete = path.with_name(f".{path.name}.{threading.get_native_id()}.tmp")
    old = path.with_name(f".{path.name}.{threading.get_native_id()}.old")
    with write_errors_named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copytree(built, complete)
            if path.exists():
                path.rename(old)
            complete.rename(path)
        finally:
            if old.exists() and not path.exists():
                old.rename(path)
            for rest in (complete, old):
                shutil.rmtree(rest, ignore_errors=True)


@contextmanager
def write_errors_named(path: Path) -> Iterator[None]:
    """Turn what fails in the body into one line that names a directory.

    Args:
        path: The file that the body writes; its directory is named.

    Raises:
        BadInput: The body raised an OSError.
    """
    try:
        yield
    except OSError as error:
        raise BadInput(
            f"results: {path.parent} cannot be written: {error.strerror}; "
            "needed: a writable directory with room"
        ) from error


def compressed(text: str) -> bytes:
    """Pack text.

    Args:
        text: The text.

    Returns:
        The content of an .xz file.
    """
    return lzma.compress(text.encode(), preset=9)


def decompressed(content: bytes, limit: int) -> bytes:
    """Unpack an .xz file that others may have written.

    Args:
        content: All of the file.
        limit: Largest size in bytes of what it holds.

    Returns:
        What it holds.

    Raises:
        ValueError: It is no xz, is cut short, or unpacks to more than `limit`.
    """
    decompressor = lzma.LZMADecompressor()
    try:
        found = decompressor.decompress(content, limit + 1)
    except lzma.LZMAError as error:
        raise ValueError(str(error)) from error
    if len(found) > limit:
        raise ValueError(f"unpacks to more than {limit:,} bytes")
    if not decompressor.eof:
        raise ValueError("is cut short")
    return found
