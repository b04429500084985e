"""Runs a suite of instant configurations, three to a process: the real runner and store, no model.

`light_worker.py run RESULTS LOG` runs the suite; `light_worker.py work LOG` is its worker, which
notes in LOG when it starts and writes its record by the store, as the real one does.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from pydantic import TypeAdapter

from bench.machine.process import die_with
from bench.record import Limits
from bench.run.runner import Runner
from bench.run.worker import Job
from bench.spec.run_spec import RunSpec, groups
from bench.spec.settings import TimingSettings

NAMES = [f"run-{i:02}" for i in range(32)]  # more than a busy machine finishes between twenty kills
LIMITS = Limits(
    flops_generation=1e9,
    attention_share=0.2,
    speedup_limit=1.25,
    realised=None,
    flops_per_second=1e9,
    mfu=0.5,
    peak=2e9,
    peak_source="made up",
)


def spec(name: str, suite: str = "light") -> RunSpec:
    """A configuration without a model to load."""
    return RunSpec(
        suite=suite, name=name, method="baseline", model="owner/light", random=True,
        weights="random", timing=TimingSettings(together=3),
    )  # fmt: skip


def run(results: Path, log: Path) -> None:
    """Run the suite as `bench run` does."""
    worker = (sys.executable, __file__, "work", str(log))
    for group in groups([spec(name) for name in NAMES]):
        Runner(results=results, worker=worker).run(*group)


def work(log: Path) -> None:
    """For each configuration take a while, then write the record."""
    jobs = TypeAdapter(list[Job]).validate_json(sys.stdin.read())
    die_with(jobs[0].parent)
    for job in jobs:
        note(log, f"start {job.spec.name} {os.getpid()}")
        time.sleep(float(os.environ.get("LIGHT_PAUSE", "0.1")))
        job.store.write(job.record(status="ok", limits=LIMITS), image=b"not really an image")
        note(log, f"wrote {job.spec.name} {os.getpid()}")


def note(log: Path, line: str) -> None:
    """Append a line, whole even where two processes write."""
    with log.open("a") as stream:
        stream.write(line + "\n")


if __name__ == "__main__":
    action, *paths = sys.argv[1:]
    actions: dict[str, Callable[..., None]] = {"run": run, "work": work}
    actions[action](*map(Path, paths))
