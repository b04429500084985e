"""The quality of a suite, in shards: what is lacking, keeping what comes, and what becomes whole."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load, save
from torch import Tensor

from bench.errors import BadInput
from bench.measure import quality, shards
from bench.record import Record
from bench.run import shard_plan
from bench.run.actor import SOLVED, Shard, ShardTask
from bench.run.shard_plan import BASELINE
from bench.run.worker import Job
from bench.store.tensors import Cache


@dataclass
class QualityRun:
    """Configurations that were timed and lack their quality."""

    jobs: list[Job]  # until they have a record
    timed: dict[str, Record]  # by configuration
    slower: float  # a worker's seconds over those that were timed
    workers: int
    keep_images: Path | None = None  # where workers write the configurations' images
    alone: set[str] = field(default_factory=set)  # configurations whose shards are tasks of their own
    failures: dict[str, Record] = field(default_factory=dict)

    def finished(self) -> Iterator[Record]:
        """Merge what is complete, and write its records and those of failures.

        Yields:
            The records written.
        """
        for job in list(self.jobs):
            record = self.failures.get(job.spec.name)
            whole = (record, None) if record else self._whole(job)
            if whole is not None:
                job.store.write(*whole)
                self.jobs.remove(job)
                yield whole[0]

    def tasks(self, images: Path | None) -> list[ShardTask]:
        """List the tasks that make the shards that are lacking.

        Args:
            images: where the baseline's images are kept, None where they are not.

        Returns:
            The tasks; none once every configuration has its record.
        """
        return [task for jobs in self._sharing() for task in self._tasks(jobs, images)]

    def limit(self, task: ShardTask) -> float:
        """Compute how long a task may take.

        Args:
            task: the task.

        Returns:
            Seconds after which it counts as hung.
        """
        return max(spec.timeout_s for spec in task.specs) * (len(task.specs) + 1)

    def keep(self, task: ShardTask, returned: Iterable[Shard]) -> None:
        """Write the shards that a task returned, each whole or not at all.

        Args:
            task: the task.
            returned: what it returned.
        """
        for shard in returned:
            job = self._job(shard.name or task.specs[0].name)
            if shard.tensors is None:
                self._fail(task, job, shard.reason or "", shard.trace)
            else:
                cache = _cache(job)
                key = shards.key(cache, job.spec, baseline=shard.name == BASELINE)
                cache.write(shard_plan.name_of(key, range(task.start, task.stop)), load(shard.tensors))

    def lost(self, task: ShardTask, reason: str, trace: str | None) -> None:
        """Note that a task failed as a whole: its configurations go on one by one, to show whose fault it
        was.

        Args:
            task: the task.
            reason: why, in one line.
            trace: the traceback; None: there is none.
        """
        for spec in task.specs:
            if len(task.specs) == 1:
                self._fail(task, self._job(spec.name), reason, trace)
            self.alone.add(spec.name)

    def _fail(self, task: ShardTask, job: Job, reason: str, trace: str | None) -> None:
        which = f"images {task.start} to {task.stop - 1}"
        self.failures[job.spec.name] = job.failure(f"{reason} ({which})", trace)

    def _job(self, name: str) -> Job:
        return next(job for job in self.jobs if job.spec.name == name)

    def _sharing(self) -> Iterator[list[Job]]:
        """The configurations in groups that share a baseline's images; one that is to be alone is a group."""
        single = [job for job in self.jobs if job.spec.name in self.alone or job.spec.compile]
        yield from ([job] for job in single)

        def shared(job: Job) -> tuple[str, int]:  # the baseline, and how many of its images
            return shards.key(_cache(job), job.spec, baseline=True), job.spec.quality.n

        rest = sorted((job for job in self.jobs if job not in single), key=shared)
        yield from (list(jobs) for _, jobs in itertools.groupby(rest, shared))

    def _tasks(self, jobs: Sequence[Job], images: Path | None) -> Iterator[ShardTask]:
        spec, n, batch = jobs[0].spec, jobs[0].spec.quality.n, jobs[0].spec.batch_size
        most = spec.quality.converged_n
        there = {
            job.spec.name: shard_plan.usable(_cache(job), shards.key(_cache(job), job.spec, False), n, batch)
            for job in jobs
        }
        there[BASELINE] = shard_plan.usable(
            _cache(jobs[0]), shards.key(_cache(jobs[0]), spec, True), n, batch
        )
        solved = _solved(jobs[0], there[BASELINE])
        size = shard_plan.batches_of(self._seconds(jobs), batch, math.ceil(n / batch), self.workers)
        for part in shard_plan.parts(there, n, batch, size):
            chosen = [job for job in jobs if job.spec.name in part.names]
            asked = chosen or jobs[:1]  # the baseline's alone is made under any configuration
            yield ShardTask(
                specs=[job.spec for job in chosen] or [spec],
                inputs={job.spec.name: job.inputs for job in asked},
                start=part.numbers.start,
                stop=part.numbers.stop,
                baseline=BASELINE in part.names,
                cache=images,
                solved=_packed(solved, range(part.numbers.start, min(part.numbers.stop, most))),
                keep_images=self.keep_images,
            )

    def _seconds(self, jobs: Sequence[Job]) -> float:
        """Of a batch by the baseline and all the configurations, as a worker takes."""
        timings = [timing for job in jobs if (timing := self.timed[job.spec.name].timing)]
        each = [timing.candidate_s.median for timing in timings]
        return self.slower * (sum(each) + max((timing.baseline_s.median for timing in timings), default=0.0))

    def _whole(self, job: Job) -> tuple[Record, bytes | None] | None:
        """The record with its quality and image; None where shards are lacking."""
        spec, cache = job.spec, _cache(job)
        both = (shards.key(cache, spec, shared) for shared in (True, False))
        baseline, candidate = (shard_plan.read(cache, key, spec.quality.n, spec.batch_size) for key in both)
        if not baseline or not candidate:
            return None
        file = job.store.path(spec.name, job.key, ".png").name
        try:
            metrics, image = quality.merged(spec, baseline, candidate, cache, file)
        except BadInput:
            raise
        except Exception as error:
            return job.failed(error), None
        return self.timed[spec.name].model_copy(update={"quality": metrics}), image


def _solved(job: Job, there: Iterable[range]) -> dict[int, Tensor]:
    """The converged latents that the baseline's shards hold, by image."""
    cache, found = _cache(job), dict[int, Tensor]()
    key = shards.key(cache, job.spec, baseline=True)
    for numbers in there:
        if numbers.start < job.spec.quality.converged_n:
            tensors = cache.read(shard_plan.name_of(key, numbers)) or {}
            found |= dict(zip(numbers, tensors.get(SOLVED, ()), strict=False))
    return found


def _packed(solved: dict[int, Tensor], numbers: range) -> bytes | None:
    """The converged latents of a task's images; None where one is not known, or none is asked for."""
    if not numbers or any(number not in solved for number in numbers):
        return None
    return save({SOLVED: torch.stack([solved[number] for number in numbers])})


def _cache(job: Job) -> Cache:
    return Cache(job.store.cache, job.inputs)
