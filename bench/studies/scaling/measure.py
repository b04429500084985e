"""The harness's own costs, measured: thousands of empty tasks, and shards by one worker and by two."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from safetensors.torch import load

from bench.measure.moments import Moments
from bench.run.actor import Actor, Shard, ShardTask
from bench.run.placement import Progress
from bench.run.pool import Failure, Task
from bench.run.ray import Ray
from bench.spec.run_spec import RunSpec
from bench.store import keys
from bench.store.tensors import Cache

DIMENSIONS = 96  # of the features that are streamed
LIMIT_S = 600.0
STEPS = 10  # of the model whose shards are timed


@dataclass(frozen=True)
class Empty:
    """Tasks without work."""

    tasks: int
    workers: int
    seconds: float
    grown: tuple[int, int]  # bytes by which the driver's memory grew in the first and in the last fifth

    @property
    def each(self) -> float:
        """Seconds of the driver for a task."""
        return self.seconds / self.tasks


@dataclass(frozen=True)
class Rate:
    """Shards of a real model."""

    workers: int
    images: int
    seconds: float
    start: float  # until every worker had made its first
    within: float  # seconds of a worker's shards, without what Ray and the driver add

    tasks: int  # of each worker

    @property
    def task_s(self) -> float:
        """Seconds of a worker for a task."""
        return self.within / self.tasks

    @property
    def overhead(self) -> float:
        """What the harness adds, as a share; of several workers their waiting for the last one too."""
        return self.seconds / self.within - 1

    @property
    def images_a_second(self) -> float:
        """Images of both arms, per second."""
        return 2 * self.images / self.seconds


def empty(placement: Ray, tasks: int, directory: Path) -> Empty:
    """Schedule tasks of nothing, write what they return as shards are written, and stream features into
    sums.

    Args:
        placement: where they run.
        tasks: how many.
        directory: where the shards are written.

    Returns:
        What a task costs besides its work.
    """
    spec = RunSpec(suite="scaling", name="nothing", method="baseline", model="embedded")
    cache, moments = Cache(directory, {}), Moments()
    given = [_task(spec, {}, range(i, i + 1)) for i in range(tasks)]
    pool = placement.pool(alone=False)
    process, memory = psutil.Process(), []
    asked = [Task("nothing", (text,), LIMIT_S, i) for i, text in enumerate(given)]
    try:
        with Progress(tasks, "task") as progress:
            progress.say("empty tasks")
            _warmed(pool, "nothing", given)
            started = time.monotonic()
            for task, result in pool.results(asked):
                _check(result)
                cache.write(f"shards/nothing/{task.what:07d}", {"drift": torch.zeros(1)})
                moments.add(torch.zeros(1, DIMENSIONS))
                memory.append(process.memory_info().rss)
                progress.advance(1, pool.size)
        seconds = time.monotonic() - started
        fifth = max(1, tasks // 5)
        grown = memory[fifth - 1] - memory[0], memory[-1] - memory[-fifth]
        return Empty(tasks, pool.size, seconds, grown)
    finally:
        pool.close()


class Clocked(Actor):
    """A worker that reports how long its shards took, without what Ray and the driver add."""

    def clocked(self, given: str) -> tuple[float, list[Shard]]:
        """The seconds that the shards of a task took, and the shards.

        Args:
            given: the task, JSON.

        Returns:
            Both.
        """
        started = time.monotonic()
        shards = self.shards(given)
        return time.monotonic() - started, shards


def rate(placement: Ray, workers: int, tasks: int, batches: int, results: Path, directory: Path) -> Rate:
    """Time shards of the embedded model under fewer steps.

    Args:
        placement: where they run; it has as many workers.
        workers: how many.
        tasks: of each worker.
        batches: of each task, 16 images each.
        results: the root of the records.
        directory: where the shards are written.

    Returns:
        How fast so many workers are.
    """
    n = workers * tasks * batches * 16
    spec = RunSpec(
        suite="scaling", name="half", method="fewer_steps", options={"steps": STEPS // 2}, model="embedded",
        num_inference_steps=STEPS, quality={"n": n, "converged_n": 0},  # type: ignore[arg-type]
    )  # fmt: skip
    inputs = {spec.name: keys.inputs(spec, results)}
    size = batches * spec.batch_size
    given = [_task(spec, inputs, range(i, i + size)) for i in range(0, n, size)]
    placement.worker = Clocked
    pool, cache, within = placement.pool(alone=False), Cache(directory, {}), 0.0
    asked = [Task("clocked", (text,), LIMIT_S, i) for i, text in enumerate(given)]
    try:
        with Progress(len(asked), "shard") as progress:
            progress.say(f"shards by {workers}")
            first = time.monotonic()
            _warmed(pool, "shards", [_task(spec, inputs, range(1))] * workers)
            started = time.monotonic()
            for task, result in pool.results(asked):
                seconds, shards = result if isinstance(result, tuple) else (0.0, result)
                _check(shards)
                within += seconds
                for shard in shards:
                    cache.write(f"shards/{shard.name or 'baseline'}/{task.what:07d}", load(shard.tensors))
                progress.advance(1, pool.size)
        wall = time.monotonic() - started
        return Rate(workers, n, wall, started - first, within / workers, tasks)
    finally:
        pool.close()


def _task(spec: RunSpec, inputs: dict[str, Any], numbers: range) -> str:
    return ShardTask(
        specs=[spec], inputs=inputs, start=numbers.start, stop=numbers.stop, baseline=True, cache=None
    ).model_dump_json()


def _warmed(pool: Any, method: str, given: Sequence[str]) -> None:
    """Wait until every worker is there and has done a task."""
    every = False
    while not every:
        every = pool.size > 0 and len(pool.idle) == pool.size
        for _, result in pool.results(
            [Task(method, (text,), LIMIT_S) for text in given[: max(1, pool.size)]]
        ):
            _check(result)


def _check(result: Any) -> None:
    """RuntimeError where a task failed."""
    reason = (
        result.reason if isinstance(result, Failure) else next((m.reason for m in result if m.reason), None)
    )
    if reason:
        raise RuntimeError(f"scaling: a task failed: {reason}")
