"""Configurations that share a process and a baseline: what each gets, and what none does to another."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from faulty_worker import WORKER

from bench.machine import provenance
from bench.measure import timing
from bench.pipeline.session import Session
from bench.record import Record
from bench.run.runner import Alarm, Runner, kill
from bench.spec.run_spec import RunSpec, groups
from bench.store.records import Store

pytestmark = pytest.mark.usefixtures("faults", "warm_processes")
PAIRS = 3


def spec(model: Path, method: str, together: int = 8, **changes: Any) -> RunSpec:
    settings: dict[str, Any] = {
        "suite": "together",
        "name": method.replace("_", "-"),
        "method": method,
        "options": {"dqar": {"preset": "maximum"}, "fewer_steps": {"steps": 3}}.get(method, {}),
        "model": str(model),
        "num_inference_steps": 6,
        "batch_size": 2,
        "timing": {"min_pairs": PAIRS, "max_pairs": PAIRS, "warmup": 1, "together": together},
        "quality": {"n": 4, "converged_n": 0, "extractor": None},
        "memory": False,
    }
    return RunSpec(**settings | changes)


def sessions(model: Path, *methods: str) -> list[Session]:
    first, *others = (spec(model, method) for method in methods)
    opened = Session.open(first)
    return [opened, *map(opened.under, others)]


def test_a_round_has_one_baseline(tiny_model_dir: Path) -> None:
    """All get the same baseline seconds and images in each round, and names who shared them; the order
    within a round varies."""
    progress: list[str] = []
    timed = timing.measure_together(
        sessions(tiny_model_dir, "baseline", "dqar", "fewer_steps"), progress.append
    )
    for pairs in timed[1:]:
        assert [base for base, _ in pairs.seconds] == [base for base, _ in timed[0].seconds]
        assert all(a is b for a, b in zip(pairs.baseline, timed[0].baseline, strict=True))
    assert [len(pairs.seconds) for pairs in timed] == [PAIRS] * 3
    assert timed[1].shared_with == ["baseline", "fewer-steps"]
    rounds = [[line for line in progress if line.startswith(f"round {i + 1}: ")] for i in range(PAIRS)]
    assert {len(lines) for lines in rounds} == {4}  # each candidate, the control among them, and one baseline
    assert len({tuple(line.split(": ")[1] for line in lines) for lines in rounds}) > 1


def test_what_is_generated_does_not_depend_on_what_is_timed_alongside(tiny_model_dir: Path) -> None:
    """A method makes bit for bit the images that it makes alone, and so does the baseline."""
    (alone,) = timing.measure_together(sessions(tiny_model_dir, "dqar"), lambda text: None)
    *_, among = timing.measure_together(
        sessions(tiny_model_dir, "taylorseer", "first_block", "dqar"), lambda text: None
    )
    for arm in ("baseline", "candidate"):
        for a, b in zip(getattr(alone, arm), getattr(among, arm), strict=True):
            assert torch.equal(a.latents, b.latents)


@pytest.mark.parametrize("fault", ["raises", "returns_nan"])
def test_one_that_raises_leaves_alone(tiny_model_dir: Path, fault: str) -> None:
    """Its error is kept and it is not run again; the others' rounds go on to their end."""
    progress: list[str] = []
    broken, whole = timing.measure_together(sessions(tiny_model_dir, fault, "dqar"), progress.append)
    assert broken.error and not broken.seconds
    assert whole.error is None and len(whole.seconds) == PAIRS
    assert not [line for line in progress if line == f"round 2: {fault.replace('_', '-')}"]


def test_each_stops_by_itself(tiny_model_dir: Path) -> None:
    """One whose interval is narrow enough leaves the rounds; the others go on."""
    base, *_ = opened = sessions(tiny_model_dir, "baseline", "fewer_steps")
    settings = base.spec.timing.model_copy(update={"max_pairs": 6, "target_halfwidth": 1e-9})
    easy = settings.model_copy(update={"target_halfwidth": 0.999})
    opened[0].spec = base.spec.model_copy(update={"timing": easy})
    opened[1].spec = opened[1].spec.model_copy(update={"timing": settings})
    first, second = timing.measure_together(opened, lambda text: None)
    assert (len(first.seconds), first.stopped) == (PAIRS, "target")
    assert (len(second.seconds), second.stopped) == (6, "pairs")


def run(chosen: Sequence[RunSpec], results: Path) -> list[Record]:
    """The records after a run of the real runner and worker, in order."""
    runner = Runner(results=results, worker=WORKER)
    for group in groups(chosen):
        runner.run(*group)
    store = Store(results, "together", provenance.machine())
    return store.records([each.name for each in chosen])


@pytest.mark.slow
def test_a_process_that_dies_takes_no_other_along(tiny_model_dir: Path, tmp_path: Path) -> None:
    """Where one of a group crashes, each without a record runs alone: the fault's own is the only failed
    record, the others' are complete and state that they were timed alone."""
    chosen = [spec(tiny_model_dir, name) for name in ("baseline", "crashes", "dqar")]
    first, broken, last = run(chosen, tmp_path)
    assert broken.reason == "crashed: SIGABRT"
    for record in (first, last):
        assert record.status == "ok" and record.timing and record.timing.shared_with == []


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[str]]:
    """A worker that does nothing, in a group of its own as workers are."""
    process = subprocess.Popen(["sleep", "60"], text=True, start_new_session=True)
    yield process
    kill(process)


def test_a_hang_is_noticed_by_its_silence(sleeper: subprocess.Popen[str]) -> None:
    """A worker that reports nothing is killed after the time of one configuration, not of all."""
    alarm = Alarm([1.0] * 60, sleeper)
    alarm.join(30)
    assert alarm.rang and sleeper.poll() is not None


def test_one_that_talks_has_the_time_of_all(sleeper: subprocess.Popen[str]) -> None:
    """A worker that is heard of goes on beyond the time of one configuration, and ends with that of all."""
    started, limits = time.monotonic(), [0.5] * 4
    alarm = Alarm(limits, sleeper)
    while alarm.is_alive():
        alarm.heard()
        time.sleep(0.02)
    assert alarm.rang and sum(limits) <= time.monotonic() - started


def test_a_suite_runs_in_groups(tiny_model_dir: Path, tmp_path: Path) -> None:
    """`timing.together` decides who shares a process; an error in the midst is its own record; what is
    finished is left as it is, and only what ran is named as company."""
    names = ("dqar", "raises", "fewer_steps", "taylorseer", "baseline")
    chosen = [spec(tiny_model_dir, name, together=4) for name in names]
    (finished,) = run(chosen[2:3], tmp_path)
    dqar, broken, kept, taylorseer, baseline = run(chosen, tmp_path)
    assert kept == finished
    assert broken.reason == "RuntimeError: shapes do not match"
    assert "faulty_worker.py" in (broken.traceback or "")
    assert dqar.timing and taylorseer.timing and baseline.timing
    assert dqar.timing.shared_with == ["raises", "taylorseer"] and baseline.timing.shared_with == []
    assert [base for base, _ in dqar.timing.pairs] == [base for base, _ in taylorseer.timing.pairs]


def test_who_is_measured_together() -> None:
    """Those in a row with the same settings, at most `together` of them; compiled ones alone."""
    few, alone = Path("model"), {"compile": True}
    row = [spec(few, "baseline", 2, name=f"run-{i}") for i in range(3)]
    other = spec(few, "baseline", 2, name="other", batch_size=4)
    compiled = [spec(few, "baseline", 2, name=f"compiled-{i}", **alone) for i in range(2)]
    grouped = [[s.name for s in group] for group in groups([*row, other, *compiled])]
    assert grouped == [["run-0", "run-1"], ["run-2"], ["other"], ["compiled-0"], ["compiled-1"]]
