"""Memory: an isolated pass in a process of its own, one generation by the method.

`python -m bench.measure.memory` reads a Job (JSON) on stdin and writes a Memory (JSON) on stdout.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil
import pynvml
import torch
from pydantic import BaseModel

from bench.measure import nvml
from bench.measure.generation import Session
from bench.process import die_with
from bench.record import Memory
from bench.suite import RunSpec

SAMPLE_S = 0.02  # NVML has no peak counter, so its peak is sampled: a lower bound


class Job(BaseModel):
    """What the isolated process is asked."""

    spec: RunSpec
    parent: int


def measure(spec: RunSpec) -> Memory:
    """Run the pass; RuntimeError with the last line that the process said, where it fails."""
    job = Job(spec=spec, parent=os.getpid()).model_dump_json()
    done = subprocess.run([sys.executable, "-m", __name__], input=job, capture_output=True, text=True)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["nothing said"]
        raise RuntimeError(f"the memory pass ended with {done.returncode}: {lines[-1]}")
    return Memory.model_validate_json(done.stdout.splitlines()[-1])


def isolated(spec: RunSpec) -> Memory:
    """Peaks over one generation, after the model is loaded; idle before it is."""
    missing: dict[str, str] = {}
    idle, device_idle = psutil.Process().memory_info().rss, _device_used()
    session = Session.open(spec)
    if torch.cuda.is_available():  # the first generation allocates what all later ones share
        session.candidate(range(spec.batch_size), **session.short)
        torch.cuda.reset_peak_memory_stats()
    reset_rss_peak()
    before = nvml.energy_j()
    with device_peak() as peak:
        session.candidate(range(spec.batch_size), **session.short)
    figures = {
        "rss_peak": rss_peak(),
        "rss_idle": idle,
        "nvml_device_peak": peak[0] if peak else None,
        "nvml_device_idle": device_idle,
        "nvml_process_peak": nvml.process_bytes(),
        "energy_j": _spent(before, nvml.energy_j()),
        **_torch_peaks(),
    }
    why = "no CUDA device" if not torch.cuda.is_available() else "the device does not tell"
    missing = {name: why for name, figure in figures.items() if figure is None}
    return Memory(**figures, cache_bytes=session.cache_bytes, missing=missing)


def _torch_peaks() -> dict[str, int | None]:
    there = torch.cuda.is_available()
    return {
        "torch_allocated_peak": torch.cuda.max_memory_allocated() if there else None,
        "torch_reserved_peak": torch.cuda.max_memory_reserved() if there else None,
    }


def _spent(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else after - before


def _device_used() -> int | None:
    info = nvml.ask(pynvml.nvmlDeviceGetMemoryInfo)
    return info.used if info else None


def reset_rss_peak() -> None:
    """Let the kernel count the peak of resident memory from here (Linux: proc(5), clear_refs)."""
    if Path("/proc/self/clear_refs").exists():
        Path("/proc/self/clear_refs").write_text("5")


def rss_peak() -> int:
    """Peak resident bytes since `reset_rss_peak`, or of the whole process off Linux."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(row for row in status.read_text().splitlines() if row.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


@contextmanager
def device_peak() -> Iterator[list[int]]:
    """Collect the device's peak, sampled by a spawned process so that this one is not slowed."""
    found: list[int] = []
    if nvml.handle() is None:
        yield found
        return
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    arguments = (nvml.uuid(), os.getpid(), theirs)
    sampler = context.Process(target=sample, args=arguments, daemon=True)
    sampler.start()
    ours.recv()  # it samples from now on
    try:
        yield found
    finally:
        ours.send("stop")
        found.append(ours.recv())
        sampler.join()


def sample(uuid: str, parent: int, pipe: Connection[Any, Any]) -> None:
    """Send the most device bytes seen until the other end says stop."""
    die_with(parent)
    handle, peak = nvml.by_uuid(uuid), 0
    pipe.send("ready")
    while not pipe.poll():
        peak = max(peak, pynvml.nvmlDeviceGetMemoryInfo(handle).used)
        time.sleep(SAMPLE_S)
    pipe.send(peak)


if __name__ == "__main__":
    job = Job.model_validate_json(sys.stdin.read())
    die_with(job.parent)
    sys.stdout.write(isolated(job.spec).model_dump_json() + "\n")
