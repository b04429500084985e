"""The check of a CUDA device at toy size on a CPU: each step leaves a result, whatever befalls the others."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import only_packages
import pytest

from bench.cli.publish import publish
from bench.record import Median
from bench.studies.gpu_check import identity, supervisor
from bench.studies.gpu_check.plan import CALL_S, FIRST, STEPS
from bench.studies.gpu_check.report import closing, headline, write_report
from bench.studies.gpu_check.rig import TOY, Rig
from bench.studies.gpu_check.step import Goal, Step, StepResult

ROOT = Path(__file__).parents[1]
# What a worker prints and leaves where `hang` never ends and `crash` kills its process.
SCRIPT = """
import json, os, sys, time
out, names = sys.argv[1], [n for n in sys.argv[2:] if not n.startswith("--")]
for name in names:
    print(name, flush=True)
    if name == os.environ["HANGS"]: time.sleep(600)
    if name == os.environ["CRASHES"]: os._exit(9)
    result = {"step": name, "title": "t", "status": "ok", "toy": True, "seconds": 0.0}
    open(f"{out}/{name}.json", "w").write(json.dumps(result))
    print("done", name, flush=True)
"""


# `graphs` is `compiled` where there is no device, `int8` starts two processes for what `memory` tests, and
# `max-autotune` compiles for a minute what `stack` tests.
CHEAP = [step for step in STEPS if step.name not in ("graphs", "int8", "max-autotune", "tests")]


@pytest.mark.everyday("identity", "syncs", "compiled", "whole", "gate", "competitors", "energy")
@pytest.mark.parametrize("step", CHEAP, ids=lambda step: step.name)
def test_each_step_measures_something_at_toy_size(step: Step, rig: Rig) -> None:
    """The code that a device will run gives every value that a goal asks for, but for those that need one."""
    values = step.measure(rig)
    assert values
    for goal in step.goals:
        assert goal.value in values


@pytest.fixture(scope="module")
def rig(tiny_model_dir: Path) -> Rig:
    """One loaded pipeline for all steps: toy size, and a smaller model still."""
    return Rig(replace(TOY, model=str(tiny_model_dir)))


def test_identity_holds_on_a_cpu(rig: Rig) -> None:
    """The step sees that off and removed are identical, where they are."""
    values = STEPS[0].measure(rig)
    assert values["off is identical"] is True and values["removed is identical"] is True


def test_a_hang_and_a_crash_cost_their_own_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The steps before and after one that hangs, and one that kills its process, have their results."""
    names = [step.name for step in STEPS][:5]
    script = tmp_path / "worker.py"
    script.write_text(SCRIPT)
    monkeypatch.setattr(supervisor, "COMMAND", ("python3", str(script)))
    monkeypatch.setenv("HANGS", names[1])
    monkeypatch.setenv("CRASHES", names[3])
    monkeypatch.setattr(supervisor, "LIMIT_SCALE", 0.05)
    results = supervisor.run_check(tmp_path / "out", names, False, 120, lambda line: None)
    assert [r.status for r in results] == ["ok", "failed", "ok", "failed", "ok"]
    assert "no result after" in (results[1].reason or "") and "9" in (results[3].reason or "")


def test_a_spent_budget_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps that the budget leaves no time for are skipped results with that reason."""
    script = tmp_path / "worker.py"
    script.write_text(SCRIPT)
    monkeypatch.setattr(supervisor, "COMMAND", ("python3", str(script)))
    monkeypatch.setenv("HANGS", STEPS[0].name)
    monkeypatch.setenv("CRASHES", "")
    results = supervisor.run_check(tmp_path / "out", [], True, 1.0, lambda line: None)
    assert [r.status for r in results] == ["failed"] + ["skipped"] * (len(STEPS) - 1)
    assert all("budget" in (r.reason or "") for r in results)


@pytest.mark.parametrize(
    "goal, value, verdict",
    [
        (Goal("x", at_least=2.5), Median(median=3.0, low=2.6, high=3.1), "met"),
        (Goal("x", at_least=2.5), Median(median=2.6, low=2.4, high=3.1), "unclear"),
        (Goal("x", at_least=2.5), Median(median=2.0, low=1.9, high=2.4), "missed"),
        (Goal("x", at_most=0.51), 0.5, "met"),
        (Goal("x", at_most=0.51), 0.52, "missed"),
        (Goal("x", at_most=0), None, "not measured"),
        (Goal("x", at_least=1), False, "missed"),
    ],
)
def test_a_goal_is_met_by_the_whole_interval(goal: Goal, value: object, verdict: str) -> None:
    """A bound inside the interval is unclear, whatever the middle is."""
    assert goal.verdict(value) == verdict  # type: ignore[arg-type]


def test_the_page_names_what_failed_before_its_values(tmp_path: Path) -> None:
    """The summary counts missed goals and names the steps without a result."""
    results = [
        StepResult(step="a", title="t", status="ok", toy=False, seconds=1, values={"x": 1.0},
                   goals={"x at least 2": "missed"}),
        StepResult(step="b", title="t", status="failed", reason="it | hung", toy=False, seconds=0),
    ]  # fmt: skip
    page = write_report(results, "device", tmp_path).read_text()
    assert "1 missed" in headline(results) and "b" in headline(results)
    assert "it \\| hung" in page


def test_the_last_lines_are_the_summary() -> None:
    """Each step has a line with what was measured and how that was judged, and the goals' count is last."""
    speedup = Median(median=3.0, low=2.6, high=3.1)
    results = [
        StepResult(step="a", title="t", status="ok", toy=False, seconds=1, values={"x": speedup},
                   goals={"x at least 2.5": "met"}),
        StepResult(step="b", title="t", status="skipped", reason="no time", toy=False, seconds=0),
    ]  # fmt: skip
    _, first, second, last = closing(results).splitlines()
    assert "x at least 2.5: 3 [2.6, 3.1], met" in first
    assert "b: skipped: no time" in second and last == headline(results)


def test_the_important_steps_fit_the_call() -> None:
    """The limits of the steps up to the int8 cache, by importance, are within one call's time."""
    names = [step.name for step in STEPS]
    important = STEPS[: names.index(FIRST) + 1]
    assert [step.name for step in important] == ["identity", "syncs", "compiled", "graphs", "gate", "int8"]
    assert sum(step.limit_s for step in important) <= CALL_S


def test_what_is_not_verified_names_steps_that_exist() -> None:
    """The README's list of what never ran on a device has every step of the check in it, and no other."""
    section = (ROOT / "README.md").read_text().split("### Not verified on CUDA")[1].split("###")[0]
    named = [name for part in re.findall(r"`gpu-check`: ([^;|]*)", section) for name in part.split("`")[1::2]]
    assert {*named} == {step.name for step in STEPS} - {"tests"}


def test_a_workers_start_is_of_its_first_steps_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that takes longer to start than its first step may is not waited for, once it prints."""
    script = tmp_path / "worker.py"
    script.write_text("import time; time.sleep(1.5)\n" + SCRIPT)
    monkeypatch.setattr(supervisor, "COMMAND", ("python3", str(script)))
    monkeypatch.setattr(supervisor, "LIMIT_SCALE", 2 / STEPS[0].limit_s)  # two seconds
    monkeypatch.setenv("HANGS", STEPS[0].name)
    monkeypatch.setenv("CRASHES", "")
    start = time.monotonic()
    (result,) = supervisor.run_check(tmp_path / "out", [STEPS[0].name], False, 60, lambda line: None)
    assert result.reason == "no result after 2 s" and time.monotonic() - start < 3


def test_a_wait_is_an_error_where_it_is_one(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan in whose loop torch refuses a wait did not run without one; another error is no wait."""

    def raising(message: str) -> Any:
        def around(rig: Rig, mode: str) -> None:
            if mode == "error":
                raise RuntimeError(message)

        return around

    monkeypatch.setattr(identity, "_mode", raising(f"called a {identity.SYNC}"))
    assert not identity._runs_without_wait(rig, identity.PLANS["forecast"])
    monkeypatch.setattr(identity, "_mode", raising("shapes do not match"))
    with pytest.raises(RuntimeError, match="shapes"):
        identity._runs_without_wait(rig, None)
    monkeypatch.undo()
    assert identity._runs_without_wait(rig, None)


def test_results_are_files_of_their_own(tmp_path: Path) -> None:
    """What a step left is read again in the check's order."""
    for name in (STEPS[1].name, STEPS[0].name):
        content = {"step": name, "title": "t", "status": "ok", "toy": True, "seconds": 0.0}
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    assert [r.step for r in supervisor.results(tmp_path)] == [STEPS[0].name, STEPS[1].name]


def named_packages() -> list[str]:
    """The packages that the check's page names for all steps."""
    page = (ROOT / "bench/studies/gpu_check/README.md").read_text()
    (row,) = re.findall(r"^\| all steps \| (.*) \|$", page, re.MULTILINE)
    return [name.split()[0] for name in row.split(", ")]


@pytest.mark.slow
def test_the_named_packages_are_enough(tmp_path: Path) -> None:
    """Where nothing but what the page names can be imported, the command and its processes run."""
    command = "-m bench gpu-check --toy --steps identity,int8 --results results --reports reports"
    environment = only_packages.environment(named_packages(), tmp_path)
    done = subprocess.run(
        [sys.executable, *command.split()], cwd=tmp_path, env=environment,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def left(directory: Path, step: str, x: float) -> None:
    """Write what a step leaves."""
    result = StepResult(step=step, title="t", status="ok", toy=False, seconds=1, values={"x": x})
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f"{step}.json").write_text(result.model_dump_json())


def test_what_a_device_left_is_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second call's steps join those of the first on its page, another machine's page stays, and a trial
    at toy size is kept back."""
    monkeypatch.chdir(tmp_path)
    left(Path("results/published/gpu-check/first-device"), "identity", 1.25)
    left(Path("results/published/gpu-check/second-device"), "identity", 2.25)
    left(Path("results/local/gpu-check/second-device"), "energy", 3.25)
    left(Path("results/local/gpu-check/a-cpu-toy"), "identity", 4.25)
    pages = publish("gpu-check")
    assert [page.parent.name for page in pages] == ["first-device", "second-device"]
    assert "1.25" in pages[0].read_text() and {"2.25", "3.25"} <= {*pages[1].read_text().split()}
    assert "gpu-check/second-device/README.md" in Path("reports/README.md").read_text()
    assert Path("results/published/gpu-check/second-device/energy.json").is_file()
    assert not [*Path().rglob("results/published/**/a-cpu-toy")]
    assert not Path("results/local/gpu-check/second-device/energy.json").exists()
    assert publish("all") == pages
