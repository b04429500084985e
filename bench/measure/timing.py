"""Time: baseline and candidate in turn, in random order, on the same inputs."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import psutil
import torch

from bench import models, stats
from bench.measure import environment, nvml
from bench.measure.generation import Generation, Session
from bench.record import Timing
from bench.suite import RunSpec

# Of fewer pairs even the widest interval of a median, from least to greatest, covers less than
# 1 - 2^(1-n) = 94 %: no verdict on them.
FEWEST = 5
SPARE = 0.15  # cores that others may take from those torch computes on before a pair is disturbed
Stopped = Literal["target", "budget", "pairs"]


@dataclass
class Pairs:
    """Raw measurements, and those generations whose pictures quality is measured on."""

    seconds: list[tuple[float, float]] = field(default_factory=list)  # (baseline, candidate)
    disturbed: dict[int, str] = field(default_factory=dict)  # pair -> why
    baseline: list[Generation] = field(default_factory=list)
    candidate: list[Generation] = field(default_factory=list)
    stopped: Stopped = "pairs"

    def kept(self) -> list[tuple[float, float]]:
        """The undisturbed pairs; all of them where fewer than two are undisturbed."""
        calm = [pair for i, pair in enumerate(self.seconds) if i not in self.disturbed]
        return calm if len(calm) >= 2 else self.seconds


def measure(session: Session, say: Callable[[str], None]) -> Pairs:
    """Warm up, then time pairs until the interval is narrow enough or the budget is spent.

    Every run makes `timing.min_pairs` pairs; the budget bounds the time of those beyond. Pictures
    that quality needs besides are not timed, see `bench.measure.pictures`.
    """
    spec, pairs, rng = session.spec, Pairs(), random.Random(session.spec.seed)
    for _ in range(spec.timing.warmup):
        say("warm-up")
        session.baseline(range(spec.batch_size), **session.short)
        session.candidate(range(spec.batch_size), **session.short)
    start = time.monotonic()
    while (why := _stop(spec, pairs, time.monotonic() - start)) is None:
        say(f"pair {len(pairs.seconds) + 1}")
        _measure_pair(session, pairs, rng)
    pairs.stopped = why
    return pairs


def _measure_pair(session: Session, pairs: Pairs, rng: random.Random) -> None:
    number, batch = len(pairs.seconds), session.spec.batch_size
    pictures = range(number * batch, (number + 1) * batch)
    watch = Disturbance()
    made = {arm: getattr(session, arm)(pictures) for arm in rng.sample(("baseline", "candidate"), 2)}
    if why := watch.found():
        pairs.disturbed[number] = why
    pairs.seconds.append((made["baseline"].seconds, made["candidate"].seconds))
    if number * batch < session.spec.quality.n:
        pairs.baseline.append(made["baseline"])
        pairs.candidate.append(made["candidate"])


def _stop(spec: RunSpec, pairs: Pairs, seconds: float) -> Stopped | None:
    count, timing = len(pairs.seconds), spec.timing
    if count < timing.min_pairs:
        return None
    if stats.half_width(stats.speedup(pairs.kept(), spec.seed)) <= timing.target_halfwidth:
        return "target"
    if seconds * (count + 1) / count > timing.budget_s:
        return "budget"
    return "pairs" if count >= timing.max_pairs else None


class Disturbance:
    """Whether others took cores from torch, or the GPU was throttled, since this was made."""

    def __init__(self) -> None:
        self.before = _clocks()

    def found(self) -> str | None:
        """Why the time since cannot be trusted, in words, or None."""
        throttles = nvml.throttles()
        if throttles:
            return "GPU throttled: " + ", ".join(throttles)
        wall, busy, own = (after - before for after, before in zip(_clocks(), self.before, strict=True))
        needed = 1 if models.device() == "cuda" else torch.get_num_threads()
        others, free = (busy - own) / max(wall, 1e-9), environment.cores() - needed
        if others > free + SPARE:
            return f"other processes took {others:.1f} of {environment.cores()} cores"
        return None


def _clocks() -> tuple[float, float, float]:
    """Wall seconds, busy seconds of all cores, busy seconds of this process."""
    cores = psutil.cpu_times()
    busy = sum(cores) - cores.idle - getattr(cores, "iowait", 0) - getattr(cores, "guest", 0)
    return time.perf_counter(), busy, time.process_time()


def over(spec: RunSpec) -> str:
    """What a speedup is over, in words."""
    graphs = " with CUDA graphs" if spec.cuda_graphs else ""
    return f"compiled{graphs}" if spec.compile else "eager"


def summarise(pairs: Pairs, spec: RunSpec) -> Timing:
    """The pairs as a record has them."""
    kept = pairs.kept()
    ratio = stats.speedup(kept, spec.seed)
    verdict, why = stats.verdict(ratio, spec.timing.verdict_threshold)
    calm = len(pairs.seconds) - len(pairs.disturbed)
    if calm < FEWEST:
        verdict, why = "AMBIGUOUS", f"{calm} undisturbed pairs carry no verdict; needed: {FEWEST}"
    return Timing(
        speedup=ratio,
        baseline_s=stats.median_interval([pair[0] for pair in kept], spec.seed),
        candidate_s=stats.median_interval([pair[1] for pair in kept], spec.seed),
        pairs=pairs.seconds,
        disturbed=list(pairs.disturbed),
        disturbed_why=list(pairs.disturbed.values()),
        baseline=over(spec),
        batch_size=spec.batch_size,
        stopped=pairs.stopped,
        verdict=verdict,
        verdict_why=why,
    )
