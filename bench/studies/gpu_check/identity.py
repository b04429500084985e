"""Does it run: reuse that is off or removed changes no bit, and the loop never waits more than it may."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

import dqar
from bench.methods.dqar import config, shape_of
from bench.studies.gpu_check.rig import NOTHING, PRESET, Rig, skipping
from bench.studies.gpu_check.step import Value

SYNC = "synchronizing CUDA operation"  # in torch's warning of one
PLANS: dict[str, dict[str, Any]] = {
    "skipped steps": skipping(4),
    "int8 attention": PRESET | {"max_age": 2},
    "forecast": PRESET | {"max_age": 2, "targets": "both", "forecast_order": 1},
    "guidance": PRESET | {"max_age": 2, "guidance_interval": 2},
}
GATES: dict[str, dict[str, Any]] = {
    "entropy gate": PRESET | {"max_age": 2, "entropy_threshold": 2.72, "entropy_interval": 1},
}


def identical(rig: Rig) -> dict[str, Value]:
    """Compare the latents of the untouched pipeline with those of a repetition, of DQAR with nothing
    reusable, and after `disable`.

    Args:
        rig: the loaded model and the scale of the check.

    Returns:
        Whether each is bit-identical, and the seconds of a generation.
    """
    session = rig.session(rig.spec("dqar", NOTHING, batch_size=2))
    images = range(2)
    untouched, again = session.baseline(images), session.baseline(images)
    off = session.candidate(images)
    removed = session.baseline(images)
    return {
        "seconds of a generation": again.seconds,
        "baseline repeats itself": torch.equal(untouched.latents, again.latents),
        "off is identical": torch.equal(untouched.latents, off.latents),
        "removed is identical": torch.equal(untouched.latents, removed.latents),
        "finite": bool(torch.isfinite(untouched.latents).all()),
    }


def syncs(rig: Rig) -> dict[str, Value]:
    """Count how often the host waits for the device in one step of the loop.

    Args:
        rig: the loaded model and the scale of the check.

    Returns:
        Waits by configuration: 0 for plans, at most 1 for gates, is what is wanted.
    """
    values: dict[str, Value] = {}
    for name, options in {"baseline": None, **PLANS, **GATES}.items():
        if options is not None:
            dqar.enable(rig.pipe, config(shape_of(rig.pipe) | options))
        try:
            counts = _syncs_per_step(rig)
        finally:
            dqar.disable(rig.pipe)
        # The first step of a generation may read the first timestep.
        values[f"{name}: first step"], values[f"{name}: later steps, most"] = counts[0], max(counts[1:])
    values["plans, most"] = max(int(str(values[f"{name}: later steps, most"])) for name in PLANS)
    values["gates, most"] = max(int(str(values[f"{name}: later steps, most"])) for name in GATES)
    return values


@torch.no_grad()
def _syncs_per_step(rig: Rig) -> list[int]:
    pipe, scheduler = rig.pipe, rig.pipe.scheduler
    scheduler.set_timesteps(rig.scale.eager_steps)
    shape = pipe.transformer.config
    where = {"device": pipe.device, "dtype": pipe.dtype}
    timesteps = scheduler.timesteps.to(pipe.device)
    noise = torch.Generator().manual_seed(0)
    latent = torch.randn(1, shape.in_channels, *[shape.sample_size] * 2, generator=noise).to(**where)
    labels = torch.tensor([1, 1000], device=pipe.device)
    counts: list[int] = []
    for step, t in enumerate(scheduler.timesteps):
        with _counted(rig.on_cuda, counts):
            output = pipe.transformer(
                torch.cat([latent, latent]), timestep=timesteps[step].expand(2), class_labels=labels
            ).sample[:, : shape.in_channels]
            conditional, unconditional = output.chunk(2)
            guided = unconditional + 4.0 * (conditional - unconditional)
            latent = scheduler.step(guided, t, latent).prev_sample
    return counts


@contextmanager
def _counted(on_cuda: bool, counts: list[int]) -> Iterator[None]:
    """Append how many waits torch warns of in the body; 0 without a device, where nothing waits."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if on_cuda:
            torch.cuda.set_sync_debug_mode("warn")
        try:
            yield
        finally:
            if on_cuda:
                torch.cuda.set_sync_debug_mode("default")
    counts.append(sum(SYNC in str(warning.message) for warning in caught))
