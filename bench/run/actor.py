"""What a worker of a cluster does: it times configurations, makes shards of quality, evaluates trials.

A plain class, which `bench.run.ray` makes an actor. It keeps the last model that it loaded. What it is given
and returns is JSON, bytes of safetensors and pickles of this project's own objects.
"""

from __future__ import annotations

import gc
import os
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import BaseModel, ConfigDict, TypeAdapter

from bench.run import image_files
from bench.run.runner import Runner
from bench.run.worker import Job, reason
from bench.spec.run_spec import RunSpec

if TYPE_CHECKING:  # torch, which a worker that times leaves to its process
    from bench.pipeline.session import Session


SOLVED = "solved"  # in a baseline's shard: the converged latents of its first images


class ShardTask(BaseModel):
    """Shards of some configurations that share a baseline, of the same images."""

    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")

    specs: list[RunSpec]
    inputs: dict[str, dict[str, Any]]  # by configuration, see `bench.store.keys.inputs`
    start: int
    stop: int
    baseline: bool  # whether the baseline's shard is asked for
    cache: Path | None  # where the baseline's images are kept, on the machine that holds the results
    solved: bytes | None = None  # the converged latents where they are known, as safetensors
    keep_images: Path | None = None  # where the configurations' images go, on the worker's machine


class Shard(NamedTuple):
    """One shard, or why there is none."""

    name: str  # the configuration's; empty: the baseline's
    tensors: bytes | None = None  # as safetensors
    reason: str | None = None
    trace: str | None = None


class Actor:
    """One device of a cluster.

    Args:
        threads: OMP_NUM_THREADS of the process that started the run; None: it was not set.
    """

    def __init__(self, threads: str | None = None) -> None:
        self.threads = threads  # OMP_NUM_THREADS of the process that started the run
        self.loaded: tuple[str, Session] | None = None
        self.evaluations: dict[str, Callable[[Any], Any]] = {}

    def ready(self) -> int:
        """Report that the worker runs.

        Returns:
            The process's id.
        """
        return os.getpid()

    def timed(self, given: str, command: Sequence[str]) -> list[tuple[str, bytes | None]]:
        """Measure configurations without their quality, as on one machine: by a process of their own.

        Args:
            given: the jobs, JSON.
            command: the process.

        Returns:
            Each record as JSON, and its image (PNG; None: it has none).
        """
        with _threads(self.threads), tempfile.TemporaryDirectory() as results:
            here = {"results": Path(results), "parent": os.getpid()}
            jobs = [job.model_copy(update=here) for job in TypeAdapter(list[Job]).validate_json(given)]
            Runner(results=Path(results), worker=command).work(jobs)
            paths = [job.store.path(job.spec.name, job.key) for job in jobs]
            images = [path.with_suffix(".png") for path in paths]
            return [
                (path.read_text(), image.read_bytes() if image.exists() else None)
                for path, image in zip(paths, images, strict=True)
            ]

    def shards(self, given: str) -> list[Shard]:
        """Make the shards of a task; one that fails takes no other along, but for the baseline's.

        Args:
            given: the `ShardTask`, JSON.

        Returns:
            A shard, or why there is none, for each configuration.
        """
        task = ShardTask.model_validate_json(given)
        try:
            return list(_shards_of(task, self._session(task.specs[0])))
        except Exception as error:
            return [_failed(spec.name, error) for spec in task.specs]

    def trial(self, key: str, make: Callable[[], Callable[[Any], Any]], item: Any) -> Any:
        """Evaluate an item.

        Args:
            key: the name under which the evaluation is kept.
            make: returns the evaluation; it is called once.
            item: what is evaluated.

        Returns:
            What the evaluation returns.
        """
        if key not in self.evaluations:
            self.evaluations[key] = make()
            gc.collect()
            gc.freeze()  # the model is no garbage: do not walk it before every trial
        return self.evaluations[key](item)

    def nothing(self, given: str) -> list[Shard]:
        """Return the shards of a task, empty: what a task costs besides its work.

        Args:
            given: the `ShardTask`, JSON.

        Returns:
            An empty shard for each configuration.
        """
        task = ShardTask.model_validate_json(given)
        return [Shard(spec.name, b"") for spec in task.specs]

    def _session(self, spec: RunSpec) -> Session:
        """The model under a configuration, loaded unless the last one was the same."""
        from bench.pipeline.session import Session

        by = RunSpec.model_validate(spec).model_dump_json(
            exclude={"suite", "name", "method", "options", "timing", "quality", "memory", "timeout_s"}
        )
        if self.loaded is None or self.loaded[0] != by:
            self.loaded = None  # its memory is free before the next one takes it
            self.loaded = by, Session.open(spec)
        return self.loaded[1].under(spec)


@contextmanager
def _threads(asked: str | None) -> Iterator[None]:
    """Processes start with the threads of whoever started the run: Ray's choice is for its own workers."""
    before = os.environ.pop("OMP_NUM_THREADS", None)
    if asked is not None:
        os.environ["OMP_NUM_THREADS"] = asked
    try:
        yield
    finally:
        os.environ.pop("OMP_NUM_THREADS", None)
        if before is not None:
            os.environ["OMP_NUM_THREADS"] = before


def _shards_of(task: ShardTask, first: Session) -> list[Shard]:
    from safetensors.torch import load

    from bench.measure import shards
    from bench.measure.samples import Collector
    from bench.measure.timing import Pairs
    from bench.store.tensors import Cache

    numbers = range(task.start, task.stop)
    inputs = task.inputs[task.specs[0].name]
    kept = Cache(task.cache, inputs) if task.cache else None
    with tempfile.TemporaryDirectory() as directory:
        base = Collector(first, Pairs(), kept, _silent).baseline(numbers)
        solved = (
            load(task.solved)[SOLVED]
            if task.solved
            else shards.solved(first, kept or Cache(Path(directory), inputs), numbers)
        )
    returned = []
    if task.baseline:
        latents = {} if solved is None else {SOLVED: solved}  # for whoever is measured against them later
        returned.append(_packed("", shards.of_baseline(first, base, numbers, solved) | latents))
    for spec in task.specs:
        session = first.under(spec)
        try:
            cand = Collector(session, Pairs(), None, _silent).candidate(numbers)
            if task.keep_images:
                image_files.write(task.keep_images, spec, cand.images, task.start)
            shard = _packed(spec.name, shards.of_candidate(session, base, cand, numbers, solved))
        except Exception as error:
            shard = _failed(spec.name, error)
        returned.append(shard)
    return returned


def _packed(name: str, tensors: dict[str, Any]) -> Shard:
    from safetensors.torch import save

    return Shard(name, save({key: value.contiguous() for key, value in tensors.items()}))


def _failed(name: str, error: Exception) -> Shard:
    return Shard(name, None, reason(error), "".join(traceback.format_exception(error)))


def _silent(text: str) -> None:
    pass
