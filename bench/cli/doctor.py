"""What this machine can measure, and what not and why."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psutil
import torch

from bench import methods
from bench.errors import BadInput
from bench.machine import nvml, provenance
from bench.machine.device import device_type, has_bfloat16, unusable_gpu
from bench.measure import flops
from bench.measure.timing import over
from bench.pipeline import models
from bench.spec.external_files import INCEPTION_FILE, LPIPS_FILES
from bench.spec.suite import Suite

DIT_XL_ID = "facebook/DiT-XL-2-256"
GIVE = "bench run --inception-weights"


class Check(NamedTuple):
    """Whether something can be measured here."""

    there: bool
    what: str
    why: str


def checks() -> Iterator[Check]:
    """Run every check, quick ones all: nothing is fetched or run for long.

    Yields:
        Each check's result, in the order of the table.
    """
    yield cuda()
    yield on_cuda()
    yield Check(nvml.handle() is not None, "device memory, clocks (NVML)", _nvml())
    yield energy()
    yield embedded()
    yield dit_xl()
    yield inception()
    yield lpips()
    yield reference()
    yield bf16()
    yield compiler()
    yield Check(True, "model-FLOPs utilisation", _peak())
    yield rss()
    yield quiet()


def cuda() -> Check:
    """Check for a CUDA device that torch can use.

    Returns:
        The device's name, or why there is none.
    """
    if device_type() == "cuda":
        return Check(True, "CUDA", torch.cuda.get_device_name())
    why = (
        unusable_gpu()
        or f"torch finds no device: suites run on the CPU, `auto` is {' and '.join(models.EMBEDDED)}"
    )
    return Check(False, "CUDA", why)


def on_cuda() -> Check:
    """Check what `make bench` does with a CUDA device, and how far that goes here.

    Returns:
        There with a device; what the suite a100 runs.
    """
    runs = Suite.load("a100").configurations
    lacking = [run.name for run in runs if methods.get(run.method).by_data(run.options)]
    batches = ", ".join(str(size) for size in sorted({run.batch_size for run in runs}))
    weights = f"with {DIT_XL_ID}'s weights all; without, time and memory only, and {len(lacking)} skipped"
    return Check(
        device_type() == "cuda",
        "suite a100 (`auto` with a CUDA device)",
        f"{len(runs)} runs at batch {batches}, {' and '.join(dict.fromkeys(r.dtype for r in runs))},"
        f" over {', '.join(dict.fromkeys(over(run) for run in runs))}; {weights}; timed by CUDA events,"
        " memory and energy by NVML; in ten minutes: suite goals-cuda; tests of the device: pytest -m cuda",
    )


def _nvml() -> str:
    if nvml.handle() is not None:
        return str((nvml.describe() or {}).get("driver"))
    return "NVML does not answer" if device_type() == "cuda" else "no CUDA device"


def energy() -> Check:
    """Check for a counter of the joules that the device spends; hosts have none that all may read.

    Returns:
        There where NVML has the counter.
    """
    there = nvml.energy_j() is not None
    why = "" if there else "no energy counter" if device_type() == "cuda" else "no CUDA device"
    return Check(there, "energy (NVML)", why)


def embedded() -> Check:
    """Check the models that ship with the repository.

    Returns:
        There where all files of both can be read.
    """
    try:
        for name in models.EMBEDDED:
            models.check(models.directory(name))
    except (BadInput, ImportError) as error:
        return Check(False, "embedded models", str(error))
    return Check(True, "embedded models", f"{', '.join(models.EMBEDDED)}: bench/embedded")


def dit_xl() -> Check:
    """Check for the weights of DiT-XL in the local cache of the hub.

    Returns:
        There where they are; without them weights are random.
    """
    from huggingface_hub import try_to_load_from_cache

    if isinstance(try_to_load_from_cache(DIT_XL_ID, "model_index.json"), str):
        return Check(True, f"{DIT_XL_ID} weights", "in the hub's cache")
    why = "not in the hub's cache: fetched on use if the hub can be reached, else random weights"
    return Check(False, f"{DIT_XL_ID} weights", f"{why} (time and memory only)")


def inception() -> Check:
    """Check for Inception's weights, without which a Fréchet distance is no FID.

    Returns:
        There where torch's cache has them; they still must be given.
    """
    file = Path(torch.hub.get_dir()) / "checkpoints" / INCEPTION_FILE
    if file.exists():
        return Check(True, "FID (Inception weights)", f"in torch's cache: {GIVE} (its path)")
    return Check(
        False, "FID (Inception weights)", f"not in torch's cache: FD with the embedded extractor, else {GIVE}"
    )


def lpips() -> Check:
    """Check for LPIPS's weights, which are used without being given where torch has them.

    Returns:
        There where torch's cache has both files.
    """
    cache = Path(torch.hub.get_dir()) / "checkpoints"
    lacking = [name for name in LPIPS_FILES if not (cache / name).is_file()]
    why = f"{', '.join(lacking)} not in torch's cache: bench run --lpips-weights (their directory)"
    return Check(not lacking, "LPIPS (VGG16 weights)", why if lacking else "in torch's cache")


def reference() -> Check:
    """State how a distance to other images than the embedded ones is measured; none ships.

    Returns:
        Never there: the user gives ADM's reference batches, by which papers measure FID, or his own images.
    """
    why = "none ships: bench run --reference (a directory, or ADM's .npz); else the embedded model's own"
    return Check(False, "distance to images of your own or ADM's", why)


def bf16() -> Check:
    """Check whether bfloat16 is native, or only emulated.

    Returns:
        There where the GPU, or else the CPU, computes in it.
    """
    native = has_bfloat16()
    emulated = (
        "the device only emulates it" if device_type() == "cuda" else "runs, but this CPU only emulates it"
    )
    return Check(native, "bf16", "native" if native else emulated)


def compiler() -> Check:
    """Check what torch.compile needs: a C++ compiler, and Triton with CUDA.

    Returns:
        There where it has that; the compiler's name, or what is missing.
    """
    if device_type() == "cuda" and importlib.util.find_spec("triton") is None:
        return Check(False, "torch.compile", "Triton is not installed")
    compiler_name = next((name for name in ("g++", "clang++") if shutil.which(name)), None)
    return Check(compiler_name is not None, "torch.compile", compiler_name or "no C++ compiler on the path")


def _peak() -> str:
    peak = flops.data_sheet_peak()
    return f"of {peak / 1e12:.0f} TFLOP/s dense" if peak else "of a matrix product's speed, measured here"


def rss() -> Check:
    """Check whether the kernel counts the peak of resident memory for a part of a run.

    Returns:
        There where the counter can be cleared; else the peak is the process's.
    """
    there = Path("/proc/self/clear_refs").exists()
    why = "counted by the kernel" if there else "of the process only"
    return Check(there, "peak host memory of a generation", why)


def quiet() -> Check:
    """Check whether the machine is idle enough to time anything; takes half a second.

    Returns:
        There below 15 % of the cores busy.
    """
    busy, cores = psutil.cpu_percent(interval=0.5) / 100, provenance.cores()
    why = f"{busy:.0%} of {cores} cores busy"
    return Check(busy < 0.15, "undisturbed timing", why + ("" if busy < 0.15 else ": others work"))
