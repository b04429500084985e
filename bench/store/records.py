"""Records on disk: `<results>/<suite>/<machine>/<name>-<key>.json`, written whole or not at all.

The key is a hash of all that decides a record's values, so a finished run is found again by it.
"""

from __future__ import annotations

import fcntl
import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.machine.files import make_way, write_atomic, write_errors_named
from bench.record import Record
from bench.store.keys import seal
from bench.store.validation import checked, valid_records

log = logging.getLogger(__name__)

ROOM = 2**20  # bytes that must be free to begin: some records with their images


class Store:
    """The records of one suite on one machine.

    Args:
        results: The root of all records; nothing is made there before `prepare`.
        suite: Name of the suite.
        machine: Slug of the machine, as `provenance.machine` returns it.
    """

    def __init__(self, results: Path, suite: str, machine: str) -> None:
        self.machine = machine
        self.directory = results / suite / machine
        self.cache = self.directory / ".cache"

    def prepare(self) -> None:
        """Make the directories and try a write; BadInput where that fails, before anything runs."""
        with write_errors_named(self.cache / "probe"):
            self.cache.mkdir(parents=True, exist_ok=True)
            # A file without a name where the system has them: whoever is killed here leaves nothing behind.
            with tempfile.TemporaryFile(dir=self.cache) as probe:
                probe.write(bytes(ROOM))
                probe.flush()
                os.fsync(probe.fileno())

    def path(self, name: str, key: str, suffix: str = ".json") -> Path:
        """Where a record stands, or a file that goes with it.

        Args:
            name: Name of the configuration.
            key: Content key of the run.
            suffix: `.json` for the record, `.png` for its image.

        Returns:
            A path in the store's directory, whether the file is there or not.
        """
        return self.directory / f"{name}-{key}{suffix}"

    def finished(self, name: str, key: str) -> bool:
        """Whether a run need not be repeated: failures are run again.

        Args:
            name: Name of the configuration.
            key: Content key of the run.

        Returns:
            True where a valid record with status "ok" is there.
        """
        path = self.path(name, key)
        record = checked(path) if path.exists() else None
        return isinstance(record, Record) and record.status == "ok"

    def write(self, record: Record, image: bytes | None = None) -> None:
        """Write the record, and its image first; only then remove those it supersedes.

        Args:
            record: The record as measured; it is sealed here.
            image: The PNG of its mosaic; None = it has none.

        Raises:
            BadInput: The files cannot be written, or a name identifies the machine.
        """
        if image is not None:
            write_atomic(self.path(record.name, record.key, ".png"), image)
        text = seal(record).model_dump_json()
        write_atomic(self.path(record.name, record.key), text.encode())
        for path in self.directory.iterdir():
            name, _, key = path.stem.rpartition("-")
            if name == record.name and key != record.key and path.suffix in (".json", ".png"):
                path.unlink(missing_ok=True)
        for path in self.directory.glob(f".{record.name}-{record.key}.*.tmp"):
            path.unlink(missing_ok=True)  # of one who was killed while writing it

    @contextmanager
    def lock(self, key: str) -> Iterator[None]:
        """Held by whoever runs that configuration; another suite waits, and finds it finished.

        The kernel releases it when its holder dies. The file stays: removing it would let two in.

        Args:
            key: Content key of the run.

        Raises:
            BadInput: The lock's file cannot be made.
        """
        path = self.cache / f"{key}.lock"
        with write_errors_named(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            make_way(path)
            stream = path.open("a")
        with stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                log.warning("another process measures the same configuration: waiting for it")
                fcntl.flock(stream, fcntl.LOCK_EX)
            yield

    def records(self, names: list[str] | None = None) -> list[Record]:
        """The valid records; invalid ones are logged.

        Args:
            names: Those wanted, in the order wanted; None = all, by name.

        Returns:
            At most one record a name; names without one are left out.
        """
        by_name = {record.name: record for record in valid_records(self.directory)}
        return [by_name[name] for name in (sorted(by_name) if names is None else names) if name in by_name]
