"""Does it run: reuse that is off or removed changes no bit, and the loop never waits more than it may."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch

import dqar
from bench.methods.dqar import config, shape_of
from bench.studies.gpu_check.rig import NOTHING, PRESET, Rig, skipping
from bench.studies.gpu_check.step import Value

Around = AbstractContextManager[None]
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
    """Run plans where torch makes an error of whatever makes the host wait for the device; count the waits.

    The first step of a generation is outside, as it may read the first timestep. A gate reads its decision
    once a step, so its waits are counted and none is an error.

    Args:
        rig: the loaded model and the scale of the check.

    Returns:
        Whether each plan ran, and the most waits in one later step; None without a device.
    """
    ran = {name: _runs_without_wait(rig, options) for name, options in {"baseline": None, **PLANS}.items()}
    waits = {name: _waits(rig, options) for name, options in {"baseline": None, **PLANS, **GATES}.items()}
    values: dict[str, Value] = {"plans run without a wait": all(ran[name] for name in PLANS)}
    values["gates, most"] = max(max(waits[name][1:]) for name in GATES)
    values |= {f"{name}: runs without a wait": done for name, done in ran.items()}
    values |= {f"{name}: waits of the first step": counts[0] for name, counts in waits.items()}
    values |= {f"{name}: later steps, most": max(counts[1:]) for name, counts in waits.items()}
    return values if rig.on_cuda else dict.fromkeys(values)  # on a CPU nothing can wait


def _runs_without_wait(rig: Rig, options: dict[str, Any] | None) -> bool:
    """Whether the loop runs in torch's debug mode `error` from its second step on."""
    try:
        _denoise(rig, options, lambda step: _mode(rig, "error") if step else nullcontext())
    except RuntimeError as error:
        if SYNC not in str(error):
            raise
        return False
    return True


def _waits(rig: Rig, options: dict[str, Any] | None) -> list[int]:
    """How many waits torch warns of in each step; 0 without a device, where nothing waits."""
    counts: list[int] = []
    _denoise(rig, options, lambda step: _counted(rig, counts))
    return counts


@torch.no_grad()
def _denoise(rig: Rig, options: dict[str, Any] | None, around: Callable[[int], Around]) -> None:
    """Run the loop as the pipeline does, with DQAR under `options`, each step within `around(step)`."""
    if options is not None:
        dqar.enable(rig.pipe, config(shape_of(rig.pipe) | options))
    try:
        pipe, scheduler = rig.pipe, rig.pipe.scheduler
        scheduler.set_timesteps(rig.scale.eager_steps)
        shape = pipe.transformer.config
        timesteps = scheduler.timesteps.to(pipe.device)
        noise = torch.Generator().manual_seed(0)
        latent = torch.randn(1, shape.in_channels, *[shape.sample_size] * 2, generator=noise)
        latent = latent.to(device=pipe.device, dtype=pipe.dtype)
        labels = torch.tensor([1, 1000], device=pipe.device)
        for step, t in enumerate(scheduler.timesteps):
            with around(step):
                output = pipe.transformer(
                    torch.cat([latent, latent]), timestep=timesteps[step].expand(2), class_labels=labels
                ).sample[:, : shape.in_channels]
                conditional, unconditional = output.chunk(2)
                guided = unconditional + 4.0 * (conditional - unconditional)
                latent = scheduler.step(guided, t, latent).prev_sample
    finally:
        dqar.disable(rig.pipe)


@contextmanager
def _mode(rig: Rig, mode: str) -> Iterator[None]:
    """torch's debug mode of waits in the body; without a device there is none."""
    if rig.on_cuda:
        torch.cuda.set_sync_debug_mode(mode)
    try:
        yield
    finally:
        if rig.on_cuda:
            torch.cuda.set_sync_debug_mode("default")


@contextmanager
def _counted(rig: Rig, counts: list[int]) -> Iterator[None]:
    """Append how many waits torch warns of in the body."""
    with warnings.catch_warnings(record=True) as caught, _mode(rig, "warn"):
        warnings.simplefilter("always")
        yield
    counts.append(sum(SYNC in str(warning.message) for warning in caught))
