"""Records as a git revision holds them, or a directory."""

from __future__ import annotations

import io
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.errors import BadInput

RESULTS = ("results/published", "results")  # where a revision has its records; older ones the second


@contextmanager
def directory_of(place: str) -> Iterator[Path]:
    """Give the records of a directory or of a git revision.

    Args:
        place: A directory; else a revision, whose published records are meant, or REV:DIR for another
            directory of it.

    Yields:
        The directory; a revision's is temporary and gone afterwards.

    Raises:
        BadInput: it is neither, or that revision has no such directory.
    """
    if Path(place).is_dir():
        yield Path(place)
        return
    revision, _, inside = place.partition(":")
    commit = commit_of(revision)
    if commit is None:
        raise BadInput(f"compare: {place}: no such directory, nor a revision of git; allowed: either")
    archive = _archive(commit, [inside.strip("/")] if inside.strip("/") else RESULTS, place)
    with tempfile.TemporaryDirectory() as temporary:
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            tar.extractall(temporary, filter="data")
        yield Path(temporary)


def commit_of(revision: str) -> str | None:
    """Look up a revision of the repository that the process stands in.

    Args:
        revision: A branch, tag or hash.

    Returns:
        The commit's full hash; None where the repository has none of that name.
    """
    commit = _git("rev-parse", "--verify", "--quiet", "--end-of-options", revision + "^{commit}")
    return commit.decode().strip() if commit else None


def commits(n: int) -> list[str]:
    """The last commits of the repository that the process stands in.

    Args:
        n: How many.

    Returns:
        Full hashes, newest first; fewer where the history is shorter, none without git.
    """
    return (_git("log", f"-{n}", "--format=%H") or b"").decode().split()


def _archive(commit: str, directories: Sequence[str], place: str) -> bytes:
    """The first of the directories that the commit has, as a tar file."""
    # From the top: below it, git would look for them in the current directory.
    top = (_git("rev-parse", "--show-toplevel") or b".").decode().strip()
    for inside in directories:
        if (archive := _git("archive", "--format=tar", commit, "--", inside, at=top)) is not None:
            return archive
    raise BadInput(
        f"compare: {place}: no directory {directories[0]}/ in that revision; needed: committed records"
    )


def _git(*arguments: str, at: str = ".") -> bytes | None:
    """What git prints, None where it fails or is not there."""
    try:
        return subprocess.run(["git", "-C", at, *arguments], capture_output=True, check=True).stdout
    except (OSError, ValueError, subprocess.CalledProcessError):
        return None
