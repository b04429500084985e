"""One process, one configuration: measure it and write its record.

`python -m bench.worker` reads a Job (JSON) on stdin, says what it is doing on stdout, one line at a
time, and exits 0 with a record written ("ok" or "failed"), or 2 where the store cannot be written.
"""

from __future__ import annotations

import gc
import sys
import traceback
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from bench.errors import BadInput
from bench.measure import environment
from bench.process import die_with
from bench.record import Record
from bench.store import Store
from bench.suite import RunSpec


class Job(BaseModel):
    """What a worker is asked."""

    spec: RunSpec
    key: str
    inputs: dict[str, Any]
    results: Path
    parent: int

    @property
    def store(self) -> Store:
        """Where the record goes."""
        return Store(self.results, self.spec.suite, self.inputs["machine"])

    def record(self, **parts: Any) -> Record:
        """A record of this configuration with these parts."""
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
        """A record that says in one line why there are no figures."""
        line = environment.scrub(" ".join(reason.split()))[:500]
        shown = environment.scrub(trace) if trace else None
        return self.record(status="failed", reason=line, traceback=shown)


def main() -> None:
    """Read the job, measure, write the record."""
    job = Job.model_validate_json(sys.stdin.read())
    die_with(job.parent)
    try:
        job.store.write(*attempt(job))
    except BadInput as error:
        sys.exit(_said(str(error)))


def _said(line: str) -> int:
    sys.stderr.write(line + "\n")
    return 2


def attempt(job: Job) -> tuple[Record, bytes | None]:
    """The record of the run; whatever goes wrong in it becomes a failed record."""
    try:
        return run(job)
    except BadInput:
        raise
    except Exception as error:
        return job.failure(reason(error), traceback.format_exc()), None


def reason(error: BaseException) -> str:
    """Why a run failed, in one line."""
    text = str(error)
    if type(error).__name__ == "OutOfMemoryError" or isinstance(error, MemoryError):
        return f"out of memory: {text}"
    if "can't allocate memory" in text:  # the CPU's allocator raises a bare RuntimeError
        return f"out of memory: {text[text.index('you tried') :] if 'you tried' in text else text}"
    return f"{type(error).__name__}: {text}"


def run(job: Job) -> tuple[Record, bytes | None]:
    """Measure time, then quality on those generations and more, then memory in another process."""
    from bench.measure import flops, memory, quality, timing
    from bench.measure.cache import Cache
    from bench.measure.generation import Session

    spec = job.spec
    facts = environment.provenance(spec.seed)
    say("loading")
    session = Session.open(spec)
    gc.collect()
    gc.freeze()  # the model is no garbage: do not walk it again and again
    before = environment.state()
    pairs = timing.measure(session, say)
    facts["state"] = {"before": before, "after": environment.state()}
    file = job.store.path(spec.name, job.key, ".png").name
    shown, picture = quality.measure(session, pairs, Cache(job.store.cache, job.inputs), file, say)
    timed = timing.summarise(pairs, spec)
    arithmetic = flops.limits(session, flops.count(session), timed)
    reuse = session.traced()
    facts["scheduler"] = type(session.pipe.scheduler).__name__
    del session, pairs  # so that the isolated pass has the memory
    say("memory")
    record = job.record(
        status="ok",
        environment=facts,
        timing=timed,
        memory=memory.measure(spec) if spec.memory else None,
        quality=shown,
        reuse=reuse,
        limits=arithmetic,
    )
    return record, picture


def say(what: str) -> None:
    """Tell the runner what is going on."""
    sys.stdout.write(what + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
