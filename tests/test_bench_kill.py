"""SIGKILL at any moment: a suite resumes, loses no finished record and repeats none."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml
from light_worker import NAMES

from bench.machine import identity
from bench.record import Record
from bench.store import validation

HERE = Path(__file__).parent
COMMAND = [sys.executable, str(HERE / "light_worker.py"), "run"]


def start(results: Path, log: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([*COMMAND, str(results), str(log)], cwd=HERE.parent)


def finished(results: Path) -> dict[str, int]:
    """Valid records by name, with the moment each was written."""
    paths = validation.files(results) if results.exists() else []
    read = {path: validation.checked(path) for path in paths}
    return {r.name: path.stat().st_mtime_ns for path, r in read.items() if isinstance(r, Record)}


def started(log: Path) -> list[list[str]]:
    return [line.split() for line in log.read_text().splitlines()] if log.exists() else []


def gone(pid: int) -> bool:
    """Whether the process ends without being asked, with some time for a busy machine."""
    end = time.monotonic() + 20
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.01)
    return not alive(pid)


def alive(pid: int) -> bool:
    """Whether the process runs; one that only waits to be reaped does not."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def kill_after(results: Path, log: Path, events: int, delay: float) -> bool:
    """Start the suite and SIGKILL it `delay` seconds after `events` more lines in its log; whether
    that met it at work."""
    before, process = len(started(log)), start(results, log)
    while len(started(log)) < before + events and process.poll() is None:
        time.sleep(0.005)
    time.sleep(delay)
    process.kill()
    return process.wait() == -signal.SIGKILL


@pytest.mark.everyday("5")
@pytest.mark.parametrize("kills", [5, 20])
def test_killed_suites_resume(
    kills: int, tmp_path: Path, warm_processes: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed at so many random moments and started again, a suite ends with the records of an undisturbed
    one; what was finished is never touched again; no worker outlives its parent."""
    results, log, rng = tmp_path / "results", tmp_path / "log", random.Random(0)
    for _ in range(kills):
        had = finished(results)
        assert kill_after(results, log, rng.choice((0, 1, 1, 2)), rng.uniform(0.0, 0.15))
        assert all(gone(int(pid)) for _, _, pid in started(log))
        assert had.items() <= finished(results).items()
    monkeypatch.setenv("LIGHT_PAUSE", "0")  # what is left need take no while
    assert start(results, log).wait() == 0

    assert sorted(finished(results)) == NAMES
    assert not [p for p in validation.files(results) if validation.validation_error(p)]
    wrote = [name for what, name, _ in started(log) if what == "wrote"]
    assert len(wrote) == len(set(wrote))
    undisturbed = tmp_path / "undisturbed"
    undisturbed.mkdir()  # of the same machine: its random id is part of every key
    (undisturbed / identity.FILE).write_bytes((results / identity.FILE).read_bytes())
    assert start(undisturbed, tmp_path / "other-log").wait() == 0
    assert _names(undisturbed) == _names(results)


@pytest.mark.slow
def test_a_killed_run_of_the_real_worker_resumes(
    tiny_suite: Path, tmp_path: Path, warm_processes: None, undrawn: None
) -> None:
    """`bench run`, killed while its second configuration is measured, goes on with that one."""
    runs = [{"name": name, "method": "baseline"} for name in ("first", "second")]
    timing = {"min_pairs": 10, "max_pairs": 10, "warmup": 0}  # long enough for the kill to meet
    content = yaml.safe_load(tiny_suite.read_text()) | {"quality": {"n": 0, "converged_n": 0}, "runs": runs}
    tiny_suite.write_text(yaml.safe_dump(content | {"timing": timing}))
    results = tmp_path / "results"
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "bench",
        "run",
        tiny_suite,
        "--results",
        results,
        "--reports",
        tmp_path,
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, cwd=HERE.parent, env=environment, stdout=subprocess.DEVNULL)
    while not (had := finished(results)) and process.poll() is None:
        time.sleep(0.02)
    time.sleep(random.Random(0).uniform(0.0, 0.3))
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert list(had) == ["first"]
    assert subprocess.run(command, cwd=HERE.parent, env=environment, capture_output=True).returncode == 0
    assert sorted(finished(results)) == ["first", "second"]
    assert had.items() <= finished(results).items()


def test_two_suites_at_once_share_the_work(
    tmp_path: Path, warm_processes: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two suites on one directory run each configuration once between them and corrupt nothing."""
    monkeypatch.setenv("LIGHT_PAUSE", "0.01")
    results, log = tmp_path / "results", tmp_path / "log"
    both = [start(results, log) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    assert sorted(finished(results)) == NAMES
    assert sorted(name for what, name, _ in started(log) if what == "start") == NAMES


def _names(results: Path) -> list[str]:
    return sorted(
        os.path.relpath(p, results) for p in results.rglob("*-*.*") if p.is_file() and ".cache" not in p.parts
    )
