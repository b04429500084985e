"""Without a device: where the host would wait for one, on a CUDA device that is not there."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from conftest import build_tiny_pipeline
from denoising import GATES, PLANS, config, per_step
from diffusers import DiTPipeline
from fake_cuda import FakeCuda, fake_cuda, to_device
from test_families import FAMILIES
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorDeviceMismatchError
from torch.utils._pytree import tree_map_only

import dqar
from bench.embedded import dit
from dqar.integration.dit_wrapper import DQARDiTWrapper
from dqar.integration.samplers import DQARDDIMSampler, DQARDPMSolverSampler, SamplerConfig

pytestmark = [
    pytest.mark.skipif(not torch.backends.cuda.is_built(), reason="a torch built without CUDA"),
    pytest.mark.filterwarnings("ignore:warmup_fraction = 0.1 has no effect"),  # on so few steps
]
STEPS = 8  # in which every plan computes, reuses and computes again; fake operations take their time


@pytest.fixture
def pipe() -> DiTPipeline:
    """The tiny pipeline with two layers: fake operations take their time, and more layers show no more."""
    return build_tiny_pipeline(layers=2)


@pytest.fixture
def device() -> Iterator[FakeCuda]:
    with fake_cuda() as device:
        yield device


def waits_of(pipe: DiTPipeline, device: FakeCuda) -> list[int]:
    """How often the host waits at each step of the loop."""
    to_device(pipe.transformer)
    return per_step(pipe, lambda: len(device.waits), STEPS)


def test_the_watch_sees(device: FakeCuda) -> None:
    """Copies either way and reads are noted, a copy that need not wait is not, and the rest is refused."""
    there, here = torch.ones(2, device="cuda"), torch.ones(2)
    assert there.device.type == "cuda" and not device.waits
    here.to("cuda", non_blocking=True)
    there * torch.tensor(2.0)
    assert not device.waits
    here.to("cuda")
    there.cpu()
    there.to("cpu", non_blocking=True)
    there.tolist()
    assert len(device.waits) == 4
    with pytest.raises(DataDependentOutputException):
        there[0].item()
    with pytest.raises(FakeTensorDeviceMismatchError):
        there + here


def test_the_baselines_loop_never_waits(pipe: DiTPipeline, device: FakeCuda) -> None:
    """Without DQAR the loop makes no wait: what follows is DQAR's own."""
    assert waits_of(pipe, device) == [0] * STEPS


class Watched(NamedTuple):
    """A generation under a configuration: waits at each step, what was seen before and after the blocks of
    each, and the share of layers that were reused."""

    waits: list[int]
    around_blocks: list[int]
    ratio: float


@functools.cache
def watched(name: str) -> Watched:
    """The generation of PLANS or GATES, once for all that is asked of it."""
    with fake_cuda() as device:
        pipe, around = build_tiny_pipeline(layers=2), []
        dqar.enable(pipe, config(**(PLANS | GATES)[name]))

        def seen(*_: Any) -> None:
            around.append(device.on_host + len(device.waits))

        blocks = pipe.transformer.transformer_blocks
        blocks[0].register_forward_pre_hook(seen)
        blocks[-1].register_forward_hook(seen)
        return Watched(waits_of(pipe, device), around, dqar.summary(pipe).ratio)


@pytest.mark.everyday("int8", "forecast", "whole-steps")
@pytest.mark.parametrize("name", PLANS)
def test_a_plan_never_makes_the_host_wait(name: str) -> None:
    """The host waits once as a generation is recognised, and then never; nothing is on the wrong device."""
    assert watched(name).waits == [1] + [0] * (STEPS - 1)
    assert watched(name).ratio > 0.2


@pytest.mark.everyday("entropy")
@pytest.mark.parametrize("name", GATES)
def test_a_gate_waits_once_a_step(name: str) -> None:
    """Where data decide, each step past the first makes the host wait once at most, and some step does."""
    first, *rest = watched(name).waits
    assert first == 1
    assert max(rest) == 1


@pytest.mark.everyday("int8", "forecast", "whole-steps", "entropy")
@pytest.mark.parametrize("name", PLANS | GATES)
def test_the_layers_stay_on_the_device(name: str) -> None:
    """Between the first block and the last nothing runs on the CPU and nothing waits: one such operation, and
    torch makes no CUDA graph of them."""
    counts = watched(name).around_blocks
    assert counts[-1] > counts[0]  # between steps the scheduler runs there
    assert counts[::2] == counts[1::2]


@pytest.mark.everyday("DQARDDIMSampler")
@pytest.mark.parametrize("sampler", [DQARDDIMSampler, DQARDPMSolverSampler])
def test_samplers_wait_before_their_loop(pipe: DiTPipeline, device: FakeCuda, sampler: Any) -> None:
    """How often the host waits in a sampler does not depend on the number of its steps."""
    to_device(pipe.transformer)
    model = DQARDiTWrapper(pipe.transformer, config(max_age=2))
    counts = []
    for steps in (6, STEPS):
        before = len(device.waits)
        chosen = SamplerConfig(num_inference_steps=steps)
        labels = torch.ones(2, dtype=torch.long, device="cuda")
        latents = sampler(model, pipe.scheduler, chosen).sample(2, labels, torch.Generator().manual_seed(7))
        assert latents.device.type == "cuda"
        counts.append(len(device.waits) - before)
    assert counts[0] == counts[1]


@pytest.mark.everyday("sd3")
@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES.keys())
@torch.no_grad()
def test_no_family_is_made_to_wait(device: FakeCuda, family: Callable[[], Any]) -> None:
    """Whatever a model and its solver wait for by themselves, reuse adds the first look at a generation and
    nothing else."""
    model, scheduler, (shape, inputs) = family()
    to_device(model.eval())
    inputs = tree_map_only(torch.Tensor, lambda value: value.to("cuda"), inputs)

    def waits() -> list[int]:
        scheduler.set_timesteps(STEPS // 2)
        there, x, counts = scheduler.timesteps.to("cuda"), torch.zeros(shape).to("cuda"), []
        for step, t in enumerate(scheduler.timesteps):
            before = len(device.waits)
            output = model(hidden_states=x, timestep=there[step].expand(len(x)), **inputs).sample
            x = scheduler.step(output, t, x).prev_sample
            counts.append(len(device.waits) - before)
        return counts

    untouched, pipe = waits(), SimpleNamespace(transformer=model, scheduler=scheduler)
    dqar.enable(pipe, config(max_age=2, forecast_order=1, num_layers=100))
    first, *rest = waits()
    assert (first, rest) == (untouched[0] + 1, untouched[1:])
    assert dqar.summary(pipe).ratio > 0.2


@pytest.mark.filterwarnings("ignore:CUDA is not available")  # autocast finds no device, and stays off
def test_the_embedded_model_can_be_trained_there(device: FakeCuda) -> None:
    """A step's loss is on the model's device, with nothing of it on the CPU by mistake."""
    model, latents = dit.new_dit(), torch.zeros(8, 4, 16, 16)
    to_device(model)
    with torch.compiler.set_stance("force_eager"):
        assert dit.make_loss(model, latents, torch.arange(8))(0).device.type == "cuda"
