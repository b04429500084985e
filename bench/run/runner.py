"""Runs the configurations of a suite one after another, in processes of their own.

An error, a crash or a hang there is that configuration's record; the others go on. Where a few share a
process (`timing.together`) and it dies, those it left without a record run again, each alone. Killed at
any moment, a suite resumes: finished records are found by their keys.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from pydantic import TypeAdapter

from bench import methods
from bench.errors import BadInput
from bench.machine.process import ALLOCATOR
from bench.pipeline import models
from bench.run.worker import Job
from bench.spec.run_spec import RunSpec
from bench.store import keys

WORKER = (sys.executable, "-m", "bench.run.worker")


def gap(spec: RunSpec) -> str | None:
    """State why a configuration does not run on its model, whatever the machine and the weights.

    Args:
        spec: the configuration, its `weights` settled.

    Returns:
        The reason in one line; None where it runs.
    """
    # The pipeline of class labels is known without a look at its files.
    pipeline = models.facts_of(spec).pipeline if spec.prompts else "DiTPipeline"
    if why := methods.get(spec.method).gap(pipeline, spec.options):
        return f"{spec.method} does not run on this model: {why}"
    return _other_plan(spec)


def skip_reason(spec: RunSpec) -> str | None:
    """State why a configuration is not measured on its model, on this machine or under its weights.

    Args:
        spec: the configuration, its `weights` settled.

    Returns:
        The reason in one line; None where it is measured.
    """
    if why := gap(spec):
        return why
    method = methods.get(spec.method)
    if why := method.lacks(spec.options):
        return f"not on this machine: {why}"
    if spec.weights == "trained" or not method.by_data(spec.options):
        return None
    return "needs trained weights: what it reuses depends on what the model computes"


def _other_plan(spec: RunSpec) -> str | None:
    """Why a plan that ships is not for this model."""
    if spec.method != "dqar" or "plan" not in spec.options:
        return None
    from bench.methods.dqar import other_layers

    layers = models.facts_of(spec).layers
    made_for = other_layers(spec.options, layers) if layers else None
    return f"its plan was calibrated for {made_for} layers, this model has {layers}" if made_for else None


@dataclass(frozen=True, kw_only=True)
class Runner:
    """How to run: where records and images go, whether finished ones are measured again, who hears of
    progress."""

    results: Path
    force: bool = False
    report: Callable[[str], None] = lambda text: None
    worker: Sequence[str] = WORKER
    inputs: Callable[[RunSpec, Path], dict[str, Any]] = keys.inputs
    keep_images: Path | None = None  # see `bench.run.image_files`

    def run(self, *specs: RunSpec) -> None:
        """Run those of the configurations that are not finished, in one process.

        Args:
            *specs: configurations that share a process, at least one, of one suite and model.
        """
        self.report(specs[0].name)
        with self.to_do(*specs) as jobs:
            self.work(jobs)

    @contextmanager
    def to_do(self, *specs: RunSpec) -> Iterator[list[Job]]:
        """Lock configurations: no other run measures any of them meanwhile.

        Args:
            *specs: the configurations, their `weights` settled.

        Yields:
            Those that must be measured, as jobs.
        """
        jobs = [self.job(spec) for spec in specs]
        with ExitStack() as locks:
            for job in sorted(jobs, key=lambda job: job.key):  # in one order: no deadlock
                locks.enter_context(job.store.lock(job.key))
            yield [job for job in jobs if self._is_due(job)]

    def is_finished(self, spec: RunSpec) -> bool:
        """Whether this machine has measured the configuration before, with these sources.

        Args:
            spec: the configuration, its `weights` settled.

        Returns:
            True where a record with its content key is stored; any change to spec, sources, packages or model
            is another key.
        """
        job = self.job(spec)
        return job.store.finished(spec.name, job.key)

    def job(self, spec: RunSpec) -> Job:
        """Make what a worker is asked.

        Args:
            spec: the configuration, its `weights` settled.

        Returns:
            The job with its content key.
        """
        given = self.inputs(spec, self.results)
        key = keys.key_of(spec.public(), given)
        return Job(spec=spec, key=key, inputs=given, results=self.results, parent=os.getpid())

    def _is_due(self, job: Job) -> bool:
        """Whether it must be measured; one that is skipped gets its record here."""
        if why := skip_reason(job.spec):
            job.store.write(job.record(status="skipped", reason=why))
            return False
        return self.force or not job.store.finished(job.spec.name, job.key)

    def work(self, jobs: Sequence[Job]) -> None:
        """Start the worker and see it through.

        What it left without a record runs alone, to show whose fault that is; where that leaves none either,
        the reason is the record.

        Args:
            jobs: configurations that share a process; may be empty.

        Raises:
            BadInput: the worker cannot write the results.
        """
        if not jobs:
            return
        before = [_stamp(job) for job in jobs]
        with tempfile.TemporaryFile("w+") as errors:
            code, timed_out = self._supervise(jobs, errors)
            errors.seek(0)
            output = errors.read().strip()
        # Among whatever else libraries say, at the process's end too.
        bad = next((line for line in output.splitlines() if line.startswith("results: ")), None)
        if code == 2 and bad:
            raise BadInput(bad)
        left = [job for job, stamp in zip(jobs, before, strict=True) if _stamp(job) == stamp]
        for job in left:
            if len(jobs) > 1:
                self.work([job])
            else:
                job.store.write(job.failure(_why(job, code, timed_out), output[-4000:] or None))

    def _supervise(self, jobs: Sequence[Job], errors: IO[str]) -> tuple[int, bool]:
        process = subprocess.Popen(
            self.worker,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=ALLOCATOR | os.environ,
            start_new_session=True,  # its children share its group: one kill ends them all
        )
        alarm = Alarm([job.spec.timeout_s for job in jobs], process)
        try:
            self._follow(jobs, process, alarm)
            return process.wait(), alarm.rang
        finally:
            alarm.off.set()
            kill(process)

    def _follow(self, jobs: Sequence[Job], process: subprocess.Popen[str], alarm: Alarm) -> None:
        assert process.stdin and process.stdout
        try:
            process.stdin.write(TypeAdapter(list[Job]).dump_json(list(jobs)).decode())
            process.stdin.close()
        except BrokenPipeError:
            return  # it died at once: its exit code states why
        for line in process.stdout:
            alarm.heard()
            self.report(line.strip())


class Alarm(threading.Thread):
    """Kills a worker that exceeds its configurations' time in all, or prints nothing for as long as one of
    them may take.

    Args:
        limits: seconds that each configuration may take; their sum is the limit of all.
        process: the worker, the leader of its process group.
    """

    def __init__(self, limits: Sequence[float], process: subprocess.Popen[str]) -> None:
        super().__init__(daemon=True)
        self.process = process
        self.end, self.patience = time.monotonic() + sum(limits), max(limits)
        self.off, self.rang = threading.Event(), False
        self.heard()
        self.start()

    def heard(self) -> None:
        """Note that the worker lives."""
        self.last = time.monotonic()

    def run(self) -> None:
        """Wait for the end, or to be switched off."""
        while (left := min(self.end, self.last + self.patience) - time.monotonic()) > 0:
            if self.off.wait(left):
                return
        self.rang = True
        kill(self.process)


def kill(process: subprocess.Popen[str]) -> None:
    """End a worker and its children.

    Args:
        process: the worker, the leader of its process group; one that has ended is left alone.
    """
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _stamp(job: Job) -> int | None:
    path = job.store.path(job.spec.name, job.key)
    return path.stat().st_mtime_ns if path.exists() else None


def _why(job: Job, code: int, timed_out: bool) -> str:
    if timed_out:
        return f"time limit: no result within {job.spec.timeout_s:g} s"
    if code == -signal.SIGKILL:
        return "killed (SIGKILL): most likely by the kernel, out of memory"
    if code < 0:
        return f"crashed: {signal.Signals(-code).name}"
    return f"the worker ended with {code} and left no record"
