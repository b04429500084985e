"""The memory pass: what it counts, what its sampler costs, and what it reports where nothing can be read."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest
import torch

from bench.machine import nvml
from bench.machine.process import ALLOCATOR
from bench.measure import memory, memory_sampler
from bench.spec.run_spec import RunSpec

# NVML as the spawned sampler imports it: the bytes in use differ from look to look.
FAKE = """
import itertools
import types

NVMLError = OSError
used = itertools.cycle([300, 100, 200])  # a pass may be over before the second look


def nvmlInit():
    pass


def nvmlDeviceGetHandleByUUID(uuid):
    return uuid


def nvmlDeviceGetMemoryInfo(handle):
    assert handle == "GPU-1"
    return types.SimpleNamespace(used=next(used))


def __getattr__(name):
    if name.startswith("nvmlClocks"):
        return 1
    raise AttributeError(name)
"""


@pytest.fixture
def faked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """NVML answers, here and in spawned processes, though there is no device."""
    (tmp_path / "pynvml.py").write_text(FAKE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(nvml, "handle", lambda: "GPU-1")
    monkeypatch.setattr(nvml, "uuid", lambda: "1")
    monkeypatch.setattr(pynvml, "nvmlDeviceGetMemoryInfo", lambda handle: SimpleNamespace(used=50))
    return monkeypatch


def spec(model: Path) -> RunSpec:
    return RunSpec(
        suite="tiny", name="run", method="baseline", model=str(model), num_inference_steps=6, batch_size=2
    )


def test_the_sampler_sees_the_peak_and_reports_its_cost(faked: pytest.MonkeyPatch) -> None:
    """In a process of its own it looks again and again, and spends little of a core on that."""
    with memory.device_peak() as sampled:
        time.sleep(0.5)
    ((peak, samples, share),) = sampled
    assert peak == 300
    assert 5 <= samples <= 1 + 0.5 / memory_sampler.SAMPLE_S + 5
    assert 0 < share < 0.5


def test_the_sampler_looks_at_least_once(faked: pytest.MonkeyPatch) -> None:
    """However short the generation, there is a peak: never the 0 of a sampler that never looked."""
    with memory.device_peak() as sampled:
        pass
    assert sampled[0].peak >= 100
    assert sampled[0].samples >= 1


def test_energy_is_the_mean_over_a_long_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """A counter that advances every 100 ms at 250 W gives 250 W x the seconds of one generation."""
    monkeypatch.setattr(nvml, "energy_j", lambda: 250 * (time.perf_counter() // 0.1) * 0.1)
    seconds: list[float] = []

    def make() -> None:
        start = time.perf_counter()
        time.sleep(0.03)
        seconds.append(time.perf_counter() - start)

    joules = memory.energy_j(make)
    assert sum(seconds) > 0.9
    assert joules == pytest.approx(250 * sum(seconds) / len(seconds), rel=0.2)


@pytest.mark.parametrize("counter", [None, 7.0])
def test_energy_is_never_zero(monkeypatch: pytest.MonkeyPatch, counter: float | None) -> None:
    """Without a counter, or with one that stands still, there is no value."""
    monkeypatch.setattr(nvml, "energy_j", lambda: counter)
    assert memory.energy_j(lambda: time.sleep(0.6)) is None


def test_the_pass_records_its_sampler(faked: pytest.MonkeyPatch, tiny_model_dir: Path) -> None:
    """With NVML the record holds the sampled peak, the sampler's cost, and no reason for either."""
    peaks = memory.isolated(spec(tiny_model_dir))
    assert (peaks.nvml_device_peak, peaks.nvml_device_idle) == (300, 50)
    assert peaks.sampler_samples and peaks.sampler_cpu_share
    assert not {"nvml_device_peak", "sampler_samples", "sampler_cpu_share"} & set(peaks.missing)


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without a device")
def test_without_a_device_each_value_has_its_reason(tiny_model_dir: Path) -> None:
    """All that only a device reports is null with a reason; the host's peak is there."""
    peaks = memory.measure(spec(tiny_model_dir))
    nulls = {name for name, value in peaks.model_dump().items() if value is None}
    assert nulls == set(peaks.missing) >= {"energy_j", "nvml_device_peak", "sampler_cpu_share"}
    assert "no sampler ran" in peaks.missing["sampler_cpu_share"]
    assert peaks.rss_peak and peaks.rss_idle and peaks.rss_peak > peaks.rss_idle


def test_the_pass_has_the_allocator_as_it_comes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_model_dir: Path
) -> None:
    """What is set against page faults in the timed process does not reach the memory pass."""
    for name in ALLOCATOR:
        monkeypatch.setenv(name, "1073741824")
    monkeypatch.setenv("DQAR_TEST_KEPT", "1")
    seen = tmp_path / "seen.json"
    python = tmp_path / "python"
    python.write_text(
        f"#!{sys.executable}\nimport json, os, pathlib, sys\n"
        f"pathlib.Path({str(seen)!r}).write_text(json.dumps(dict(os.environ)))\nsys.exit('enough')\n"
    )
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(RuntimeError, match="ended with 1: enough"):
        memory.measure(spec(tiny_model_dir))
    given: dict[str, Any] = json.loads(seen.read_text())
    assert given["DQAR_TEST_KEPT"] == "1"
    assert not set(ALLOCATOR) & set(given)
    assert set(ALLOCATOR) <= set(os.environ)


def test_the_peak_of_resident_memory_is_seen() -> None:
    """256 MiB that are held for a moment are in the peak afterwards."""
    memory.reset_rss_peak()
    before = memory.rss_peak()
    torch.ones(64 * 2**20).sum()  # 256 MiB
    assert memory.rss_peak() - before > 250 * 2**20
