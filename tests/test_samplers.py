"""The wrapper and the samplers: the original specification's Quick Start runs, and off is off to the bit."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from conftest import generate
from diffusers import DiTPipeline, DPMSolverMultistepScheduler

import dqar
from dqar.integration import DQARConfig, DQARDDIMSampler, DQARDiTWrapper, DQARDPMSolverSampler, SamplerConfig

SAMPLERS = {"ddim": DQARDDIMSampler, "dpm": DQARDPMSolverSampler}
REUSES = DQARConfig(entropy_threshold=99.0, snr_low=0.0, snr_high=1e9, warmup_steps=2)


def sample(sampler: Any, **options: Any) -> Any:
    return sampler.sample(2, [1, 2], generator=torch.Generator().manual_seed(7), **options)


def config(**options: Any) -> SamplerConfig:
    return SamplerConfig(num_inference_steps=10, **options)


@pytest.mark.parametrize("eta", [0.0, 0.7])
@pytest.mark.parametrize("guidance", [4.0, 1.0])
def test_ddim_off_is_bit_identical(pipe: DiTPipeline, eta: float, guidance: float) -> None:
    """With reuse off, wrapped or plain, DDIM's latents equal the stock pipeline's, with noise and without."""
    options = config(enable_dqar=False, eta=eta, guidance_scale=guidance)
    wrapped = DQARDiTWrapper(pipe.transformer, REUSES)
    off = sample(DQARDDIMSampler(wrapped, pipe.scheduler, options))
    wrapped.remove()
    plain = sample(DQARDDIMSampler(pipe.transformer, pipe.scheduler, options))
    generator = torch.Generator().manual_seed(7)
    seen: list[torch.Tensor] = []
    pipe.vae.post_quant_conv.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    pipe.scheduler.step = partial(pipe.scheduler.step, eta=eta, generator=generator)
    pipe([1, 2], guidance_scale=guidance, generator=generator, num_inference_steps=10, output_type="pt")
    stock = seen[0] * pipe.vae.config.scaling_factor  # undoes the division up to rounding
    torch.testing.assert_close(plain, stock)
    assert torch.equal(1 / pipe.vae.config.scaling_factor * plain, seen[0])
    assert torch.equal(plain, off)


def test_dpm_solver_off_is_bit_identical(pipe: DiTPipeline) -> None:
    """With reuse off, DPM-Solver++'s latents equal the stock pipeline's, from a DDIM scheduler's config."""
    sampler = DQARDPMSolverSampler(pipe.transformer, pipe.scheduler, config(enable_dqar=False))
    latents = sample(sampler)
    pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config)
    assert torch.equal(1 / pipe.vae.config.scaling_factor * latents, generate(pipe))


@pytest.mark.parametrize("kind", SAMPLERS)
def test_reuse_is_that_of_enable(pipe: DiTPipeline, kind: str) -> None:
    """A sampler over the wrapper gives the latents and the reuse map of `dqar.enable` on the pipeline."""
    wrapped = DQARDiTWrapper(pipe.transformer, REUSES)
    latents = sample(SAMPLERS[kind](wrapped, pipe.scheduler, config()))
    table = wrapped.summary().map
    wrapped.remove()
    if kind == "dpm":
        pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config)
    dqar.enable(pipe, REUSES)
    assert torch.equal(1 / pipe.vae.config.scaling_factor * latents, generate(pipe))
    assert table.any() and (table == dqar.summary(pipe).map).all()


def test_trajectory_and_start(pipe: DiTPipeline) -> None:
    """The trajectory goes from the given noise to the final latents, one entry a step."""
    noise = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(7))
    sampler = DQARDDIMSampler(
        pipe.transformer, pipe.scheduler, config(enable_dqar=False, return_trajectory=True)
    )
    final, trajectory = sample(sampler, latents=noise)
    drawn, _ = sample(sampler)
    assert trajectory.shape == (11, 2, 4, 8, 8) and torch.equal(final, drawn)
    assert torch.equal(trajectory[0], noise) and torch.equal(trajectory[-1], final)


def test_wrapper_delegates_and_is_removed(pipe: DiTPipeline) -> None:
    """The wrapper shows the transformer's attributes, and `remove` restores its processors."""
    before = [block.attn1.processor for block in pipe.transformer.transformer_blocks]
    wrapped = DQARDiTWrapper(pipe.transformer, REUSES)
    assert wrapped.config.in_channels == 4 and wrapped.dtype == torch.float32
    wrapped.remove()
    assert [block.attn1.processor for block in pipe.transformer.transformer_blocks] == before
    with pytest.raises(AttributeError):
        _ = wrapped.no_such_attribute


def test_wrapper_without_scheduler(pipe: DiTPipeline) -> None:
    """Called before a scheduler is known, the wrapper says so in one line."""
    wrapped = DQARDiTWrapper(pipe.transformer, REUSES)
    with torch.no_grad(), pytest.raises(RuntimeError, match=r"has no scheduler"):
        wrapped(torch.zeros(2, 4, 8, 8), timestep=torch.tensor([9, 9]), class_labels=torch.tensor([1, 2]))


@pytest.mark.parametrize(
    "field, value",
    [
        ("num_inference_steps", 0),
        ("guidance_scale", -1.0),
        ("eta", 1.5),
        ("enable_dqar", 1),
        ("return_trajectory", "yes"),
    ],
)
def test_bad_fields(field: str, value: Any) -> None:
    """Each field out of range is refused with its name and value."""
    with pytest.raises(ValueError, match=f"{field} = {value!r} is not allowed; allowed: "):
        SamplerConfig(**{field: value})


def test_bad_calls(pipe: DiTPipeline) -> None:
    """Reuse without a wrapper, eta with DPM-Solver, and wrong labels or latents are refused."""
    plain = (pipe.transformer, pipe.scheduler)
    with pytest.raises(ValueError, match=r"enable_dqar"):
        DQARDDIMSampler(*plain, config())
    with pytest.raises(ValueError, match=r"eta = 0.5"):
        DQARDPMSolverSampler(*plain, config(enable_dqar=False, eta=0.5))
    sampler = DQARDDIMSampler(*plain, config(enable_dqar=False))
    with pytest.raises(ValueError, match=r"class_labels has 1 entries"):
        sampler.sample(2, [1])
    with pytest.raises(ValueError, match=r"latents has shape"):
        sampler.sample(2, [1, 2], latents=torch.zeros(1, 4, 8, 8))
