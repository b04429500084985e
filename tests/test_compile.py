"""Reuse under torch.compile: one whole-graph variant for each set of orders, none twice."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from conftest import generate, orders_of
from diffusers import DiTPipeline
from torch._dynamo.utils import counters

import dqar
from dqar import DQARConfig


@pytest.fixture(autouse=True)
def fresh_compiler() -> None:
    torch._dynamo.reset()
    counters.clear()


def compiled_graphs() -> int:
    return int(counters["stats"]["unique_graphs"])


@pytest.mark.parametrize(
    "change",
    [{}, {"entropy_threshold": 2.72}, {"reuse_mode": "kv", "quantization_bits": 4}],
    ids=["output", "entropy", "kv"],
)
def test_one_variant_for_each_set_of_orders(pipe: DiTPipeline, change: dict[str, Any]) -> None:
    """With fullgraph=True a run compiles as many graphs as it has distinct orders, a second run none."""
    config = DQARConfig.preset("maximum", max_age=2, **change)
    dqar.enable(pipe, config)
    eager = generate(pipe)
    dqar.disable(pipe)
    # The "eager" backend traces and guards as inductor does, and spends no time on generating code.
    pipe.transformer = torch.compile(pipe.transformer, fullgraph=True, backend="eager")
    dqar.enable(pipe, config)
    with orders_of(pipe) as orders:
        generate(pipe)
    assert dqar.summary(pipe).ratio > 0
    assert compiled_graphs() == len(orders) > 1
    latents = generate(pipe)
    assert compiled_graphs() == len(orders)
    dqar.enable(pipe, config)
    assert torch.equal(generate(pipe), latents)
    assert compiled_graphs() == len(orders)  # nor after it was switched on anew
    assert torch.allclose(latents, eager, rtol=1e-4, atol=1e-4 * float(eager.abs().max()))


def test_disabled_after_compiling_is_the_compiled_model(pipe: DiTPipeline) -> None:
    """`disable` gives the compiled pipeline its own output back, bit for bit."""
    pipe.transformer = torch.compile(pipe.transformer, fullgraph=True, backend="eager")
    untouched = generate(pipe)
    dqar.enable(pipe, DQARConfig.preset("maximum"))
    assert not torch.equal(generate(pipe), untouched)
    dqar.disable(pipe)
    assert torch.equal(generate(pipe), untouched)
