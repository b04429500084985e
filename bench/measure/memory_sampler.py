"""The process that samples a device's memory. It imports no torch, so it starts at once and takes little."""

from __future__ import annotations

import time
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import pynvml

from bench.machine import nvml
from bench.machine.process import die_with

SAMPLE_S = 0.02  # NVML has no peak counter, so its peak is sampled: a lower bound


class Sampled(NamedTuple):
    """What the sampler saw, and what it cost."""

    peak: int  # bytes
    samples: int
    cpu_share: float  # its CPU seconds / wall seconds


def sample(uuid: str, parent: int, pipe: Connection[Any, Any]) -> None:
    """Sample a device's memory until the other end sends stop; the body of a process.

    Args:
        uuid: The device's, without NVML's prefix.
        parent: Id of the process that waits for the answer, and with which this one ends.
        pipe: Sends "ready", receives anything to stop, and sends a `Sampled`.
    """
    die_with(parent)
    handle, peak, samples = nvml.by_uuid(uuid), 0, 0
    pipe.send("ready")
    cpu, wall = time.process_time(), time.perf_counter()
    while samples == 0 or not pipe.poll(SAMPLE_S):
        peak = max(peak, pynvml.nvmlDeviceGetMemoryInfo(handle).used)
        samples += 1
    share = (time.process_time() - cpu) / (time.perf_counter() - wall)
    pipe.send(Sampled(peak, samples, share))
