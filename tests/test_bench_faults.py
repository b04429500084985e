"""What goes wrong in one configuration is its record, with the reason; the others are complete."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from faulty_worker import WORKER

from bench.record import Record
from bench.run import worker
from bench.run.runner import Runner
from bench.run.worker import Job
from bench.spec.run_spec import RunSpec
from bench.store import keys
from bench.store.records import Store

pytestmark = pytest.mark.usefixtures("faults", "warm_processes")


def spec(model: Path, method: str, **changes: Any) -> RunSpec:
    settings: dict[str, Any] = {
        "suite": "faults",
        "name": method.replace("_", "-"),
        "method": method,
        "model": str(model),
        "num_inference_steps": 6,
        "batch_size": 2,
        "timing": {"min_pairs": 2, "max_pairs": 2, "warmup": 0},
        "quality": {"n": 4, "converged_n": 0, "extractor": None},
        "memory": False,
    }
    return RunSpec(**settings | changes)


def attempted(spec: RunSpec, results: Path) -> Record:
    """The record of a run in this process."""
    given = keys.inputs(spec)
    key = keys.key_of(spec.public(), given)
    job = Job(spec=spec, key=key, inputs=given, results=results, parent=0)
    ((_, record, _),) = worker.records([job])
    return record


def test_an_error_is_a_record(tiny_model_dir: Path, tmp_path: Path) -> None:
    """An exception in the model is a failed record with its line and a traceback without paths."""
    record = attempted(spec(tiny_model_dir, "raises"), tmp_path)
    assert record.status == "failed"
    assert record.reason == "RuntimeError: shapes do not match"
    assert "faulty_worker.py" in (record.traceback or "")
    assert str(Path(__file__).parents[1]) not in (record.traceback or "")


def test_files_that_fail_late_are_records_without_their_paths(tiny_model_dir: Path, tmp_path: Path) -> None:
    """Weights that cannot be read when they are needed fail the run, which names them, but not where
    they are."""
    place = tmp_path / "secret"
    (place / "real").mkdir(parents=True)  # a directory is no file of weights
    quality = {"n": 4, "converged_n": 0, "extractor": None, "inception_weights": str(place / "real")}
    record = attempted(spec(tiny_model_dir, "baseline", quality=quality), tmp_path / "results")
    assert record.status == "failed" and "real" in (record.reason or "")
    assert "secret" not in record.model_dump_json()


def test_nan_is_a_record_naming_step_and_layer(tiny_model_dir: Path, tmp_path: Path) -> None:
    """A NaN in a latent fails the run and names the step and layer it first came out of."""
    record = attempted(spec(tiny_model_dir, "returns_nan"), tmp_path)
    assert record.status == "failed"
    assert "step 4, layer 3" in (record.reason or "")


def test_processes_that_die_or_hang_are_records(tiny_model_dir: Path, tmp_path: Path) -> None:
    """A crash, a hang and exhausted memory are records with their reasons, and the configuration
    after them is complete."""
    runs = [
        spec(tiny_model_dir, "crashes"),
        spec(tiny_model_dir, "hangs", timeout_s=3),
        spec(tiny_model_dir, "exhausts_memory"),
        spec(tiny_model_dir, "baseline", memory=True),
    ]
    runner = Runner(results=tmp_path, worker=WORKER)
    for each in runs:
        runner.run(each)
    machine = next((tmp_path / "faults").iterdir()).name
    records = Store(tmp_path, "faults", machine).records([each.name for each in runs])
    reasons = {record.name: record.reason or "" for record in records}
    assert reasons["crashes"] == "crashed: SIGABRT"
    assert reasons["hangs"] == "time limit: no result within 3 s"
    assert reasons["exhausts-memory"].startswith("out of memory: ")
    assert [record.status for record in records] == ["failed"] * 3 + ["ok"]
    _check_complete(records[-1])


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("import os; os.abort()", "crashed: SIGABRT"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "killed (SIGKILL): most likely"),
        ("import time; time.sleep(10_000)", "time limit: no result within 0.5 s"),
        ("raise SystemExit(3)", "the worker ended with 3 and left no record"),
        ("import sys; sys.exit('nothing to say')", "the worker ended with 1 and left no record"),
    ],
)
def test_a_new_interpreter_that_leaves_no_record_has_its_reason(
    statement: str, reason: str, tiny_model_dir: Path, tmp_path: Path
) -> None:
    """A worker that is a process of its own from its first instruction, and crashes, is killed, hangs or ends
    early, is a failed record with the reason."""
    run = spec(tiny_model_dir, "baseline", timeout_s=0.5 if "sleep" in statement else 60)
    Runner(results=tmp_path, worker=(sys.executable, "-c", statement)).run(run)
    (path,) = (tmp_path / "faults").rglob("baseline-*.json")
    record = Record.model_validate_json(path.read_text())
    assert record.status == "failed" and (record.reason or "").startswith(reason)


def _check_complete(record: Record) -> None:
    """The control: nothing differs, and every part is there."""
    assert record.timing and record.quality and record.memory and record.limits
    assert record.quality.identical
    assert record.quality.drift.mean == 0
    assert record.quality.psnr_db is None
    assert len(record.timing.pairs) == 2
    assert record.timing.verdict == "AMBIGUOUS"  # two pairs carry none
    assert record.limits.speedup_limit == 1
    assert record.limits.realised is None
    assert record.memory.rss_peak and record.memory.rss_idle
    assert record.memory.rss_peak > record.memory.rss_idle > 0
    assert set(record.memory.missing) >= {"energy_j"} or record.memory.energy_j
