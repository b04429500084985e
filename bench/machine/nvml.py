"""What NVML reports of the GPU that torch uses; None where there is none or it does not report it."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from typing import Any

import pynvml

POWER_CAP = "software power cap"
# Share of the highest clock from which on the power cap is how a device runs under full load, and no
# disturbance: nvbench throws away what ran below.
USUAL = 0.75
# Why a clock is held down; idling and settings made by a user do not count.
THROTTLES = {
    POWER_CAP: pynvml.nvmlClocksEventReasonSwPowerCap,
    "software thermal slowdown": pynvml.nvmlClocksEventReasonSwThermalSlowdown,
    "hardware slowdown": pynvml.nvmlClocksThrottleReasonHwSlowdown,
    "hardware thermal slowdown": pynvml.nvmlClocksThrottleReasonHwThermalSlowdown,
    "hardware power brake": pynvml.nvmlClocksThrottleReasonHwPowerBrakeSlowdown,
}

KINDS = ("GPU-", "MIG-")  # a whole device, or an instance of one; torch reports neither


@cache
def handle() -> Any:
    """NVML's handle of torch's current device; by UUID, since NVML ignores CUDA_VISIBLE_DEVICES.

    Returns:
        The handle, looked up once a process; None without a driver, or where torch uses the CPU.
    """
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None  # and torch, which takes seconds to import, need not be asked
    from bench.machine.device import device_type

    return by_uuid(uuid()) if device_type() == "cuda" else None


def uuid() -> str:
    """The UUID of the device that torch uses; only with CUDA.

    Returns:
        Without NVML's prefix for what it is, see `KINDS`.
    """
    import torch

    return str(torch.cuda.get_device_properties().uuid)


def by_uuid(uuid: str) -> Any:
    """The handle of a device, whole or a MIG slice; also for processes that have no torch.

    Args:
        uuid: As `uuid` returns it.

    Returns:
        None where NVML does not know the device.
    """
    for kind in KINDS:
        try:
            pynvml.nvmlInit()
            return pynvml.nvmlDeviceGetHandleByUUID(kind + uuid)
        except pynvml.NVMLError:
            continue
    return None


def ask(query: Callable[..., Any], *arguments: Any) -> Any:
    """Query the device that torch uses.

    Args:
        query: A function of pynvml that takes a handle first.
        *arguments: What it takes after the handle.

    Returns:
        Its answer; None where there is no device, or NVML does not answer.
    """
    try:
        return query(handle(), *arguments) if handle() is not None else None
    except pynvml.NVMLError:
        return None


def describe() -> dict[str, Any] | None:
    """What the device is.

    Returns:
        `name`, `driver`, `memory` in bytes and `power_limit_w` in watts, each None where it is not reported;
        None without a device.
    """
    if handle() is None:
        return None
    memory, limit = ask(pynvml.nvmlDeviceGetMemoryInfo), ask(pynvml.nvmlDeviceGetPowerManagementLimit)
    return {
        "name": ask(pynvml.nvmlDeviceGetName),
        "driver": _driver(),
        "memory": memory and memory.total,
        "power_limit_w": limit and limit / 1000,
    }


def _driver() -> str | None:
    try:
        return str(pynvml.nvmlSystemGetDriverVersion())
    except pynvml.NVMLError:
        return None


def state() -> dict[str, Any] | None:
    """What the device does right now.

    Returns:
        Clocks in MHz, temperature in °C, power in watts, throttle reasons, number of foreign processes; each
        None where it is not reported. None without a device.
    """
    if handle() is None:
        return None
    power = ask(pynvml.nvmlDeviceGetPowerUsage)
    return {
        "sm_mhz": ask(pynvml.nvmlDeviceGetClockInfo, pynvml.NVML_CLOCK_SM),
        "memory_mhz": ask(pynvml.nvmlDeviceGetClockInfo, pynvml.NVML_CLOCK_MEM),
        "temperature_c": ask(pynvml.nvmlDeviceGetTemperature, pynvml.NVML_TEMPERATURE_GPU),
        "power_w": power and power / 1000,
        "throttle": throttles(),
        "foreign_processes": foreign(),
    }


def throttles() -> list[str] | None:
    """The reasons for which the device runs below its clock right now.

    Returns:
        Keys of THROTTLES; empty = it does not, None = not reported.
    """
    bits = ask(pynvml.nvmlDeviceGetCurrentClocksEventReasons)
    return None if bits is None else [name for name, bit in THROTTLES.items() if bits & bit]


def held_down() -> list[str]:
    """The reasons that invalidate a time: the power cap only where the clock is below its usual share.

    Returns:
        Keys of THROTTLES; empty where nothing is reported too.
    """
    reasons = throttles() or []
    if reasons != [POWER_CAP]:
        return reasons
    now = ask(pynvml.nvmlDeviceGetClockInfo, pynvml.NVML_CLOCK_SM)
    highest = ask(pynvml.nvmlDeviceGetMaxClockInfo, pynvml.NVML_CLOCK_SM)
    return reasons if not (now and highest) or now < USUAL * highest else []


def foreign() -> int | None:
    """Processes on the device besides this one; slow, so twice a run and no more.

    Returns:
        None without a device, and where this process is not among them: in a container the numbers may be the
        host's.
    """
    pids = [p.pid for p in ask(pynvml.nvmlDeviceGetComputeRunningProcesses) or ()]
    return len(pids) - 1 if os.getpid() in pids else None


def process_bytes() -> int | None:
    """Device memory of this process.

    Returns:
        Bytes; None where it is not reported, as in most containers.
    """
    processes = ask(pynvml.nvmlDeviceGetComputeRunningProcesses) or []
    return next((p.usedGpuMemory for p in processes if p.pid == os.getpid()), None)


def energy_j() -> float | None:
    """Energy since the driver was loaded; it advances about every 100 ms: mind the window.

    Returns:
        Joules; None where it is not reported.
    """
    millijoules = ask(pynvml.nvmlDeviceGetTotalEnergyConsumption)
    return None if millijoules is None else millijoules / 1000
