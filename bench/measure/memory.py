"""Memory and energy: an isolated pass in a process of its own, generations by the method alone.

`python -m bench.measure.memory` reads a Job (JSON) on stdin and writes a Memory (JSON) on stdout.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pynvml
import torch
from pydantic import BaseModel

from bench.machine import nvml
from bench.machine.device import device_type
from bench.machine.process import ALLOCATOR, die_with
from bench.measure.memory_sampler import Sampled, sample
from bench.pipeline.session import Session
from bench.record import Memory
from bench.spec.run_spec import RunSpec

WINDOW_S = 1.0  # of the energy counter, which advances about every 100 ms


class Job(BaseModel):
    """What the isolated process is asked."""

    spec: RunSpec
    parent: int


def measure(spec: RunSpec) -> Memory:
    """Run the isolated pass in a process of its own.

    Args:
        spec: The configuration.

    Returns:
        What the pass measured.

    Raises:
        RuntimeError: It fails; with the last line that it printed.
    """
    job = Job(spec=spec, parent=os.getpid()).model_dump_json()
    command = [sys.executable, "-m", __name__]
    done = subprocess.run(command, input=job, capture_output=True, text=True, env=environment())
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        raise RuntimeError(f"the memory pass ended with {done.returncode}: {lines[-1]}")
    return Memory.model_validate_json(done.stdout.splitlines()[-1])


def environment() -> dict[str, str]:
    """This process's, with the allocator as it comes: its settings would show in the peaks.

    Returns:
        Environment variables for the isolated process.
    """
    return {name: value for name, value in os.environ.items() if name not in ALLOCATOR}


def isolated(spec: RunSpec) -> Memory:
    """Peaks over one generation, after the model is loaded; idle before it is.

    Args:
        spec: The configuration; it is run in this process.

    Returns:
        In bytes and joules; what the device does not report is null, and `missing` states why.
    """
    idle, device_idle = psutil.Process().memory_info().rss, _device_used()
    session = Session.open(spec)
    if device_type() == "cuda":  # the first generation allocates what all later ones share
        session.candidate(range(spec.batch_size), **session.short)
        torch.cuda.reset_peak_memory_stats()
    reset_rss_peak()
    with device_peak() as sampled:
        session.candidate(range(spec.batch_size), **session.short)
    values = {
        "rss_peak": rss_peak(),
        "rss_idle": idle,
        "nvml_device_peak": sampled[0].peak if sampled else None,
        "nvml_device_idle": device_idle,
        "nvml_process_peak": nvml.process_bytes(),
        "sampler_samples": sampled[0].samples if sampled else None,
        "sampler_cpu_share": sampled[0].cpu_share if sampled else None,
        **_torch_peaks(),
        "energy_j": energy_j(lambda: session.candidate(range(spec.batch_size))),  # last: it adds to peaks
    }
    missing = {name: _why_missing(name) for name, value in values.items() if value is None}
    return Memory(**values, cache_bytes=session.cache_bytes, missing=missing)


def _why_missing(name: str) -> str:
    if device_type() == "cuda":
        return "the device does not report it"
    if name.startswith("sampler_"):
        return "no CUDA device: no sampler ran, for the kernel counts the host's peaks"
    return "no CUDA device"


def _torch_peaks() -> dict[str, int | None]:
    there = device_type() == "cuda"
    return {
        "torch_allocated_peak": torch.cuda.max_memory_allocated() if there else None,
        "torch_reserved_peak": torch.cuda.max_memory_reserved() if there else None,
    }


def energy_j(make: Callable[[], object]) -> float | None:
    """Energy of one call: the mean of as many as fill WINDOW_S.

    Args:
        make: What is measured, called once or more.

    Returns:
        Joules a call; None where no counter advances.
    """
    before, start, count = nvml.energy_j(), time.perf_counter(), 0
    while before is not None and (count == 0 or time.perf_counter() - start < WINDOW_S):
        make()
        count += 1
    after = nvml.energy_j()
    return None if before is None or after is None or after <= before else (after - before) / count


def _device_used() -> int | None:
    info = nvml.ask(pynvml.nvmlDeviceGetMemoryInfo)
    return info.used if info else None


def reset_rss_peak() -> None:
    """Let the kernel count the peak of resident memory from here (Linux: proc(5), clear_refs)."""
    if Path("/proc/self/clear_refs").exists():
        Path("/proc/self/clear_refs").write_text("5")


def rss_peak() -> int:
    """Peak resident memory since `reset_rss_peak`, or of the whole process off Linux.

    Returns:
        Bytes.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(row for row in status.read_text().splitlines() if row.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


@contextmanager
def device_peak() -> Iterator[list[Sampled]]:
    """Collect the device's peak, sampled by a spawned process so that this one is not slowed.

    Yields:
        A list that gets what the sampler saw when the body has ended; it stays empty where NVML reports
        nothing.
    """
    seen: list[Sampled] = []
    if _device_used() is None:
        yield seen
        return
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    arguments = (nvml.uuid(), os.getpid(), theirs)
    sampler = context.Process(target=sample, args=arguments, daemon=True)
    sampler.start()
    theirs.close()  # so that a sampler that dies is an error here, not a hang
    ours.recv()  # it samples from now on
    try:
        yield seen
    finally:
        ours.send("stop")
        seen.append(ours.recv())
        sampler.join()


if __name__ == "__main__":
    job = Job.model_validate_json(sys.stdin.read())
    die_with(job.parent)
    sys.stdout.write(isolated(job.spec).model_dump_json() + "\n")
