"""Records as a revision holds them: which directory of which commit, from wherever one asks."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from bench.errors import BadInput
from bench.store.git import commit_of, commits, directory_of


def git(*arguments: str) -> str:
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def hashes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A repository of three commits, newest first: published records and others, only older ones, none."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    git("init", "-q")
    for tag, paths in (("none", ["x"]), ("old", ["results/b.json"]), ("new", ["results/published/a.json", "other/c.json"])):  # fmt: skip  # noqa: E501
        for path in paths:
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_text(path)
        git("add", "-A")
        git("commit", "-q", "-m", tag)
        git("tag", "-a", tag, "-m", tag)
    return git("log", "--format=%H").split()


def held(place: str) -> dict[str, str]:
    with directory_of(place) as directory:
        return {str(p.relative_to(directory)): p.read_text() for p in directory.rglob("*") if p.is_file()}


@pytest.mark.parametrize("below", [".", "other"])
def test_a_revision_is_its_published_records(
    hashes: list[str], below: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those and nothing else, of an older revision what it had in their place, or the directory asked for."""
    monkeypatch.chdir(below)
    published = "results/published/a.json"
    assert held("new") == held(hashes[0]) == held("new:") == {published: published}
    assert held("old") == {"results/b.json": "results/b.json"}
    assert held("new:/") == held("new")
    assert held("new:other") == held("HEAD:/other/") == {"other/c.json": "other/c.json"}


def test_a_directory_is_itself(hashes: list[str]) -> None:
    """A path that is there is taken as it is, and left there."""
    with directory_of("other") as directory:
        assert directory == Path("other")
    assert directory.is_dir()


@pytest.mark.parametrize(
    ("place", "why"),
    [
        ("nonsense", "nonsense: no such directory, nor a revision of git"),
        ("none", "none: no directory results/published/ in that revision"),
        ("new:nowhere", "new:nowhere: no directory nowhere/ in that revision"),
    ],
)
def test_what_has_no_records_is_refused(hashes: list[str], place: str, why: str) -> None:
    """The one line names the place and what is missing there."""
    with pytest.raises(BadInput, match=why), directory_of(place):
        pass


def test_hashes_are_full_and_of_commits(hashes: list[str]) -> None:
    """A tag, a short hash and HEAD give their commit's hash; a directory in a commit, or an option, none."""
    assert [commit_of(name) for name in ("new", "HEAD", hashes[0][:9], "old")] == [*hashes[:1] * 3, hashes[1]]
    assert [commit_of(name) for name in ("HEAD:other", "--help", "nonsense", "a\0b")] == [None] * 4
    assert commits(2) == hashes[:2] and commits(9) == hashes


def test_without_a_repository_there_are_no_commits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither outside a repository nor without git is anything found, and nothing fails."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert commits(3) == [] and commit_of("HEAD") is None
    monkeypatch.setenv("PATH", str(tmp_path))
    assert commits(3) == [] and commit_of("HEAD") is None
