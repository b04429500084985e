"""Where the time of a generation goes: attention, MLP, norms, embeddings, cache, solver, decoder, gaps."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from dqar.evaluation.ranges import GROUPS, PREFIX, REST, ranges

GAPS = "launch gaps"  # on CUDA: the device waits for the host


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Seconds of each group, which sum to `total`, and the peak of memory.

    Memory is torch's peak allocation on CUDA, else the process's peak resident set so far, in bytes.
    """

    total: float
    seconds: dict[str, float]
    peak_memory: int

    @property
    def shares(self) -> dict[str, float]:
        """Share of the time for each group, sum 1."""
        return {group: seconds / self.total for group, seconds in self.seconds.items()}


class DQARProfiler:
    """Profiles the parts of `pipe` while the context is open; `result` is there after it.

        with DQARProfiler(pipe) as profiler:
            pipe(class_labels=[207])
        profiler.result.shares

    Every part runs within a range of its name, which torch's profiler records. On the CPU a group has the
    operations' own time and the host's between them, the profiler's cost included. On CUDA it has the
    time of the kernels that were launched within its range, and what remains of the wall clock is
    `launch gaps`. The rest is what no part does: output layers, guidance, the pipeline's own code. A
    compiled transformer counts as a whole.

    Args:
        pipe: A diffusers pipeline with a transformer.
        trace_path: File (.json or .json.gz) of a Chrome trace; None = none.
    """

    def __init__(self, pipe: Any, trace_path: str | Path | None = None) -> None:
        self.pipe = pipe
        self.trace_path = trace_path
        self.cuda = next(pipe.transformer.parameters()).is_cuda
        self.result: Profile | None = None

    def __enter__(self) -> Self:
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()
        activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * self.cuda
        self._profile = profile(activities=activities)
        self._profile.start()
        self._ranges = ExitStack()
        self._ranges.enter_context(ranges(self.pipe))
        self._start = self._now()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        wall = self._now() - self._start
        self._ranges.close()
        self._profile.stop()
        if self.trace_path:
            self._profile.export_chrome_trace(str(self.trace_path))
        seconds = device_seconds(self._events(), wall) if self.cuda else host_seconds(self._events())
        self.result = Profile(total=sum(seconds.values()), seconds=seconds, peak_memory=self._peak_memory())

    def _events(self) -> list[Any]:
        return list(self._profile.events() or ())

    def _now(self) -> float:
        if self.cuda:
            torch.cuda.synchronize()
        return time.perf_counter()

    def _peak_memory(self) -> int:
        if self.cuda:
            return torch.cuda.max_memory_allocated()
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # KiB on Linux


def host_seconds(events: Iterable[Any]) -> dict[str, float]:
    """Seconds of each group on the host: what each event took beyond those within it.

    Args:
        events: Of torch's profiler, those of ranges among them.

    Returns:
        Seconds by group, all of `GROUPS` included.
    """
    seconds = dict.fromkeys(GROUPS, 0.0)
    for event in events:
        group = _group(event)
        if group is not None and event.device_type == DeviceType.CPU:
            seconds[group] = seconds.get(group, 0.0) + event.self_cpu_time_total / 1e6
    return seconds


def device_seconds(events: Sequence[Any], wall: float) -> dict[str, float]:
    """Seconds of each group on the device, by the range that launched its kernels, and of the gaps.

    Kernels that no range launched (those of a replayed graph, which does not report it) count as the rest.

    Args:
        events: Of torch's profiler, with their kernels.
        wall: Seconds of the whole generation by the host's clock, the device synchronised at both ends.

    Returns:
        Seconds by group, all of `GROUPS` and `GAPS` included; they sum to `wall` at least.
    """
    seconds = dict.fromkeys(GROUPS, 0.0)
    for event in events:
        # A range has a shadow on the device, which spans its kernels and is none.
        kernels = [k.duration for k in getattr(event, "kernels", ()) if not k.name.startswith(PREFIX)]
        if kernels:
            group = _group(event) or REST
            seconds[group] = seconds.get(group, 0.0) + sum(kernels) / 1e6
    busy = _covered(_on_device(events))
    seconds[REST] += max(0.0, busy - sum(seconds.values()))
    return seconds | {GAPS: max(0.0, wall - sum(seconds.values()))}


def _group(event: Any) -> str | None:
    """The group of the innermost range that an event is in, None outside of all."""
    while event is not None and not event.name.startswith(PREFIX):
        event = event.cpu_parent
    return None if event is None else str(event.name).removeprefix(PREFIX)


def _on_device(events: Iterable[Any]) -> list[tuple[float, float]]:
    """When kernels and copies ran, in microseconds."""
    return [
        (event.time_range.start, event.time_range.end)
        for event in events
        if event.device_type == DeviceType.CUDA
        and not event.is_user_annotation
        and not event.name.startswith(PREFIX)
    ]


def _covered(spans: Iterable[tuple[float, float]]) -> float:
    """Seconds that lie in at least one span of microseconds."""
    total, until = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total / 1e6


def profile_inference(
    pipe: Any,
    class_labels: Sequence[int],
    num_inference_steps: int = 50,
    guidance_scale: float = 4.0,
    seed: int = 0,
    warmup: int = 1,
    trace_path: str | Path | None = None,
) -> Profile:
    """Profile one generation of a class-conditional pipeline.

    Args:
        pipe: The pipeline, with DQAR or without.
        class_labels: One label per image.
        num_inference_steps: Denoising steps.
        guidance_scale: Weight of classifier-free guidance; 1 = none.
        seed: Random seed of the noise.
        warmup: Generations before it that are not profiled.
        trace_path: As `DQARProfiler` takes it.

    Returns:
        Of the one generation that was profiled.
    """

    def generate() -> None:
        generator = torch.Generator(pipe.device).manual_seed(seed)
        pipe(
            class_labels=list(class_labels),
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            generator=generator,
            output_type="pt",
        )

    for _ in range(warmup):
        generate()
    with DQARProfiler(pipe, trace_path) as profiler:
        generate()
    assert profiler.result is not None
    return profiler.result
