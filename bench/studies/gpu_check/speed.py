"""Seconds against FLOPs: compiled, in CUDA graphs, what the gate costs, what competitors reach, energy."""

from __future__ import annotations

from functools import partial
from typing import Any

from bench.measure import memory
from bench.studies.gpu_check.rig import EVERY_SECOND, NOTHING, Rig, scaled, skipping
from bench.studies.gpu_check.step import Value

# Each as its authors run it on a DiT, at about the share of steps that DQAR runs.
COMPETITORS: dict[str, tuple[str, dict[str, Any]]] = {
    "TaylorSeer, interval 4": ("taylorseer", {"interval": 4}),
    "FORA, interval 3": ("fora", {"interval": 3}),
    "First Block, 0.1": ("first_block", {"threshold": 0.1}),
    "DBCache, 0.08": ("dbcache", {"threshold": 0.08}),
}


def _against_flops(rig: Rig, **fields: Any) -> dict[str, Value]:
    """Skipped steps over the baseline of the same kind, and the share of what FLOPs allow."""
    options = skipping(rig.scale.model_steps)
    spec = rig.spec("dqar", options, num_inference_steps=rig.scale.steps, **fields)
    [(session, timed)] = rig.timed(spec)
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
    """torch.compile over the whole transformer, a full batch."""
    return _against_flops(rig, compile=rig.on_cuda)


def graphs(rig: Rig) -> dict[str, Value]:
    """CUDA graphs over CUDA graphs, one image."""
    return _against_flops(rig, compile=rig.on_cuda, cuda_graphs=rig.on_cuda, batch_size=1)


def gate(rig: Rig) -> dict[str, Value]:
    """The gate and its entropies on, nothing reused: the baseline's speed is 1."""
    [(_, timed)] = rig.timed(rig.spec("dqar", NOTHING))
    return {"speed": timed.speedup, "baseline, seconds": timed.baseline_s, "pairs": len(timed.pairs)}


def competitors(rig: Rig) -> dict[str, Value]:
    """Eager seconds of DQAR, other caches and fewer steps, all in the rounds of one baseline."""
    steps = rig.scale.eager_steps
    run = max(2, round(steps * rig.scale.model_steps / rig.scale.steps))
    chosen = {"DQAR": ("dqar", skipping(run)), "fewer steps": ("fewer_steps", {"steps": run}), **COMPETITORS}
    specs = [rig.spec(method, options, name=f"c{i}") for i, (method, options) in enumerate(chosen.values())]
    timed = rig.timed(*specs)
    return {name: found.speedup for name, (_, found) in zip(chosen, timed, strict=True)}


def energy(rig: Rig) -> dict[str, Value]:
    """Joules an image, baseline and DQAR, by the device's counter; null where it has none."""
    run = max(2, round(rig.scale.eager_steps * rig.scale.model_steps / rig.scale.steps))
    session = rig.session(rig.spec("dqar", skipping(run)))
    images = range(rig.scale.batch)
    arms = (session.baseline, session.candidate)
    joules = [memory.energy_j(partial(arm, images)) for arm in arms]
    found: dict[str, Value] = {"baseline, J an image": None, "DQAR, J an image": None}
    for name, total in zip(found, joules, strict=True):
        found[name] = total / len(images) if total is not None else None
    return found


def int8(rig: Rig) -> dict[str, Value]:
    """The int8 cache against the 16-bit one: bytes held, peak memory by torch and NVML, and time."""
    eight, sixteen = (rig.spec("dqar", EVERY_SECOND | {"quantization_bits": bits}) for bits in (8, 16))
    (_, fast), (_, exact) = rig.timed(
        eight.model_copy(update={"name": "int8"}), sixteen.model_copy(update={"name": "bf16"})
    )
    held = {bits: memory.measure(spec) for bits, spec in ((8, eight), (16, sixteen))}
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
