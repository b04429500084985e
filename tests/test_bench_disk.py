"""Disks that are full or read-only: one line, exit code 2, and what was there stays as it was.

Root passes over permission bits, so the disks are real: mounts in a namespace of the test's own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_bench_store import record

from bench.machine import provenance
from bench.store.records import Store

ROOT = Path(__file__).parents[1]
SPACE = ("unshare", "--mount", "--map-root-user", "sh", "-c")
RUN = f"{sys.executable} -m bench run tiny.yaml --results disk --reports reports"
FILL = "cat /dev/zero > disk/filler 2>/dev/null"
FULL = "mount -t tmpfs -o size=4m none disk; cp -r before/. disk"


def possible() -> bool:
    """Whether this system lets the test mount something that no other process sees."""
    try:
        return not subprocess.run([*SPACE, "mount -t tmpfs none /mnt"], capture_output=True).returncode
    except OSError:
        return False


pytestmark = pytest.mark.skipif(not possible(), reason="needs unshare(1) and user namespaces")


@pytest.mark.everyday("full from the start")
@pytest.mark.parametrize(
    ("commands", "message"),
    [
        (f"{FULL}; {FILL}; {RUN}; code=$?", "No space left on device"),
        (
            f"{FULL}; {RUN} & while ! ls disk/tiny/*/.cache/*.lock; do sleep 0.05; done >/dev/null 2>&1; "
            f"{FILL}; wait $!; code=$?",
            "No space left on device",
        ),
        (
            f"cp -r before/. disk; mount --bind disk disk; mount -o remount,bind,ro disk; {RUN}; code=$?",
            "Read-only file system",
        ),
    ],
    ids=["full from the start", "full on the way", "read-only"],
)
def test_a_disk_that_cannot_be_written(tmp_path: Path, tiny_suite: Path, commands: str, message: str) -> None:
    """One line states it, the exit code is 2, and the earlier record is there, byte for byte, with
    no fragment next to it."""
    old = record("half").model_copy(update={"environment": {"machine": provenance.machine()}})
    Store(tmp_path / "before", "tiny", provenance.machine()).write(old, image=b"png")
    (tmp_path / "disk").mkdir()
    keep = "cp -r disk/. after; rm -f after/filler; exit $code"
    done = subprocess.run(
        [*SPACE, f"{commands}; mkdir after; {keep}"],
        cwd=tmp_path, capture_output=True, text=True, timeout=250,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("results: disk/tiny/") and message in line and line.endswith("with room")
    assert files(tmp_path / "after") == files(tmp_path / "before")


def files(directory: Path) -> dict[str, bytes]:
    """The content of each file, those of caches and the machine's random id left out."""
    work = {".cache", ".machine-id"}
    found = [p for p in directory.rglob("*") if p.is_file() and not work & set(p.parts)]
    return {str(p.relative_to(directory)): p.read_bytes() for p in found}
