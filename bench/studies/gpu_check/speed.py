"""Seconds against FLOPs: compiled, in CUDA graphs, what the gate costs, what competitors reach, energy."""

from __future__ import annotations

from functools import partial
from importlib.util import find_spec
from typing import Any

from bench.measure import memory
from bench.methods.compilation import MAX_AUTOTUNE, REGIONAL
from bench.studies.gpu_check.rig import EVERY_SECOND, NOTHING, Rig, scaled, skipping
from bench.studies.gpu_check.step import Value

HELD_STEPS = 6  # of the generations whose memory is measured
# Each as its authors run it on a DiT, at about the share of steps that DQAR runs.
COMPETITORS: dict[str, tuple[str, dict[str, Any]]] = {
    "TaylorSeer, interval 4": ("taylorseer", {"interval": 4}),
    "FORA, interval 3": ("fora", {"interval": 3}),
    "First Block, 0.1": ("first_block", {"threshold": 0.1}),
    "DBCache, 0.08": ("dbcache", {"threshold": 0.08}),
}


def _against_flops(rig: Rig, kind: str | None = None, **fields: Any) -> dict[str, Value]:
    """Skipped steps over the baseline that is compiled in the same way, and the share of what FLOPs allow."""
    options = skipping(rig.scale.model_steps)
    spec = rig.spec("dqar", options, num_inference_steps=rig.scale.steps, **fields)
    [(session, timed)] = rig.timed(spec, kind=kind)
    limits = rig.limits(session, timed)
    return {
        "speedup": timed.speedup,
        "speedup that FLOPs allow": limits.speedup_limit,
        "share of that": scaled(timed.speedup, 1 / limits.speedup_limit),
        "MFU of the baseline": limits.mfu,
        "baseline, seconds": timed.baseline_s,
        "DQAR, seconds": timed.candidate_s,
        "pairs": len(timed.pairs),
    }


def compiled(rig: Rig) -> dict[str, Value]:
    """Time skipped steps under torch.compile over the whole transformer, a full batch.

    Args:
        rig: the loaded model and the scale of the check.

    Returns:
        Speedup, limit and share of it.
    """
    return _against_flops(rig, compile=rig.on_cuda)


def autotuned(rig: Rig) -> dict[str, Value]:
    """Time skipped steps over the baseline, both under `mode="max-autotune"`, a full batch.

    Args:
        rig: the loaded model and the scale of the check.

    Returns:
        Speedup, limit and share of it.
    """
    return _against_flops(rig, MAX_AUTOTUNE, compile=True)


def regional(rig: Rig) -> dict[str, Value]:
    """Time skipped steps over the baseline, both with each repeated block compiled once, a full batch.

    Args:
        rig: the loaded model and the scale of the check.

    Returns:
        Speedup, limit and share of it.
    """
    return _against_flops(rig, REGIONAL, compile=True)


def graphs(rig: Rig) -> dict[str, Value]:
    """Time skipped steps under CUDA graphs against the baseline under CUDA graphs, one image.

    Args:
        rig: the loaded model and the scale of the check.

    Returns:
        Speedup, limit and share of it.
    """
    return _against_flops(rig, compile=rig.on_cuda, cuda_graphs=rig.on_cuda, batch_size=1)


def gate(rig: Rig) -> dict[str, Value]:
    """Time the gate and its entropies with nothing reused.

    Args:
        rig: the loaded model and the scale of the check.

    Returns:
        The speed over the baseline's (1: the gate costs nothing), the baseline's seconds, and how many pairs.
    """
    [(_, timed)] = rig.timed(rig.spec("dqar", NOTHING))
    return {"speed": timed.speedup, "baseline, seconds": timed.baseline_s, "pairs": len(timed.pairs)}


def competitors(rig: Rig) -> dict[str, Value]:
    """Time DQAR, other caches and fewer steps, eager, all in the rounds of one baseline.

    Args:
        rig: the loaded model and the scale of the check.

    Returns:
        Speedups by method; None where its package is not installed.
    """
    steps = rig.scale.eager_steps
    run = max(2, round(steps * rig.scale.model_steps / rig.scale.steps))
    chosen = {"DQAR": ("dqar", skipping(run)), "fewer steps": ("fewer_steps", {"steps": run}), **COMPETITORS}
    missing: dict[str, Value] = {}
    if find_spec("cache_dit") is None:
        del chosen["DBCache, 0.08"]
        missing["DBCache, 0.08"] = None
    specs = [rig.spec(method, options, name=f"c{i}") for i, (method, options) in enumerate(chosen.values())]
    timed = rig.timed(*specs)
    return {name: timing.speedup for name, (_, timing) in zip(chosen, timed, strict=True)} | missing


def energy(rig: Rig) -> dict[str, Value]:
    """Measure the energy of baseline and DQAR by the device's counter.

    Args:
        rig: the loaded model and the scale of the check.

    Returns:
        Joules an image; None where the device has no counter.
    """
    run = max(2, round(rig.scale.eager_steps * rig.scale.model_steps / rig.scale.steps))
    session = rig.session(rig.spec("dqar", skipping(run)))
    images = range(rig.scale.batch)
    arms = (session.baseline, session.candidate)
    joules = [memory.energy_j(partial(arm, images)) for arm in arms]
    values: dict[str, Value] = {"baseline, J an image": None, "DQAR, J an image": None}
    for name, total in zip(values, joules, strict=True):
        values[name] = total / len(images) if total is not None else None
    return values


def int8(rig: Rig) -> dict[str, Value]:
    """Compare the int8 cache with the 16-bit one.

    Args:
        rig: the loaded model and the scale of the check.

    Returns:
        Bytes held, peak memory by torch and NVML, and speedups.
    """
    eight, sixteen = (rig.spec("dqar", EVERY_SECOND | {"quantization_bits": bits}) for bits in (8, 16))
    (_, fast), (_, exact) = rig.timed(
        eight.model_copy(update={"name": "int8"}), sixteen.model_copy(update={"name": "bf16"})
    )
    # Bytes are the same at any number of steps; starting the process is most of what it takes.
    short = {"num_inference_steps": HELD_STEPS}
    held = {bits: memory.measure(spec.model_copy(update=short)) for bits, spec in ((8, eight), (16, sixteen))}
    return {
        "speedup, 8 bits": fast.speedup,
        "speedup, 16 bits": exact.speedup,
        "cache, 8 over 16 bits": held[8].cache_bytes / held[16].cache_bytes,
        "cache at 8 bits, MiB": held[8].cache_bytes / 2**20,
        **{f"torch peak at {bits} bits, GiB": _gib(m.torch_allocated_peak) for bits, m in held.items()},
        **{f"NVML process peak at {bits} bits, GiB": _gib(m.nvml_process_peak) for bits, m in held.items()},
    }


def _gib(count: int | None) -> float | None:
    return None if count is None else count / 2**30
