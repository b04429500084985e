"""Time: baseline and candidates interleaved, in random order, on the same inputs.

Configurations that share a process share each round's baseline as well: with eight candidates a round
is nine generations, separate pairs would be sixteen, and each speedup stays a paired ratio.
"""

from __future__ import annotations

import random
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import psutil
import torch

from bench import stats
from bench.machine import nvml, provenance
from bench.machine.device import device_type
from bench.pipeline.session import Generation, Session
from bench.record import Timing
from bench.spec.run_spec import RunSpec

SPARE = 0.15  # cores that others may take from those torch computes on before a pair is contaminated
Stopped = Literal["target", "budget", "pairs"]


@dataclass
class Pairs:
    """Raw measurements, and those generations whose images quality is measured on."""

    seconds: list[tuple[float, float]] = field(default_factory=list)  # (baseline, candidate)
    contaminated: dict[int, str] = field(default_factory=dict)  # pair -> why
    baseline: list[Generation] = field(default_factory=list)
    candidate: list[Generation] = field(default_factory=list)
    stopped: Stopped = "pairs"
    error: Exception | None = None  # what the candidate raised, which ended its part
    shared_with: list[str] = field(default_factory=list)  # also timed against the same baseline

    def kept(self) -> list[tuple[float, float]]:
        """The pairs that count.

        Returns:
            (baseline, candidate) seconds: the undisturbed pairs, or all of them where fewer than two are
            undisturbed.
        """
        undisturbed = [pair for i, pair in enumerate(self.seconds) if i not in self.contaminated]
        return undisturbed if len(undisturbed) >= 2 else self.seconds


class Entry(NamedTuple):
    """A configuration and what is measured of it."""

    session: Session
    pairs: Pairs


class Timed(NamedTuple):
    """A generation, and why its time cannot be trusted, if so."""

    generation: Generation
    contaminated: str | None


def measure(session: Session, say: Callable[[str], None]) -> Pairs:
    """Time one configuration.

    Args:
        session: The configuration.
        say: Called with a line on what is being done.

    Returns:
        Its pairs.

    Raises:
        Exception: Whatever the candidate raised.
    """
    (pairs,) = measure_together([session], say)
    if pairs.error:
        raise pairs.error
    return pairs


def measure_together(sessions: Sequence[Session], say: Callable[[str], None]) -> list[Pairs]:
    """Warm up, then time rounds of the baseline and each candidate, until none needs more.

    The sessions share pipeline and settings. Each configuration makes `timing.min_pairs` pairs and goes
    on until its interval is narrow enough or its budget, of the time of pairs beyond those, is spent; one
    that raises leaves, its `error` kept. Further images that quality needs are not timed, see
    `bench.measure.samples`.

    Args:
        sessions: One or more, of one pipeline and the same settings.
        say: Called with a line on what is being done.

    Returns:
        One a session, in order; that of one that raised has its `error`. Empty where nothing is to be timed.
    """
    names = [session.spec.name for session in sessions]
    entries = [Entry(s, Pairs(shared_with=[n for n in names if n != s.spec.name])) for s in sessions]
    if not sessions[0].spec.timing.asked:
        return [entry.pairs for entry in entries]
    _warm_up(entries, say)
    rng, number, going = random.Random(sessions[0].spec.seed), 0, entries
    while going := [entry for entry in going if _goes_on(entry)]:
        _round(number, going, rng, say)
        number += 1
    return [entry.pairs for entry in entries]


def _warm_up(entries: Sequence[Entry], say: Callable[[str], None]) -> None:
    first = entries[0].session
    images = range(first.spec.batch_size)
    for _ in range(first.spec.timing.warmup):
        say("warm-up: baseline")
        first.baseline(images, **first.short)
        for entry in entries:
            say(f"warm-up: {entry.session.spec.name}")
            _candidate(entry, images, **entry.session.short)


def _round(number: int, going: Sequence[Entry], rng: random.Random, say: Callable[[str], None]) -> None:
    first = going[0].session
    images = range(number * first.spec.batch_size, (number + 1) * first.spec.batch_size)
    timed: dict[int | None, Timed | None] = {}  # by place in `going`; None is the baseline
    for arm in rng.sample((None, *range(len(going))), len(going) + 1):
        say(f"round {number + 1}: {'baseline' if arm is None else going[arm].session.spec.name}")
        if arm is None:
            timed[arm] = _timed(lambda: first.baseline(images))
        else:
            timed[arm] = _candidate(going[arm], images)
    for i, entry in enumerate(going):
        if (base := timed[None]) and (cand := timed[i]):
            _add(entry, base, cand)


def _candidate(entry: Entry, images: range, **call: Any) -> Timed | None:
    """A generation by the method; None where it raises or has before, which ends only this entry's part."""
    if entry.pairs.error:
        return None
    try:
        return _timed(lambda: entry.session.candidate(images, **call))
    except Exception as error:
        traceback.clear_frames(error.__traceback__)  # they hold tensors: memory that the others need
        entry.pairs.error = error
        return None


def _timed(make: Callable[[], Generation]) -> Timed:
    watch = Disturbance()
    return Timed(make(), watch.reason())


def _add(entry: Entry, base: Timed, cand: Timed) -> None:
    """One more pair."""
    spec, pairs, number = entry.session.spec, entry.pairs, len(entry.pairs.seconds)
    if why := base.contaminated or cand.contaminated:
        pairs.contaminated[number] = why
    pairs.seconds.append((base.generation.seconds, cand.generation.seconds))
    if number * spec.batch_size < spec.quality.n:
        pairs.baseline.append(base.generation)
        pairs.candidate.append(cand.generation)


def _goes_on(entry: Entry) -> bool:
    """Whether it needs more pairs; if not, why it stopped is noted."""
    if entry.pairs.error:
        return False
    why = _stop(entry.session.spec, entry.pairs)
    entry.pairs.stopped = why or entry.pairs.stopped
    return why is None


def _stop(spec: RunSpec, pairs: Pairs) -> Stopped | None:
    count, timing, seconds = len(pairs.seconds), spec.timing, sum(map(sum, pairs.seconds))
    if count < timing.min_pairs:
        return None
    if stats.speedup(pairs.kept(), spec.seed).relative_half_width <= timing.target_halfwidth:
        return "target"
    if seconds * (count + 1) / count > timing.budget_s:
        return "budget"
    return "pairs" if count >= timing.max_pairs else None


class Disturbance:
    """Whether others took cores from torch, or the GPU was throttled, since this was made."""

    def __init__(self) -> None:
        self.before = _clocks()

    def reason(self) -> str | None:
        """Why the time since this was made cannot be trusted.

        Returns:
            One line; None where it can.
        """
        if held := nvml.held_down():
            return "GPU throttled: " + ", ".join(held)
        wall, busy, ours = (after - before for after, before in zip(_clocks(), self.before, strict=True))
        needed = 1 if device_type() == "cuda" else torch.get_num_threads()
        others, free = (busy - ours) / max(wall, 1e-9), provenance.cores() - needed
        if others > free + SPARE:
            return f"other processes took {others:.1f} of {provenance.cores()} cores"
        return None


def _clocks() -> tuple[float, float, float]:
    """Wall seconds, busy seconds of all cores, busy seconds of this process."""
    cores = psutil.cpu_times()
    busy = sum(cores) - cores.idle - getattr(cores, "iowait", 0) - getattr(cores, "guest", 0)
    return time.perf_counter(), busy, time.process_time()


def over(spec: RunSpec) -> str:
    """What a speedup is over.

    Args:
        spec: The configuration.

    Returns:
        "eager", "compiled" or "compiled with CUDA graphs".
    """
    graphs = " with CUDA graphs" if spec.cuda_graphs else ""
    return f"compiled{graphs}" if spec.compile else "eager"


def summarise(pairs: Pairs, spec: RunSpec) -> Timing:
    """The pairs as a record has them.

    Args:
        pairs: Of one configuration, one pair or more.
        spec: The configuration.

    Returns:
        The record's part, its derived values calculated.
    """
    kept, undisturbed = pairs.kept(), len(pairs.seconds) - len(pairs.contaminated)
    derived = stats.timed(kept, undisturbed, spec.timing.verdict_threshold, spec.seed)
    return Timing(
        **derived._asdict(),
        pairs=pairs.seconds,
        contaminated=list(pairs.contaminated),
        contaminated_why=list(pairs.contaminated.values()),
        baseline=over(spec),
        batch_size=spec.batch_size,
        shared_with=pairs.shared_with,
        stopped=pairs.stopped,
    )
