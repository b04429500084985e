"""Where models run."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def device_type() -> str:
    """Where models run: the one place that decides it.

    Returns:
        `cuda` where torch can use a GPU, else `cpu`.
    """
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def has_bfloat16() -> bool:
    """Whether the device computes in bfloat16 itself, and does not emulate it by something slower.

    Returns:
        True where the GPU, or else the CPU, has instructions for it.
    """
    import torch

    if device_type() == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(_cpu_flags() & {"avx512_bf16", "amx_bf16"})


def sample_dtype() -> torch.dtype:
    """Choose what samples are computed in.

    Returns:
        bfloat16 where the CPU has instructions for it; emulated, it is several times slower than float32.
    """
    import torch

    return torch.bfloat16 if has_bfloat16() else torch.float32


def unusable_gpu(devices: Path = Path("/dev")) -> str | None:
    """Why torch cannot use the NVIDIA GPU of this machine.

    A GPU that the user hid with CUDA_VISIBLE_DEVICES does not count.

    Args:
        devices: where the system lists its devices.

    Returns:
        A clause that names GPU, torch and driver; None where there is no GPU, or torch can use it.
    """
    import torch

    if os.environ.get("CUDA_VISIBLE_DEVICES", "0") in ("", "-1") or device_type() == "cuda":
        return None
    names = _nvml_names()
    if not names and not any(devices.glob("nvidia[0-9]*")):
        return None
    gpu = f"this machine has a GPU ({', '.join(names) or 'its device file is there'})"
    if torch.version.cuda is None:
        return f"{gpu}, but this torch ({torch.__version__}) is a build without CUDA"
    return (
        f"{gpu}, but torch cannot use it: its build needs a driver for CUDA {torch.version.cuda},"
        f" the driver is {_driver() or 'not loaded'}"
    )


def _cpu_flags() -> set[str]:
    """The instruction sets of the CPU, as /proc/cpuinfo names them; empty where it does not."""
    info = Path("/proc/cpuinfo")
    text = info.read_text() if info.exists() else ""
    match = re.search(r"^flags\s*:\s*(.+)$", text, re.MULTILINE)
    return set(match.group(1).split()) if match else set()


def _nvml_names() -> list[str]:
    """The GPUs that the driver reports."""
    import pynvml

    try:
        pynvml.nvmlInit()
        handles = map(pynvml.nvmlDeviceGetHandleByIndex, range(pynvml.nvmlDeviceGetCount()))
        return [str(pynvml.nvmlDeviceGetName(handle)) for handle in handles]
    except pynvml.NVMLError:
        return []


def _driver() -> str | None:
    """The driver's version."""
    import pynvml

    try:
        return str(pynvml.nvmlSystemGetDriverVersion())
    except pynvml.NVMLError:
        return None
