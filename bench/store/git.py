"""Records as a git revision holds them, beside those of folders."""

from __future__ import annotations

import io
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.errors import BadInput

RESULTS = "results"


@contextmanager
def folder_of(place: str) -> Iterator[Path]:
    """`place` if it is a folder; else what results/ holds in that revision, REV:DIR for another."""
    if Path(place).is_dir():
        yield Path(place)
        return
    revision, _, inside = place.partition(":")
    commit = commit_of(revision)
    if commit is None:
        raise BadInput(f"compare: {place}: no such folder, nor a revision of git; allowed: either")
    archive = _archive(commit, inside.strip("/") or RESULTS, place)
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            tar.extractall(folder, filter="data")
        yield Path(folder)


def commit_of(revision: str) -> str | None:
    """The full hash of a revision of the repository that one stands in, None if it has none of that name."""
    found = _git("rev-parse", "--verify", "--quiet", "--end-of-options", revision + "^{commit}")
    return found.decode().strip() if found else None


def commits(n: int) -> list[str]:
    """The full hashes of the last `n` commits, newest first; fewer where the history is shorter."""
    return (_git("log", f"-{n}", "--format=%H") or b"").decode().split()


def _archive(commit: str, inside: str, place: str) -> bytes:
    # From the top: below it, git would look for `inside` in the current folder.
    top = _git("rev-parse", "--show-toplevel")
    found = _git("archive", "--format=tar", commit, "--", inside, at=(top or b".").decode().strip())
    if found is None:
        raise BadInput(f"compare: {place}: no folder {inside}/ in that revision; needed: committed records")
    return found


def _git(*arguments: str, at: str = ".") -> bytes | None:
    """What git says, None where it fails or is not there."""
    try:
        return subprocess.run(["git", "-C", at, *arguments], capture_output=True, check=True).stdout
    except (OSError, ValueError, subprocess.CalledProcessError):
        return None
