"""A whole generation as one graph: what would be captured, done again by the host on the same buffers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from conftest import build_tiny_pipeline
from fake_cuda import fake_cuda, to_device
from torch import Tensor

from dqar.errors import InvalidValue
from dqar.integration import (
    DQARConfig,
    DQARDDIMSampler,
    DQARDiTWrapper,
    DQARDPMSolverSampler,
    SamplerConfig,
)
from dqar.integration.whole_graph import GraphedSampler, Make, rerun

PLANS: dict[str, dict[str, Any]] = {
    "skipped steps": {"layer_fraction": 0.0, "model_steps": 4},
    "skipped steps and branches": {"layer_fraction": 0.0, "model_steps": 6, "guidance_interval": 2},
    "layers in int8": {"max_age": 2},
    "layers and corrected steps": {"model_steps": 6, "output_correction": 0.5, "quantization_bits": 16},
}
SAMPLERS = {"ddim": DQARDDIMSampler, "dpm": DQARDPMSolverSampler}


def sampler(kind: str, change: dict[str, Any] | None, layers: int = 6, **options: Any) -> Any:
    """One over the tiny model: wrapped with a plan, or plain where `change` is None."""
    pipe, given = build_tiny_pipeline(layers), SamplerConfig(**{"num_inference_steps": 10} | options)
    if change is None:
        return SAMPLERS[kind](pipe.transformer, pipe.scheduler, given)
    wrapped = DQARDiTWrapper(pipe.transformer, DQARConfig.preset("maximum", **change))
    return SAMPLERS[kind](wrapped, pipe.scheduler, given)


def noise(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.everyday("ddim-*")
@pytest.mark.parametrize("guidance", [4.0, 1.0])
@pytest.mark.parametrize("change", PLANS.values(), ids=PLANS.keys())
@pytest.mark.parametrize("kind", SAMPLERS)
def test_replays_are_the_sampler_to_the_bit(kind: str, change: dict[str, Any], guidance: float) -> None:
    """Each replay makes the eager sampler's latents from its labels and noise, whatever came before it; the
    summary is of the same steps."""
    eager, graphed = (sampler(kind, change, guidance_scale=guidance, enable_dqar=True) for _ in range(2))
    graph = GraphedSampler(graphed, 2, rerun)
    for labels, seed in (([1, 2], 7), ([3, 1], 8), ([1, 2], 7)):
        assert torch.equal(graph.sample(labels, noise(seed)), eager.sample(2, labels, noise(seed)))
    assert (graphed.model.summary().map == eager.model.summary().map).all()
    assert eager.model.summary().ratio > 0.1


def test_a_plain_model_is_graphed_too() -> None:
    """Without reuse the graph is the baseline's own."""
    graph = GraphedSampler(sampler("ddim", None, enable_dqar=False), 2, rerun)
    expected = sampler("ddim", None, enable_dqar=False).sample(2, [1, 2], noise(7))
    assert torch.equal(graph.sample([1, 2], noise(7)), expected)


@pytest.mark.everyday("ddim-layers in int8", "dpm-layers and corrected steps")
@pytest.mark.skipif(not torch.backends.cuda.is_built(), reason="a torch built without CUDA")
@pytest.mark.parametrize(
    ("kind", "plan"), [*(("ddim", plan) for plan in PLANS), ("dpm", "layers and corrected steps")]
)
def test_what_is_captured_never_asks_the_device(kind: str, plan: str) -> None:
    """On a device that is not there: no wait and no copy from or to the host in the whole generation, its
    first step included: a capture would fail at the one, a replay would read freed memory by the other."""
    given = sampler(kind, PLANS[plan], layers=2)  # fake operations take their time
    seen: list[tuple[int, int]] = []
    with fake_cuda() as device:
        to_device(given.model.transformer)

        def watched(make: Make) -> Make:
            device.waits.clear()
            before = device.crossings
            make()
            seen.append((len(device.waits), device.crossings - before))
            return make

        GraphedSampler(given, 2, watched)
    assert seen == [(0, 0)]
    assert given.model.summary().map.shape[0] == 10


def test_inputs_and_outputs_are_the_same_memory_at_each_replay() -> None:
    """A graph reads and writes fixed addresses: buffers stay, and what a call returns is no buffer."""
    seen: list[tuple[int, int]] = []
    written: list[Tensor] = []

    def capture(make: Make) -> Make:
        written.append(make())

        def replay() -> Tensor:
            seen.append((graph.latents.data_ptr(), graph.labels.data_ptr()))
            return written[0].copy_(make())

        return replay

    graph = GraphedSampler(sampler("ddim", PLANS["skipped steps"]), 2, capture)
    first = graph.sample([1, 2], noise(7))
    kept = first.clone()
    graph.sample([2, 3], noise(8))
    assert torch.equal(first, kept) and first.data_ptr() != written[0].data_ptr()
    assert len(set(seen)) == 1 and len(seen) == 2


@pytest.mark.parametrize(
    ("change", "options", "said"),
    [
        (
            {"entropy_threshold": 2.0},
            {},
            "entropy_threshold = 2.0 is not allowed; allowed: what depends on no",
        ),
        ({"trace_entropy": True}, {}, "trace_entropy = True"),
        ({"schedule_type": "adaptive"}, {}, "schedule_type = 'adaptive'"),
        ({"forecast_order": 1}, {}, "forecast_order = 1 is not allowed; allowed: 0 in a graph"),
        ({}, {"eta": 0.5}, "eta = 0.5 is not allowed; allowed: 0 in a graph"),
        ({}, {"return_trajectory": True}, "return_trajectory = True"),
    ],
)
def test_what_is_not_static_is_refused(change: dict[str, Any], options: dict[str, Any], said: str) -> None:
    """In one line with the field, its value and what is allowed, before anything runs."""
    with pytest.raises(InvalidValue) as caught:
        GraphedSampler(sampler("ddim", change, **options), 2, rerun)
    assert said in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="what a machine without a device lacks")
def test_without_a_device_it_is_refused() -> None:
    """The default captures on CUDA; elsewhere it is no silent eager run."""
    with pytest.raises(InvalidValue, match="device = 'cpu' is not allowed; allowed: a CUDA device"):
        GraphedSampler(sampler("ddim", {}), 2)
