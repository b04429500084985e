"""Runs a suite on a Ray cluster: first what is timed, on devices held alone, then quality in shards.

Groups of configurations that share a baseline are timed by one process on one device, while nothing else of
the suite runs there. Quality is then made by all workers, in tasks of about a minute: the images a to b of
all configurations that lack them, so that the baseline and the converged trajectory are made once for all.
What is finished is in the store: timed records in `.cache/timed`, shards in `.cache/shards`. Nothing there
is made again.

A shard of a configuration is measured against the baseline's images and the converged latents. The latents
are part of the baseline's shard, and go with each task that is planned once that is there. The images are
kept in `.cache` where this machine alone makes them; from other nodes none come back. There a task makes
the baseline's of its images again, once for all its configurations, where configurations are added later.
Configurations that are compiled, and those of a task that failed as a whole, are tasks of their own: each
makes the baseline's images again, and solves where the baseline's shard was not there when they were
planned. A task whose worker was lost is made again as a whole.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import os
import pickle
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from bench.machine import provenance
from bench.machine.files import write_atomic
from bench.machine.identity import machine_id
from bench.machine.process import ALLOCATOR
from bench.record import Record
from bench.run.actor import Actor
from bench.run.nodes import Node, Nodes, connect
from bench.run.placement import TRIAL_S, Item, Progress, Result
from bench.run.quality_run import QualityRun
from bench.run.runner import WORKER, Runner
from bench.run.worker import Job
from bench.spec.run_spec import RunSpec
from bench.store import keys

SLACK_S = 60.0  # of a timed task beyond the limits that its process keeps by itself


@contextmanager
def placed(
    workers: int | None = None,
    device_kind: str | None = None,
    dashboard: bool = False,
    threads: int | None = None,
) -> Iterator[Ray]:
    """Open a placement on the cluster of RAY_ADDRESS, or on one of this machine that ends with the run.

    Args:
        workers: at most so many; None: one a GPU, or a CPU core.
        device_kind: which nodes are used, where they differ.
        dashboard: whether a cluster that is started here shows Ray's dashboard, on the loopback.
        threads: of a worker on a CPU; None: the cores, shared out among the workers.

    Yields:
        The placement.

    Raises:
        BadInput: Ray is not installed, no cluster is there, or its devices are of several kinds.
    """
    shown = connect(workers, dashboard)
    import ray

    try:
        yield Ray(nodes=Nodes(device_kind), workers=workers, threads=threads, dashboard=shown)
    finally:
        ray.shutdown()


@dataclass
class Ray:
    """The placement on the nodes of one kind of device."""

    nodes: Nodes
    workers: int | None = None
    command: Sequence[str] = WORKER  # of the process that times
    worker: type[Actor] = Actor
    threads: int | None = None
    dashboard: str = ""  # its address, of a cluster that was started here to show it
    first: Node = field(init=False)  # what all are like

    def __post_init__(self) -> None:
        self.first = self.nodes.alive()[0]

    @property
    def machine(self) -> str:
        """The kind of machine that measures."""
        return self.first.machine

    @property
    def device(self) -> str:
        """Where models run there."""
        return "cuda" if self.first.gpus else "cpu"

    def inputs(self, spec: RunSpec, results: Path) -> dict[str, Any]:
        """Collect what a record depends on: on this machine as without Ray, else the nodes' kind is the
        machine.

        Args:
            spec: the configuration.
            results: the root directory of the records.

        Returns:
            Digests and versions by name, see `bench.store.keys.inputs`.
        """
        given = keys.inputs(spec, results) | {"packages": self.first.packages}
        if self.machine == given["machine"]:
            return given
        identity = hashlib.sha256(f"{self.machine} of {machine_id(results)}".encode()).hexdigest()[:16]
        return given | {"machine": self.machine, "machine_id": identity}

    def run(self, groups: Sequence[Sequence[RunSpec]], runner: Runner, progress: Progress) -> None:
        """Time what is due, then make its quality; each record is written as soon as it is whole.

        Args:
            groups: configurations that are timed together, by group.
            runner: knows the store, and what is finished.
            progress: counts what is done.
        """
        specs = [spec for group in groups for spec in group]
        with runner.to_do(*specs) as jobs:
            due = {job.spec.name: job for job in jobs}
            progress.advance(len(specs) - len(due))
            timed: dict[str, Record] = {}
            waiting = [[due[spec.name] for spec in group if spec.name in due] for group in groups]
            pool = self.pool(alone=True)
            try:
                for job, record, image in self._timed(pool, waiting, runner.force, progress):
                    if record.status == "ok" and job.spec.measures_quality:
                        timed[job.spec.name] = record
                        write_atomic(_partial(job), record.model_dump_json().encode())
                    else:
                        job.store.write(record, image)
                        progress.advance(1, self.size, record.status == "failed")
                pool = self._for_quality(pool)
                jobs = [due[name] for name in timed]
                run = QualityRun(jobs, timed, self._speed(), self.size, runner.keep_images)
                self._quality(pool, run, progress)
            finally:
                pool.close()

    def map(
        self,
        make: Callable[[], Callable[[Item], Result]],
        items: Iterable[Item],
        limit_s: float | None = TRIAL_S,
    ) -> list[Result]:
        """Evaluate items on the workers, whose evaluations are kept.

        Args:
            make: returns the evaluation; it is called once a worker, and equal pickles are one.
            items: what is evaluated; they and the results can be pickled.
            limit_s: seconds that one may take; None: as long as it needs.

        Returns:
            What the evaluation returns for each, in order.

        Raises:
            RuntimeError: an evaluation failed, or its worker was lost.
        """
        from bench.run.pool import Failure, Task

        key = hashlib.sha256(pickle.dumps(make)).hexdigest()
        limit = math.inf if limit_s is None else limit_s
        tasks = [Task("trial", (key, make, item), limit, i) for i, item in enumerate(items)]
        results: dict[int, Any] = {}
        for task, result in self._trials.results(tasks):
            if isinstance(result, Failure):
                raise RuntimeError(f"a trial failed: {result.reason}")
            results[task.what] = result
        return [results[i] for i in range(len(tasks))]

    @property
    def size(self) -> int:
        """Workers that make quality."""
        there: int = sum(slots.count for slots in self._slots(alone=False))
        return there if self.workers is None else min(there, self.workers)

    @functools.cached_property
    def _trials(self) -> Any:
        return self.pool(alone=False)

    def _for_quality(self, timing: Any) -> Any:
        """The pool that makes quality: the one that timed where its workers are alike, on GPUs above all."""
        if self._slots(alone=True) != self._slots(alone=False):
            timing.close()
            return self.pool(alone=False)
        timing.slots = functools.partial(self._slots, False)
        return timing

    def _timed(
        self, pool: Any, groups: Iterable[Sequence[Job]], force: bool, progress: Progress
    ) -> Iterator[tuple[Job, Record, bytes | None]]:
        """The timed records of the groups' configurations: what was timed before is read."""
        from bench.run.pool import Failure, Task

        tasks = []
        for group in groups:
            kept = {job.spec.name: None if force else _read_partial(job) for job in group}
            yield from ((job, record, None) for job in group if (record := kept[job.spec.name]))
            if left := [job for job in group if not kept[job.spec.name]]:
                tasks.append(self._timed_task(left))
        while tasks:
            progress.say(f"timing {sum(len(task.what) for task in tasks)} configurations")
            again: list[Task] = []
            for task, result in pool.results(tasks):
                if not isinstance(result, Failure):
                    yield from _records(task.what, result)
                elif len(task.what) > 1:  # each by itself, to show whose fault it is
                    again += [self._timed_task([job]) for job in task.what]
                else:
                    yield task.what[0], task.what[0].failure(result.reason, result.trace), None
            tasks = again

    def _timed_task(self, jobs: Sequence[Job]) -> Any:
        from bench.run.pool import Task

        asked = [job.model_copy(update={"quality": False}) for job in jobs]
        given = TypeAdapter(list[Job]).dump_json(asked).decode()
        # A group that dies is measured again, one by one, within the task.
        limit = 2 * sum(job.spec.timeout_s for job in jobs) + SLACK_S
        return Task("timed", (given, list(self.command)), limit, list(jobs))

    def _quality(self, pool: Any, run: QualityRun, progress: Progress) -> None:
        from bench.run.pool import Failure, Task

        while True:
            for record in run.finished():
                progress.advance(1, pool.size, record.status == "failed")
            asked = run.tasks(self._shared_cache(run.jobs))
            if not asked:
                return
            progress.expect(len(asked))
            progress.say(f"quality in {len(asked)} tasks")
            tasks = [Task("shards", (one.model_dump_json(),), run.limit(one), one) for one in asked]
            for task, result in pool.results(tasks):
                if isinstance(result, Failure):
                    run.lost(task.what, result.reason, result.trace)
                    pool.drop()  # what is left is planned again, each configuration by itself
                else:
                    run.keep(task.what, result)
                progress.advance(1, pool.size)

    def _speed(self) -> float:
        """How much longer a generation takes a worker than it took when it was timed, on a whole node."""
        return 1.0 if self.first.gpus else self.first.cpus / self._threads

    def _shared_cache(self, jobs: Sequence[Job]) -> Path | None:
        """Where the baseline's images are kept: on this machine, if it alone makes them."""
        import ray

        here = ray.get_runtime_context().get_node_id()
        alone = [node.id for node in self.nodes.alive()] == [here]
        return jobs[0].store.cache.resolve() if alone and jobs else None

    @property
    def _threads(self) -> int:
        """Cores of a worker on a CPU."""
        if self.threads:
            return self.threads
        return max(1, self.first.cpus // self.workers) if self.workers and not self._several else 1

    @property
    def _several(self) -> bool:
        return len(self.nodes.alive()) > 1

    def _slots(self, alone: bool) -> list[Any]:
        """What workers take of each node: a GPU each, or where there are none cores; `alone` all of them."""
        from bench.run.pool import Slots

        slots = []
        for node in self.nodes.alive():
            if node.gpus:
                slots.append(Slots(node.id, node.gpus, 1, 1))
            elif alone:
                slots.append(Slots(node.id, 1, node.cpus, 0))
            else:
                slots.append(Slots(node.id, node.cpus // self._threads, self._threads, 0))
        return slots

    def pool(self, alone: bool) -> Any:
        """Hire workers on every node of the kind.

        Args:
            alone: whether a node without GPUs has one worker, else one to a device.

        Returns:
            The pool, a `bench.run.pool.Pool`.
        """
        import ray

        from bench.run.pool import Pool

        slots, threads = functools.partial(self._slots, alone), os.environ.get("OMP_NUM_THREADS")
        kept = {name: os.environ.get(name, value) for name, value in ALLOCATOR.items()}
        actors = ray.remote(runtime_env={"env_vars": kept})(self.worker)
        return Pool(slots, actors, (threads,), self.workers)


def _records(jobs: Sequence[Job], result: Any) -> Iterator[tuple[Job, Record, bytes | None]]:
    """What a timed task returned, with the commit of this checkout: the copy on a node has none."""
    for job, (text, image) in zip(jobs, result, strict=True):
        record = Record.model_validate_json(text)
        if "git" in record.environment:
            record = record.model_copy(update={"environment": record.environment | {"git": provenance.git()}})
        yield job, record, image


def _partial(job: Job) -> Path:
    """Where a timed record waits for its quality."""
    return job.store.cache / "timed" / f"{job.spec.name}-{job.key}.json"


def _read_partial(job: Job) -> Record | None:
    try:
        return Record.model_validate(json.loads(_partial(job).read_bytes()))
    except (OSError, ValueError, ValidationError):
        return None
