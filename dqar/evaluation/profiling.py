"""Where the time of a generation goes: attention, MLP, norms, embeddings, VAE and the rest."""

from __future__ import annotations

import itertools
import re
import resource
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

REST = "rest"
# The first pattern that a module's name matches names its group; a module inside one that has a
# group counts for its own only where the groups differ.
GROUPS = {
    "attention": re.compile(r"transformer_blocks\.\d+\.attn\d*$"),
    "mlp": re.compile(r"transformer_blocks\.\d+\.ff(_context)?$"),
    "norm": re.compile(r"(^|\.)norm[^.]*$"),
    "embeddings": re.compile(r"(^|\.)[^.]*emb(ed(der)?)?$"),
}


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
    """Times the modules of `pipe` while the context is open; `result` is there after it.

        with DQARProfiler(pipe) as profiler:
            pipe(class_labels=[207])
        profiler.result.shares

    Every boundary between groups sets a mark (a CUDA event, or the clock on the CPU), and the time
    between two marks belongs to the group that was innermost. The rest is what no module of a group
    does: residuals and modulation, output layers, guidance, solver. `trace_path` also runs torch's
    profiler and writes a Chrome trace there, at a cost that the shares then include. A compiled
    transformer runs no hooks: profile it eagerly.
    """

    def __init__(self, pipe: Any, trace_path: str | Path | None = None) -> None:
        self.pipe = pipe
        self.trace_path = trace_path
        self.cuda = next(pipe.transformer.parameters()).is_cuda
        self.result: Profile | None = None

    def __enter__(self) -> Self:
        self._stack, self._marks = [REST], [self._mark(REST)]
        self._hooks = [hook for module, group in self._modules() for hook in self._hook(module, group)]
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()
        activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * self.cuda
        self._trace = profile(activities=activities) if self.trace_path else None
        if self._trace:
            self._trace.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._marks.append(self._mark(REST))
        for hook in self._hooks:
            hook.remove()
        if self._trace:
            self._trace.stop()
            self._trace.export_chrome_trace(str(self.trace_path))
        self.result = self._sum_up()

    def _modules(self) -> list[tuple[nn.Module, str]]:
        """The modules to time, each with its group."""
        found = [
            (module, group)
            for name, module in self.pipe.transformer.named_modules()
            for group in GROUPS
            if GROUPS[group].search(name)
        ]
        decoder = getattr(getattr(self.pipe, "vae", None), "decoder", None)
        return found if decoder is None else [*found, (decoder, "vae")]

    def _hook(self, module: nn.Module, group: str) -> list[Any]:
        def enter(module: nn.Module, args: Any) -> None:
            self._stack.append(group)
            self._marks.append(self._mark(group))

        def leave(module: nn.Module, args: Any, output: Any) -> None:
            self._stack.pop()
            self._marks.append(self._mark(self._stack[-1]))

        return [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]

    def _mark(self, group: str) -> tuple[str, Any]:
        """Now, from when on `group` runs."""
        if not self.cuda:
            return group, time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return group, event

    def _sum_up(self) -> Profile:
        if self.cuda:
            torch.cuda.synchronize()
        seconds = dict.fromkeys([*GROUPS, "vae", REST], 0.0)
        for (group, start), (_, end) in itertools.pairwise(self._marks):
            seconds[group] += start.elapsed_time(end) / 1000 if self.cuda else end - start
        return Profile(total=sum(seconds.values()), seconds=seconds, peak_memory=self._peak_memory())

    def _peak_memory(self) -> int:
        if self.cuda:
            return torch.cuda.max_memory_allocated()
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # KiB on Linux


def profile_inference(
    pipe: Any,
    class_labels: Sequence[int],
    num_inference_steps: int = 50,
    guidance_scale: float = 4.0,
    seed: int = 0,
    warmup: int = 1,
    trace_path: str | Path | None = None,
) -> Profile:
    """Profile one generation of a class-conditional pipeline, after `warmup` that are not timed."""

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
