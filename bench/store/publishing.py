"""Moves the records of a finished suite from where a user runs it to the committed evidence."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Collection
from pathlib import Path

from bench.machine.files import compressed, replace_tree
from bench.record import Record
from bench.store import images, record_files
from bench.store.records import Store

WORK = (".cache", ".machine-id")  # stays with the machine


def publish_records(local: Store, published: Store, shown: Collection[str]) -> None:
    """Move a suite's records on one machine, in place of those published before.

    The content of every record, and so its digest, stays; only its layout becomes compact, under xz.

    Args:
        local: where the records are.
        published: where they go.
        shown: names of the configurations whose images are kept.

    Raises:
        BadInput: `published` cannot be written; then nothing is removed from `local`.
    """
    records = local.records()
    with tempfile.TemporaryDirectory() as built:
        for record in records:
            _write_packed(local.path(record.name, record.key), Path(built))
        kept = {name for record in records if record.name in shown for name in _image_names(record)}
        sources = [local.directory / name for record in records for name in _image_names(record)]
        images.pack([path for path in sources if path.exists()], kept, Path(built))
        replace_tree(Path(built), published.directory)
    for path in [p for p in local.directory.iterdir() if p.name not in WORK]:
        path.unlink() if path.is_file() else shutil.rmtree(path)


def publish_tree(local: Path, published: Path) -> None:
    """Move the files of a study that keeps no records, leaving what only this machine needs.

    Args:
        local: The directory of the study's files; its directories stay.
        published: Where the files go, under the same relative paths; files there are replaced.
    """
    for path in sorted(local.rglob("*")):
        inside = path.relative_to(local)
        if path.is_file() and not set(WORK) & set(inside.parts) and not path.name.endswith((".tmp", ".lock")):
            (published / inside).parent.mkdir(parents=True, exist_ok=True)
            shutil.move(path, published / inside)


def _image_names(record: Record) -> list[str]:
    image = record.quality.image if record.quality else None
    return [image] if image else []


def _write_packed(path: Path, directory: Path) -> None:
    text = json.dumps(record_files.read(path), separators=(",", ":"), ensure_ascii=False)
    name = record_files.stem(path) + record_files.PUBLISHED
    (directory / name).write_bytes(compressed(text + "\n"))
