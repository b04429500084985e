"""The denoising loop with every step within a watch, and the configurations whose waits are watched."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from dqar import DQARConfig

STEPS = 12

# Plans that depend on no data: nothing in them needs the host to know what the device computed.
PLANS: dict[str, dict[str, Any]] = {
    "int8": {"max_age": 2},
    "kv-int4": {"max_age": 2, "reuse_mode": "kv", "quantization_bits": 4},
    "per-head": {"max_age": 2, "quantization_mode": "per_head"},
    "cfg-sharing": {"max_age": 2, "cfg_sharing": True},
    "forecast": {"max_age": 2, "targets": "both", "forecast_order": 2},
    "one-branch": {"max_age": 2, "targets": "both", "forecast_order": 1, "guidance_interval": 3},
    "whole-steps": {"use_layer_scheduling": True, "layer_fraction": 0.0, "model_steps": 5},
    "corrected": {"max_age": 2, "model_steps": 5, "output_correction": 0.5},
}
# Gates that wait for data: one read a step brings all of it.
GATES: dict[str, dict[str, Any]] = {
    "entropy": {"max_age": 2, "entropy_threshold": 2.72, "entropy_interval": 1},
    "adaptive": {"use_layer_scheduling": True, "schedule_type": "adaptive", "warmup_fraction": 0.1},
    "deviation": {"max_age": 2, "model_steps": 5, "deviation_tolerance": 1.5},
}


def config(**changes: Any) -> DQARConfig:
    """Reuse wherever `changes` allow it, from the second step on."""
    eligible = {"use_layer_scheduling": False, "warmup_fraction": 0.0, "num_layers": 6, "num_heads": 4}
    return DQARConfig.preset("maximum", **eligible | changes)


def per_step(pipe: Any, seen: Callable[[], int], steps: int = STEPS) -> list[int]:
    """By how much what is `seen` grows at each step of the loop."""
    counts: list[int] = []

    @contextmanager
    def counting(step: int) -> Iterator[None]:
        before = seen()
        yield
        counts.append(seen() - before)

    denoise(pipe, counting, steps)
    return counts


@torch.no_grad()
def denoise(pipe: Any, watch: Callable[[int], Any], steps: int = STEPS) -> Tensor:
    """The pipeline's loop on the CUDA device, each step within `watch(step)`.

    DiTPipeline itself makes the host wait once a step, for it brings the timestep over from the CPU: here
    all are brought over before.
    """
    pipe.scheduler.set_timesteps(steps)
    timesteps = pipe.scheduler.timesteps.to("cuda")
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(7)).to("cuda")
    labels = torch.tensor([1, 2, 1000, 1000]).to("cuda")
    for step, t in enumerate(pipe.scheduler.timesteps):
        with watch(step):
            both = torch.cat([x, x])
            output = pipe.transformer(both, timestep=timesteps[step].expand(4), class_labels=labels).sample
            conditional, unconditional = output.chunk(2)
            guided = unconditional + 4.0 * (conditional - unconditional)
            x = pipe.scheduler.step(guided, t, x).prev_sample
    return x
