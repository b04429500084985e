"""Provenance: what a value depends on besides the configuration, and the state of the machine.

Nothing here names a person, a host or a path.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

import psutil

from bench.machine import nvml
from bench.machine.process import ALLOCATOR

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("torch", "diffusers", "numpy", "torch-fidelity", "safetensors", "transformers", "torchao")


def provenance(seed: int) -> dict[str, Any]:
    """Versions, commit, device and settings: what does not change within a run.

    Args:
        seed: Random seed of the run.

    Returns:
        Plain data for a record; a value is None where it cannot be had.
    """
    import torch

    return {
        "machine": machine(),
        "python": platform.python_version(),
        "packages": versions(),
        "git": git(),
        "os": f"{platform.system()} {platform.release()}",
        "cpu": cpu(),
        "gpu": nvml.describe(),
        "cuda": torch.version.cuda,
        "torch_threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "tf32": torch.backends.cuda.matmul.allow_tf32,
        "malloc": {name: os.environ.get(name) for name in ALLOCATOR},
        "seed": seed,
    }


def versions() -> dict[str, str]:
    """The packages that decide the values.

    Returns:
        Version by package, for those of PACKAGES that are installed.
    """
    return {name: importlib.metadata.version(name) for name in PACKAGES if _installed(name)}


def _installed(name: str) -> bool:
    try:
        return bool(importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return False


def git() -> dict[str, Any]:
    """The commit of the harness and whether tracked files differ from it, those under results/ and reports/
    aside.

    Returns:
        `commit`, 40 hex digits, and `dirty`; both None without git.
    """
    commit = _git("rev-parse", "HEAD")
    # A run replaces records and reports that are tracked: these change nothing of what it measures.
    changed = ("status", "--porcelain", "--untracked-files=no", "--", ".", ":!results", ":!reports")
    dirty = _git(*changed) if commit else None
    return {"commit": commit, "dirty": None if dirty is None else bool(dirty)}


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def machine() -> str:
    """A slug of the hardware, a directory's name.

    Returns:
        Such as `nvidia-h200` or `amd-epyc-2-cores`: lower-case letters, digits and hyphens.
    """
    gpu = nvml.describe()
    name = gpu["name"] if gpu else f"{cpu()['model']} {cpu()['cores']} cores"
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def cpu() -> dict[str, Any]:
    """The processor and the memory.

    Returns:
        `model`, `cores` that this process may use, and `memory` in bytes.
    """
    return {
        "model": _cpu_model(),
        "cores": cores(),
        "memory": psutil.virtual_memory().total,
    }


def cores() -> int:
    """Cores that this process may use.

    Returns:
        1 or more; the whole machine's where the system has no affinity.
    """
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    text = info.read_text() if info.exists() else ""
    match = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return match.group(1).strip() if match else platform.processor() or platform.machine()


def state() -> dict[str, Any]:
    """The machine right now.

    Returns:
        Load, clock in MHz, governor, throttle count, and `nvml.state` of the GPU; each None where it is not
        reported.
    """
    frequency = psutil.cpu_freq()
    return {
        "load_average": round(psutil.getloadavg()[0], 2),
        "cpu_mhz": round(frequency.current) if frequency else None,
        "governor": _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "cpu_throttles": _read("/sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count"),
        "gpu": nvml.state(),
    }


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return None
