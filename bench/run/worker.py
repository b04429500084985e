"""One process, one configuration or a few that share a baseline: measure them and write their records.

`python -m bench.run.worker` reads a list of Jobs (JSON) on stdin, reports its progress on stdout, one line
at a time, and exits 0 with each one's record written ("ok" or "failed"), or 2 where the store cannot be
written.
"""

from __future__ import annotations

import gc
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, TypeAdapter

from bench.errors import BadInput
from bench.machine import provenance
from bench.machine.process import die_with
from bench.machine.scrub import scrub
from bench.methods.scheduler import is_flow
from bench.record import Memory, Record
from bench.spec.run_spec import RunSpec
from bench.store.records import Store

if TYPE_CHECKING:  # torch, which whoever only wants a Job need not load
    from bench.measure.flops import Cost
    from bench.measure.timing import Pairs
    from bench.pipeline.session import Session


class Job(BaseModel):
    """What a worker is asked."""

    spec: RunSpec
    key: str
    inputs: dict[str, Any]
    results: Path
    parent: int
    quality: bool = True  # False: it is measured elsewhere, in shards

    @property
    def store(self) -> Store:
        """Where the record goes."""
        return Store(self.results, self.spec.suite, self.inputs["machine"])

    def record(self, **parts: Any) -> Record:
        """A record of this configuration with these parts.

        Args:
            **parts: fields of the record; the configuration's own are filled in, and its inputs join
                `environment`.

        Returns:
            The record, not yet stored.
        """
        spec, common = self.spec, {"inputs": self.inputs, "machine": self.inputs["machine"]}
        parts["environment"] = common | parts.get("environment", {})
        return Record(
            key=self.key,
            suite=spec.suite,
            name=spec.name,
            method=spec.method,
            config=spec.public(),
            **parts,
        )

    def failure(self, reason: str, trace: str | None = None) -> Record:
        """Make a failed record.

        Args:
            reason: why there are no values; its lines are joined, cut to 500 characters and scrubbed of
                names.
            trace: the traceback; None: there is none.

        Returns:
            The record, not yet stored.
        """
        line = self._scrubbed(" ".join(reason.split()))[:500]
        shown = self._scrubbed(trace) if trace else None
        return self.record(status="failed", reason=line, traceback=shown)

    def failed(self, error: Exception) -> Record:
        """Make the record of what was raised.

        Args:
            error: what a measurement raised.

        Returns:
            The failed record, with the traceback.

        Raises:
            BadInput: `error` is one: it is the user's to mend, and makes no record.
        """
        if isinstance(error, BadInput):
            raise error
        return self.failure(reason(error), "".join(traceback.format_exception(error)))

    def _scrubbed(self, text: str) -> str:
        """`text` without paths, those of the files that the user gave included, and without names."""
        options = [value for value in self.spec.options.values() if isinstance(value, str) and "/" in value]
        places = [*self.spec.quality.files().values(), *map(Path, options)]
        return scrub(text, [*places, Path(self.spec.model)] if Path(self.spec.model).is_dir() else places)


def main() -> None:
    """Read the jobs, measure, write the records."""
    jobs = TypeAdapter(list[Job]).validate_json(sys.stdin.read())
    die_with(jobs[0].parent)
    try:
        for job, record, image in records(jobs):
            job.store.write(record, image)
    except BadInput as error:
        sys.exit(_message(str(error)))


def _message(line: str) -> int:
    sys.stderr.write(line + "\n")
    return 2


def records(jobs: Sequence[Job]) -> Iterator[tuple[Job, Record, bytes | None]]:
    """Measure configurations that share a model and a baseline.

    Whatever goes wrong in one becomes its failed record, and in what they share that of each.

    Args:
        jobs: configurations of one group, at least one.

    Yields:
        Each configuration, its record and its image (PNG; None where it failed), as it is finished.
    """
    peaks = [_memory(job) for job in jobs]  # first, so that the isolated pass has the machine's memory
    try:
        shared = measure_shared(jobs)
    except Exception as error:
        yield from ((job, job.failed(error), None) for job in jobs)
        return
    for i, job in enumerate(jobs):
        try:
            finished = finish(job, shared, i, peaks[i])
        except Exception as error:
            finished = job.failed(error), None
        yield job, *finished


def reason(error: BaseException) -> str:
    """State why a run failed.

    Args:
        error: what was raised.

    Returns:
        One line; it starts with `out of memory: ` for errors of memory, else with the error's class.
    """
    text = str(error)
    if type(error).__name__ == "OutOfMemoryError" or isinstance(error, MemoryError):
        return f"out of memory: {text}"
    if "can't allocate memory" in text:  # the CPU's allocator raises a bare RuntimeError
        return f"out of memory: {text[text.index('you tried') :] if 'you tried' in text else text}"
    return f"{type(error).__name__}: {text}"


def _memory(job: Job) -> Memory | Exception | None:
    from bench.measure import memory

    if not job.spec.memory:
        return None
    say(f"{job.spec.name}: memory")
    try:
        return memory.measure(job.spec)
    except Exception as error:  # its timing reports better what is wrong with the configuration
        return error


@dataclass(frozen=True)
class Shared:
    """What is measured for all of a process's configurations at once."""

    sessions: list[Session]
    pairs: list[Pairs]
    cost: Cost
    facts: dict[str, Any]  # provenance, and the machine's state


def measure_shared(jobs: Sequence[Job]) -> Shared:
    """Load the model and time all configurations in rounds with one baseline.

    Args:
        jobs: configurations of one group, at least one.

    Returns:
        The sessions and timed pairs in the order of `jobs`, the counted FLOPs, and the state of the machine.
    """
    from bench.measure import flops, timing
    from bench.pipeline.session import Session

    specs = [job.spec for job in jobs]
    say(f"{specs[0].name}: loading")
    first = Session.open(specs[0])
    sessions = [first, *map(first.under, specs[1:])]
    gc.collect()
    gc.freeze()  # the model is no garbage: do not walk it again and again
    before = provenance.state()
    pairs = timing.measure_together(sessions, say)
    state = {"before": before, "after": provenance.state()}
    solver = {"scheduler": type(first.pipe.scheduler).__name__, "flow": is_flow(first.pipe)}
    facts = provenance.provenance(specs[0].seed) | {"state": state} | solver
    return Shared(sessions, pairs, flops.count(first), facts)


def finish(job: Job, shared: Shared, i: int, peaks: Memory | Exception | None) -> tuple[Record, bytes | None]:
    """Make the record of one configuration: quality on its timed generations and more, and what FLOPs
    allow.

    Args:
        job: the configuration to measure.
        shared: what its group measured together.
        i: the configuration's number in its group, from 0.
        peaks: the memory measured; None: not asked for; an exception: what the isolated pass failed with.

    Returns:
        The record, and its image as PNG (None: it has none).

    Raises:
        Exception: what its timing or its memory failed with.
    """
    from bench.measure import flops, quality, timing
    from bench.store.tensors import Cache

    spec, session, pairs = job.spec, shared.sessions[i], shared.pairs[i]
    for error in (pairs.error, peaks):
        if isinstance(error, Exception):
            raise error
    file = job.store.path(spec.name, job.key, ".png").name
    cache = Cache(job.store.cache, job.inputs)
    shown, image = (
        quality.measure(session, pairs, cache, file, _naming(spec.name)) if job.quality else (None, None)
    )
    timed = timing.summarise(pairs, spec) if spec.timing.asked else None
    record = job.record(
        status="ok",
        environment=shared.facts,
        timing=timed,
        memory=peaks,
        quality=shown,
        reuse=session.traced(),
        limits=flops.limits(session, shared.cost, timed),
    )
    return record, image


def _naming(name: str) -> Callable[[str], None]:
    return lambda what: say(f"{name}: {what}")


def say(what: str) -> None:
    """Report progress to the runner.

    Args:
        what: the line to write.
    """
    sys.stdout.write(what + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
