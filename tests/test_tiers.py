"""The two tiers of the tests: nothing is lost between them, and CI runs all of the slow one in time."""

from __future__ import annotations

import re
import subprocess
import sys
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
import tiers
from conftest import COLLECTED

ROOT = Path(__file__).parents[1]
MADE_UP = """
import pytest

def test_quick(): ...

@pytest.mark.slow
def test_slow(): ...

@pytest.mark.slow
def test_with_the_same_fixtures(): ...

@pytest.mark.everyday("a-*", "c")
@pytest.mark.parametrize("name", ["a-1", "a-2", "b", "c", "d", "e"])
def test_sweep(name): ...
"""


@pytest.fixture
def collected(request: pytest.FixtureRequest) -> list[pytest.Item]:
    """All tests of the files that pytest was given, whichever of them run now."""
    return request.config.stash[COLLECTED]


def parts() -> int:
    """In how many parts CI runs the slow tests."""
    number = re.search(r"^parts=(\d+)", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)
    assert number
    return int(number[1])


def test_the_parts_are_all_slow_tests_each_once(collected: list[pytest.Item]) -> None:
    """What CI runs in its parts is the slow tier: no test is in two parts, none in no part."""
    slow, n = tiers.slow(collected), parts()
    dealt = [test for k in range(n) for test in tiers.part(slow, f"{k + 1}/{n}")]
    assert sorted(dealt) == sorted(slow)


def test_every_file_has_tests_of_every_day(collected: list[pytest.Item]) -> None:
    """No file is slow as a whole: `make test` notices when what it is about breaks."""
    slow = {*tiers.slow(collected)}
    everyday = {item.nodeid for item in collected} - slow
    slow_files, files = ({test.partition("::")[0] for test in tier} for tier in (slow, everyday))
    assert slow_files <= files


def test_every_name_of_a_case_of_every_day_is_one(collected: list[pytest.Item]) -> None:
    """A case that is renamed does not fall out of the tests of every day unnoticed."""
    cases: dict[tuple[str, str], bool] = {}
    for item in collected:
        if chosen := item.get_closest_marker("everyday"):
            for name in chosen.args:
                test = (item.nodeid.partition("[")[0], name)
                cases[test] = cases.get(test, False) or fnmatchcase(tiers.case(item), name)
    assert not [test for test, found in cases.items() if not found]


def selected(directory: Path, *options: str) -> set[str]:
    """The tests of a made-up file that pytest selects under the options."""
    (directory / "test_made_up.py").write_text(MADE_UP)
    command = [sys.executable, "-m", "pytest", "-p", "conftest", "-c", str(ROOT / "pyproject.toml"), "-q",
               "--collect-only", "--rootdir", str(directory), *options, str(directory)]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT / "tests", capture_output=True, text=True)
    assert done.returncode in (0, 5), done.stdout + done.stderr
    return {line.partition("::")[2] for line in done.stdout.splitlines() if "::" in line}


def test_the_options_select_a_tier_and_a_part(tmp_path: Path) -> None:
    """`-m "not slow"` leaves the named cases, and a part of `-m slow` has its share of the others."""
    everyday = {"test_quick", "test_sweep[a-1]", "test_sweep[a-2]", "test_sweep[c]"}
    assert selected(tmp_path, "-m", "not slow") == everyday
    first = {"test_slow", "test_with_the_same_fixtures", "test_sweep[d]"}  # the second: b and e
    assert selected(tmp_path, "-m", "slow", "--part", "1/2") == first


@pytest.mark.parametrize("which", ["0/2", "3/2", "x", "1/0", "1", "-1/2"])
def test_a_part_that_is_none_is_refused(which: str) -> None:
    """It is one line with the value and what is allowed."""
    with pytest.raises(pytest.UsageError, match=f"--part: '{re.escape(which)}' is not allowed; allowed: K/N"):
        tiers.part(["a", "b"], which)
