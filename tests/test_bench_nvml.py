"""NVML to its documented interface: what it does not report is None, never 0; slices are distinguished."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest

from bench.cli import doctor
from bench.machine import nvml, provenance
from bench.measure import flops

SLICE = "NVIDIA A100-SXM4-40GB MIG 1g.5gb"


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the driver answers by query, filled in by the test; a query that is not there is refused."""
    answers: dict[str, Any] = {}

    def query(name: str) -> Any:
        def asked(*_: Any) -> Any:
            if name not in answers:
                raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
            return answers[name]

        return asked

    for name in dir(pynvml):
        if name.startswith(("nvmlDeviceGet", "nvmlSystemGet")):
            monkeypatch.setattr(pynvml, name, query(name))
    monkeypatch.setattr(nvml, "handle", lambda: "a handle")
    return answers


def process(pid: int, memory: int | None) -> SimpleNamespace:
    return SimpleNamespace(pid=pid, usedGpuMemory=memory)


def test_what_the_driver_refuses_is_none(device: dict[str, Any]) -> None:
    """Without a single counter every value is None, and no list is empty as if all were well."""
    described, state = nvml.describe(), nvml.state()
    assert described is not None and set(described.values()) == {None}
    assert state is not None and set(state.values()) == {None}
    assert nvml.energy_j() is None and nvml.process_bytes() is None and nvml.foreign() is None
    assert nvml.throttles() is None
    assert not doctor.energy().there and flops.data_sheet_peak() is None


def test_units(device: dict[str, Any]) -> None:
    """Milliwatts and millijoules come out as watts and joules, memory in bytes."""
    device |= {
        "nvmlDeviceGetName": "NVIDIA H100 80GB HBM3",
        "nvmlSystemGetDriverVersion": "570.0",
        "nvmlDeviceGetMemoryInfo": SimpleNamespace(total=80 * 2**30, used=2**30),
        "nvmlDeviceGetPowerManagementLimit": 700_000,
        "nvmlDeviceGetPowerUsage": 123_456,
        "nvmlDeviceGetTotalEnergyConsumption": 7_500,
        "nvmlDeviceGetClockInfo": 1980,
        "nvmlDeviceGetTemperature": 41,
    }
    described, state = nvml.describe(), nvml.state()
    assert described == {
        "name": "NVIDIA H100 80GB HBM3", "driver": "570.0", "memory": 80 * 2**30, "power_limit_w": 700.0,
    }  # fmt: skip
    assert state is not None and (state["power_w"], state["sm_mhz"], state["temperature_c"]) == (
        123.456, 1980, 41,
    )  # fmt: skip
    assert nvml.energy_j() == 7.5
    assert provenance.machine() == "nvidia-h100-80gb-hbm3"


def test_throttle_reasons_have_names(device: dict[str, Any]) -> None:
    """Bits of clocks held down become words; idling and a user's settings are none."""
    device["nvmlDeviceGetCurrentClocksEventReasons"] = pynvml.nvmlClocksEventReasonGpuIdle
    assert nvml.throttles() == []
    power, heat = pynvml.nvmlClocksEventReasonSwPowerCap, pynvml.nvmlClocksThrottleReasonHwThermalSlowdown
    device["nvmlDeviceGetCurrentClocksEventReasons"] = power | heat
    assert nvml.throttles() == ["software power cap", "hardware thermal slowdown"]


@pytest.mark.parametrize(
    ("reasons", "clocks", "invalid"),
    [
        (pynvml.nvmlClocksEventReasonSwPowerCap, (1600, 1980), False),
        (pynvml.nvmlClocksEventReasonSwPowerCap, (1400, 1980), True),
        (pynvml.nvmlClocksEventReasonSwPowerCap, (None, None), True),
        (pynvml.nvmlClocksEventReasonSwThermalSlowdown, (1600, 1980), True),
        (pynvml.nvmlClocksEventReasonGpuIdle, (345, 1980), False),
    ],
    ids=["full load", "starved", "unknown clocks", "hot", "idle"],
)
def test_what_invalidates_a_time(
    device: dict[str, Any], reasons: int, clocks: tuple[int | None, int | None], invalid: bool
) -> None:
    """The power cap invalidates no time while the clock is near its highest, as on every device under full
    load; far below, or at clocks that are not reported, it does, and heat always."""
    assert nvml.held_down() == []
    device["nvmlDeviceGetCurrentClocksEventReasons"] = reasons
    device |= {"nvmlDeviceGetClockInfo": clocks[0], "nvmlDeviceGetMaxClockInfo": clocks[1]}
    assert bool(nvml.held_down()) is invalid


@pytest.mark.parametrize("memory", [None, 5 * 2**20])
def test_memory_of_this_process(device: dict[str, Any], memory: int | None) -> None:
    """This process's bytes are its own, and None where the driver leaves the field empty."""
    device["nvmlDeviceGetComputeRunningProcesses"] = [process(1, 77), process(os.getpid(), memory)]
    assert nvml.process_bytes() == memory
    assert nvml.foreign() == 1


def test_processes_by_the_hosts_numbers_are_unknown(device: dict[str, Any]) -> None:
    """In a container this process may go by another number: then neither value is known."""
    device["nvmlDeviceGetComputeRunningProcesses"] = [process(os.getpid() + 1, 77)]
    assert nvml.process_bytes() is None and nvml.foreign() is None


@pytest.mark.parametrize("kind", ["GPU-", "MIG-"])
def test_a_device_is_found_by_uuid(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """torch's UUID finds the whole device or the slice that bears it, and no other."""

    def by_uuid(uuid: str) -> str:
        if uuid != f"{kind}abc":
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        return uuid

    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByUUID", by_uuid)
    assert nvml.by_uuid("abc") == f"{kind}abc"
    assert nvml.by_uuid("other") is None


def test_without_a_driver_nothing_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A library that does not load is None, not an error."""

    def init() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", init)
    assert nvml.by_uuid("abc") is None


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H200", 989e12),
        (SLICE, None),
        ("NVIDIA GeForce RTX 3060", None),
    ],
)
def test_a_slice_has_not_the_peak_of_the_whole(device: dict[str, Any], name: str, peak: float | None) -> None:
    """The data sheet's peak is that of the very device; a MIG slice's is measured instead."""
    device["nvmlDeviceGetName"] = name
    assert flops.data_sheet_peak() == peak


def test_a_slice_is_a_machine_of_its_own(device: dict[str, Any]) -> None:
    """Records of a slice do not mix with those of the whole device."""
    device["nvmlDeviceGetName"] = SLICE
    assert provenance.machine() == "nvidia-a100-sxm4-40gb-mig-1g-5gb"
