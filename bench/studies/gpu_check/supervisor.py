"""Runs the steps in a worker process under time limits: a hang or crash costs its own step alone."""

from __future__ import annotations

import logging
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from bench.machine.files import write_atomic
from bench.studies.gpu_check.plan import STEPS, chosen
from bench.studies.gpu_check.report import summary
from bench.studies.gpu_check.step import Step, StepResult
from dqar.utils.foreign import read_json

log = logging.getLogger(__name__)
COMMAND = (sys.executable, "-m", "bench.studies.gpu_check.worker")
LIMIT_SCALE = 1.0  # tests wait less
TOY_SCALE = 4.0  # a CPU compiles for minutes, and is often busy
Report = Callable[[str], None]


def run_check(out: Path, names: list[str], toy: bool, budget_s: float, report: Report) -> list[StepResult]:
    """Run steps within a budget; every step leaves `<out>/<name>.json`.

    A step that fails, hangs past its limit, kills its process or finds the budget spent is a result with its
    reason; the others go on in a new process.

    Args:
        out: the directory of the results.
        names: names of the steps to run; empty: all.
        toy: whether to run at a size that a CPU can take.
        budget_s: seconds that all steps may take together.
        report: it is given a line as each step begins and ends.

    Returns:
        What the steps left, in the check's order.
    """
    steps, deadline = chosen(names), time.monotonic() + budget_s
    out.mkdir(parents=True, exist_ok=True)
    for step in steps:
        _path(out, step).unlink(missing_ok=True)
    left = steps
    while left and time.monotonic() < deadline:
        ended = _work(out, left, toy, deadline, report)
        left = [step for step in left if step.name not in ended]
    for step in left:
        _leave(out, step, toy, "skipped", f"the budget of {budget_s:g} s was spent", report)
    return results(out)


def results(out: Path) -> list[StepResult]:
    """Read what steps left.

    Args:
        out: the directory of the results.

    Returns:
        The results in the check's order.
    """
    paths = [_path(out, step) for step in STEPS]
    return [_result(path) for path in paths if path.exists()]


def _result(path: Path) -> StepResult:
    return StepResult.model_validate(read_json(path, "step"))


def _work(out: Path, steps: list[Step], toy: bool, deadline: float, report: Report) -> set[str]:
    """One worker over `steps`, until it ends or is killed; the names that have a result now."""
    command = [*COMMAND, str(out), *[step.name for step in steps], *(["--toy"] if toy else [])]
    worker = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    lines, known, ended = _lines(worker), {step.name: step for step in steps}, set[str]()
    current, limit = steps[0], _limit(steps[0], toy, deadline)
    try:
        while True:
            try:
                line = lines.get(timeout=max(0.0, limit - time.monotonic()))
            except queue.Empty:
                if current.name in ended:  # its process only takes long to leave
                    return ended
                spent = time.monotonic() >= deadline
                why = "the budget was spent" if spent else f"no result after {_seconds(current, toy):g} s"
                _leave(out, current, toy, "failed", why, report)
                return ended | {current.name}
            if line is None:
                if current.name not in ended:
                    _leave(out, current, toy, "failed", f"its process ended with {worker.wait()}", report)
                return ended | {current.name}
            if line in known:
                if line != current.name:  # the first one's time runs since its process started
                    limit = _limit(known[line], toy, deadline)
                current = known[line]
                report(f"{current.name}: {current.title}")
            elif line == f"done {current.name}":
                ended.add(current.name)
                report(summary(_result(_path(out, current))))
    finally:
        _end(worker)


def _limit(step: Step, toy: bool, deadline: float) -> float:
    """When a step that begins now has had its time."""
    return min(deadline, time.monotonic() + _seconds(step, toy))


def _seconds(step: Step, toy: bool) -> float:
    return LIMIT_SCALE * step.limit_s * (TOY_SCALE if toy else 1)


def _lines(worker: subprocess.Popen[str]) -> queue.Queue[str | None]:
    """What the worker prints, line by line; None where it has ended."""
    lines: queue.Queue[str | None] = queue.Queue()

    def read() -> None:
        for line in worker.stdout or ():
            lines.put(line.strip())
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    return lines


def _end(worker: subprocess.Popen[str]) -> None:
    """Kill the worker with whatever it started: compilers and samplers are of its process group."""
    if worker.poll() is None:
        os.killpg(worker.pid, signal.SIGKILL)
    worker.wait()


def _leave(out: Path, step: Step, toy: bool, status: str, reason: str, report: Report) -> None:
    goals = {str(goal): goal.verdict(None) for goal in step.goals}
    result = StepResult.model_validate(
        {"step": step.name, "title": step.title, "status": status, "reason": reason, "toy": toy,
         "seconds": 0.0, "goals": goals}
    )  # fmt: skip
    write_atomic(_path(out, step), (result.model_dump_json(indent=1) + "\n").encode())
    report(summary(result))


def _path(out: Path, step: Step) -> Path:
    return out / f"{step.name}.json"
