"""Runs that would mean nothing under random weights are skipped, and named."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from light_worker import LIMITS

from bench import methods
from bench.cli.reporting import report_of
from bench.errors import BadInput
from bench.record import Record
from bench.report.suite_report import SuiteReport
from bench.run.runner import Runner, skip_reason
from bench.run.worker import Job
from bench.spec.run_spec import RunSpec
from bench.spec.suite import Suite

WORKER = (sys.executable, "-c", "raise SystemExit('started though skipped')")


def spec(name: str, method: str = "dqar", **options: Any) -> RunSpec:
    return RunSpec(
        suite="light", name=name, method=method, options=options, model="owner/light", random=True,
        weights="random",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("method", "options", "depends"),
    [
        ("baseline", {}, False),
        ("dqar", {"preset": "maximum"}, False),
        ("dqar", {"entropy_quantile": 0.5}, True),
        ("dqar", {"entropy_threshold": 2.0}, True),
        ("dqar", {"entropy_threshold": 0.0}, False),  # forbids all, whatever is measured
        ("dqar", {"use_layer_scheduling": True, "schedule_type": "adaptive"}, True),
        ("dqar", {"use_learned_policy": True, "policy_path": "somewhere"}, True),
        ("fewer_steps", {"steps": 5}, False),
        ("taylorseer", {}, False),
        ("first_block", {}, True),
        ("dbcache", {}, True),
        ("magcache", {"steps": 5}, True),
    ],
)
def test_what_depends_on_data(method: str, options: dict[str, Any], depends: bool) -> None:
    """A method declares whether what the model computes decides its reuse; trained weights run all."""
    assert methods.get(method).by_data(options) is depends
    of_random = spec("run", method, **options)
    assert bool(skip_reason(of_random)) is depends
    assert skip_reason(of_random.model_copy(update={"weights": "trained"})) is None


def record_of(given: RunSpec, results: Path) -> tuple[Record, Path]:
    """The record that the runner leaves of a run, and its directory."""
    Runner(results=results, worker=WORKER).run(given)
    (path,) = results.rglob(f"{given.name}-*.json")
    return Record.model_validate_json(path.read_text()), path.parent


def test_a_skipped_run_is_a_record_that_the_report_names(tmp_path: Path) -> None:
    """No worker starts; the record has the reason, the report one line with it and no row, and it is no
    failure."""
    record, machine = record_of(spec("below", entropy_quantile=0.5), tmp_path)
    assert (record.status, record.timing, record.traceback) == ("skipped", None, None)
    assert record.reason and record.reason.startswith("needs trained weights")
    job = Job(spec=spec("fixed"), key="0" * 16, inputs={"machine": machine.name}, results=tmp_path, parent=1)
    ran = job.record(status="ok", limits=LIMITS)
    text = SuiteReport([ran, record], machine, "a command").write(tmp_path / "report").read_text()
    named = [line for line in text.splitlines() if "`below`" in line]
    assert named == [f"**Skipped:** `below`: {record.reason}."]
    assert "\n1 configuration on" in text
    assert text.index("Random weights") < text.index("Skipped") < text.index("**Summary:**")


def test_nothing_but_skipped_runs_is_bad_input(tmp_path: Path) -> None:
    """A report on no values at all is refused in one line with the reason."""
    record, machine = record_of(spec("below", entropy_quantile=0.5), tmp_path)
    with pytest.raises(BadInput, match="every run was skipped: needs trained weights"):
        report_of(Suite.load("smoke"), [record], machine, tmp_path / "report")


def test_the_report_of_a_device_is_named_after_it(tmp_path: Path) -> None:
    """The suite for any CUDA device reports under the name of the one found, the others under their own."""
    assert Suite.load("a100").report_dir(tmp_path, "nvidia-h100") == tmp_path / "nvidia-h100"
    assert Suite.load("smoke").report_dir(tmp_path, "nvidia-h100") == tmp_path / "smoke"


def test_the_suite_for_devices_covers_what_it_must() -> None:
    """Batches, both half precisions and all three baselines, each with a control next to a method."""
    runs = Suite.load("a100").specs()
    for dtype, compiled, graphs in (
        ("bf16", False, False), ("bf16", True, False), ("bf16", True, True), ("fp16", False, False),
    ):  # fmt: skip
        for batch in (1, 4, 32, 128):
            same = [
                s.method
                for s in runs
                if (s.dtype, s.compile, s.cuda_graphs, s.batch_size) == (dtype, compiled, graphs, batch)
            ]
            assert {"baseline", "dqar"} <= set(same), (dtype, compiled, graphs, batch)
    presets = {s.options.get("preset") for s in runs if s.name.startswith("dqar-")}
    assert presets == {"conservative", "recommended", "aggressive", "maximum"}
    dependent = {s.name.split("-")[0] for s in runs if methods.get(s.method).by_data(s.options)}
    assert dependent == {"entropy", "adaptive", "first_block"}


def test_a_report_without_a_complete_record_is_refused(tmp_path: Path) -> None:
    """A directory whose records all lack their images is refused in one line, as a skipped suite is."""
    with pytest.raises(BadInput, match="no complete record; needed: records with their images"):
        report_of(Suite.load("smoke"), [], tmp_path, tmp_path / "report")
