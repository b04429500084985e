"""How long a suite takes: a range, from its budgets, counted FLOPs and the speeds that devices reach."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from bench.machine import provenance
from bench.machine.device import device_type
from bench.spec.run_spec import RunSpec, groups

# FLOPs of an image and step with guidance, decoder included: DiT-XL/2 at 256 x 256 takes 118.6 GMACs a call
# (Peebles and Xie 2023), the embedded model's are counted (`limits.flops_generation` of its records).
FLOPS = {
    "embedded": 1.5e9, "embedded-t2i": 5.3e8, "facebook/DiT-XL-2-256": 5.0e11,
    # Counted on their architectures (`bench.pipeline.architectures`) at the suites' sizes.
    "stabilityai/stable-diffusion-3-medium-diffusers": 1.8e13, "black-forest-labs/FLUX.1-dev": 7.5e13,
    "PixArt-alpha/PixArt-Sigma-XL-2-1024-MS": 1.4e13, "Wan-AI/Wan2.1-T2V-1.3B-Diffusers": 1.5e14,
}  # fmt: skip
# Seconds besides generations: to start a process and load; to count and compare a configuration; the process
# that measures its memory; to compile one arm.
PROCESS_S, CONFIGURATION_S, MEMORY_S, COMPILE_S = 10.0, 6.0, 8.0, 60.0


class Speed(NamedTuple):
    """The FLOP/s that a device reaches in generations, and what kind of device that is."""

    low: float
    high: float
    label: str


GPU = Speed(60e12, 250e12, "an A100 to H200")
CORE = Speed(25e9, 60e9, "a CPU core")  # 48e9 on the machine of the published records


class Estimate(NamedTuple):
    """Seconds, from a fast to a slow device of the kind that the suite is for."""

    low: float
    high: float
    device: str

    @property
    def text(self) -> str:
        """The range in minutes or hours."""
        unit, name = (3600, "h") if self.high > 2 * 3600 else (60, "min")
        low, high = (max(1 if unit == 60 else 0.1, seconds / unit) for seconds in self[:2])
        digits = 0 if unit == 60 else 1
        both = f"{low:.{digits}f}", f"{high:.{digits}f}"
        return f"about {' to '.join(dict.fromkeys(both))} {name}"


def estimate(specs: Sequence[RunSpec]) -> Estimate:
    """Estimate the time of some configurations; it is no limit: a slow machine may take longer.

    Args:
        specs: configurations of one suite, at least one.

    Returns:
        The range in seconds, and the device that it is of.
    """
    speed = _speed(specs)
    low, high = (_seconds(specs, rate) for rate in (speed.high, speed.low))
    return Estimate(low, high, speed.label)


def _speed(specs: Sequence[RunSpec]) -> Speed:
    """Half precision is for GPUs; the rest runs on this machine."""
    if device_type() == "cuda" or any(spec.dtype != "fp32" for spec in specs):
        return GPU
    cores = provenance.cores()
    return Speed(cores * CORE.low, cores * CORE.high, f"{cores} CPU core{'s' * (cores != 1)}, this machine's")


def _seconds(specs: Sequence[RunSpec], rate: float) -> float:
    converged = {spec.batch_size: _converged(spec, rate) for spec in specs}  # made once, then kept
    return sum(_group(group, rate) for group in groups(specs)) + sum(converged.values())


def _group(group: Sequence[RunSpec], rate: float) -> float:
    """Of n configurations a round is n + 1 generations, where pairs of their own would be 2 n."""
    spec, n = group[0], len(group)
    round_s = (n + 1) * _generation(spec, rate)
    timing = spec.timing
    warm_up = timing.warmup * round_s if timing.asked else 0.0
    budget = timing.budget_s * (n + 1) / 2
    timed = max(budget, timing.min_pairs * round_s) if timing.asked else 0.0
    if round_s:
        timed = min(timed, timing.max_pairs * round_s)
    more = max(0.0, spec.quality.n / spec.batch_size - timing.min_pairs) * round_s  # images beyond timed ones
    compiled = (n + 1) * COMPILE_S * spec.compile
    memory = n * spec.memory * (MEMORY_S + 2 * _generation(spec, rate))
    return PROCESS_S + warm_up + timed + more + compiled + memory + n * CONFIGURATION_S


def _generation(spec: RunSpec, rate: float) -> float:
    """Seconds of a generation; 0 for a model of unknown size, of which the budgets alone are counted."""
    return spec.batch_size * spec.num_inference_steps * FLOPS.get(spec.model, 0.0) / rate


def _converged(spec: RunSpec, rate: float) -> float:
    quality = spec.quality
    times = quality.converged_steps / spec.num_inference_steps
    return quality.converged_n / spec.batch_size * times * _generation(spec, rate)
