"""Reuse off, or forbidden, is bit-identical; nothing leaks from one call to the next."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest
import torch
from conftest import build_tiny_pipeline, generate
from diffusers import DiTPipeline, DPMSolverMultistepScheduler, EulerDiscreteScheduler, HeunDiscreteScheduler

import dqar
from dqar import DQARConfig

NOTHING_REUSABLE: dict[str, dict[str, Any]] = {
    "entropy": {"entropy_threshold": 0.0},
    "entropy-traced": {"trace_entropy": True, "layer_fraction": 0.0},
    "warmup": {"warmup_steps": 1000},
    "snr": {"snr_low": 1e9, "snr_high": 1e9},
    "kv": {"reuse_mode": "kv", "entropy_threshold": 0.0},
}


@pytest.mark.parametrize("change", NOTHING_REUSABLE.values(), ids=NOTHING_REUSABLE)
def test_nothing_reusable_is_bit_identical(pipe: DiTPipeline, change: dict[str, Any]) -> None:
    """A configuration that forbids every reuse leaves the latents bit-identical, measured or not."""
    untouched = generate(pipe)
    dqar.enable(pipe, DQARConfig.preset("maximum", **change))
    assert torch.equal(generate(pipe), untouched)
    assert dqar.summary(pipe).ratio == 0


def test_disable_restores_the_pipeline(pipe: DiTPipeline) -> None:
    """After `disable` the latents are bit-identical again and no DQAR object is left on the model."""
    untouched = generate(pipe)
    processors = [block.attn1.processor for block in pipe.transformer.transformer_blocks]
    dqar.enable(pipe, DQARConfig.preset("maximum"))
    assert not torch.equal(generate(pipe), untouched)
    dqar.disable(pipe)
    assert torch.equal(generate(pipe), untouched)
    assert [block.attn1.processor for block in pipe.transformer.transformer_blocks] == processors
    assert not pipe.transformer._forward_pre_hooks and not pipe.transformer._forward_hooks


def test_enable_twice_replaces(pipe: DiTPipeline) -> None:
    """A second `enable` replaces the first configuration, and one `disable` removes both."""
    untouched = generate(pipe)
    dqar.enable(pipe, DQARConfig.preset("maximum"))
    dqar.enable(pipe, DQARConfig.preset("maximum", layer_fraction=0.0))
    assert torch.equal(generate(pipe), untouched)
    dqar.disable(pipe)
    assert torch.equal(generate(pipe), untouched)


@pytest.mark.parametrize("mode", ["output", "kv"])
def test_no_state_leaks_between_calls(pipe: DiTPipeline, mode: str) -> None:
    """Calls with another batch, step count, guidance or scheduler in between change nothing."""
    config = DQARConfig.preset("maximum", reuse_mode=mode)
    dqar.enable(pipe, config)
    first = generate(pipe)
    assert torch.equal(generate(pipe), first)
    generate(pipe, labels=(3, 4, 5))
    generate(pipe, steps=7)
    generate(pipe, guidance_scale=1.0)
    ddim, pipe.scheduler = (
        pipe.scheduler,
        DPMSolverMultistepScheduler.from_config(pipe.scheduler.config),
    )
    other = generate(pipe)
    pipe.scheduler = ddim
    assert torch.equal(generate(pipe), first)

    fresh = build_tiny_pipeline()
    dqar.enable(fresh, config)
    fresh.scheduler = DPMSolverMultistepScheduler.from_config(fresh.scheduler.config)
    assert torch.equal(generate(fresh), other)


def test_interrupted_call_leaves_nothing_behind(pipe: DiTPipeline) -> None:
    """A call that fails half-way does not change the next one."""
    dqar.enable(pipe, DQARConfig.preset("maximum"))
    whole = generate(pipe)
    calls = 0

    def fail(*_: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 7:
            raise KeyboardInterrupt

    hook = pipe.transformer.register_forward_hook(fail)
    with pytest.raises(KeyboardInterrupt):
        generate(pipe)
    hook.remove()
    assert torch.equal(generate(pipe), whole)


@pytest.mark.parametrize("kind", [EulerDiscreteScheduler, HeunDiscreteScheduler])
def test_any_scheduler(pipe: DiTPipeline, kind: Any) -> None:
    """Schedulers with fractional timesteps or two calls a step run, reuse, and follow their plan."""
    pipe.scheduler = kind.from_config(pipe.scheduler.config)
    config = DQARConfig.preset("maximum")
    dqar.enable(pipe, config)
    latents = generate(pipe)
    assert latents.isfinite().all()
    assert np.array_equal(dqar.summary(pipe).map, dqar.plan(config, pipe.scheduler, 10, 6))


def test_trajectory_that_starts_late_keeps_its_place(pipe: DiTPipeline) -> None:
    """A loop that begins in the middle of the schedule gets the decisions of those steps."""
    config = DQARConfig.preset("maximum", quantization_bits=16)
    dqar.enable(pipe, config)
    pipe.scheduler.set_timesteps(10)
    latent, labels = torch.randn(2, 4, 8, 8), torch.tensor([1, 2])
    with torch.no_grad():
        for t in pipe.scheduler.timesteps[4:]:
            pipe.transformer(latent, timestep=t.expand(2), class_labels=labels)
    planned = dqar.plan(config, pipe.scheduler, 10, 6)
    planned[4] = False  # there is no entry yet at the first step that runs
    planned[5:] &= np.cumsum(~planned[4:-1], axis=0).astype(bool)
    assert np.array_equal(dqar.summary(pipe).map, planned[4:])


def test_linear_and_linear_reverse_give_different_images(pipe: DiTPipeline) -> None:
    """The schedule type reaches the decision: the two published schedules differ in their output."""
    latents = []
    for kind in ("linear", "linear_reverse"):
        dqar.enable(pipe, DQARConfig.preset("recommended", schedule_type=kind))
        latents.append(generate(pipe))
    assert not torch.equal(*latents)


def test_nothing_keeps_a_generations_latents_alive(pipe: DiTPipeline) -> None:
    """DQAR remembers its caller's frame within a generation only: its last step lets go of them."""
    seen: list[weakref.ref[torch.Tensor]] = []
    dqar.enable(pipe, DQARConfig.preset("maximum"))
    pipe.transformer.register_forward_pre_hook(lambda module, args: seen.append(weakref.ref(args[0])))
    generate(pipe)
    gc.collect()
    assert len(seen) == 10 and not any(latents() is not None for latents in seen)
