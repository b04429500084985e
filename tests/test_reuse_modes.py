"""The two modes of reuse give what they say: the last output, or fresh queries on the last K and V."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conftest import generate
from diffusers import DiTPipeline
from torch import Tensor

import dqar
from dqar import DQARConfig

LAYER = 2


def seen(pipe: DiTPipeline, **fields: Any) -> tuple[list[Tensor], list[Tensor], list[bool]]:
    """A layer's inputs and outputs at each step, and whether it was reused there."""
    config = {"use_layer_scheduling": False, "max_age": 2, "quantization_bits": 16} | fields
    dqar.enable(pipe, DQARConfig.preset("maximum", **config))
    inputs: list[Tensor] = []
    outputs: list[Tensor] = []

    def look(_: Any, args: tuple[Tensor, ...], output: Tensor) -> None:
        inputs.append(args[0])
        outputs.append(output)

    hook = pipe.transformer.transformer_blocks[LAYER].attn1.register_forward_hook(look)
    generate(pipe)
    hook.remove()
    return inputs, outputs, dqar.summary(pipe).map[:, LAYER].tolist()


def attention(attn: Any, queries_of: Tensor, keys_of: Tensor) -> Tensor:
    """Queries of one input on keys and values of another, `[batch, tokens, width]`, by the definition."""
    query, key, value = (
        project(x).unflatten(-1, (attn.heads, -1)).transpose(1, 2)
        for project, x in ((attn.to_q, queries_of), (attn.to_k, keys_of), (attn.to_v, keys_of))
    )
    attended = F.scaled_dot_product_attention(query, key, value)
    projected: torch.Tensor = attn.to_out[0](attended.transpose(1, 2).flatten(2))
    return projected


def sources(reused: list[bool]) -> list[int]:
    """For each step the last one that computed."""
    computed = [step for step in range(len(reused)) if not reused[step]]
    return [max(m for m in computed if m <= step) for step in range(len(reused))]


def test_output_mode_repeats_the_last_output(pipe: DiTPipeline) -> None:
    """At a reused step the layer gives, bit for bit, what it gave when it was last computed."""
    _, outputs, reused = seen(pipe)
    assert 0 < sum(reused) < len(reused)
    assert all(torch.equal(outputs[i], outputs[made]) for i, made in enumerate(sources(reused)))


@torch.no_grad()
def test_kv_mode_attends_again_to_the_last_keys_and_values(pipe: DiTPipeline) -> None:
    """At a reused step it gives the attention of this step's queries on the K and V last computed."""
    inputs, outputs, reused = seen(pipe, reuse_mode="kv")
    attn = pipe.transformer.transformer_blocks[LAYER].attn1
    assert 0 < sum(reused) < len(reused)
    for step, computed in enumerate(sources(reused)):
        expected = attention(attn, inputs[step], inputs[computed])
        torch.testing.assert_close(outputs[step], expected, rtol=1e-5, atol=1e-5)
        assert computed == step or not torch.equal(outputs[step], outputs[computed])


@pytest.mark.parametrize("mode", ["output", "kv"])
def test_one_branch_is_reused_for_both(pipe: DiTPipeline, mode: str) -> None:
    """With `cfg_sharing` both guidance halves of a reused output are one and the same, the conditional's."""
    inputs, outputs, reused = seen(pipe, cfg_sharing=True, reuse_mode=mode)
    attn = pipe.transformer.transformer_blocks[LAYER].attn1
    for step, made in enumerate(sources(reused)):
        if step == made:
            continue
        if mode == "output":
            expected = outputs[made].chunk(2)[0].repeat(2, 1, 1)
        else:
            with torch.no_grad():
                expected = attention(attn, inputs[step], inputs[made].chunk(2)[0].repeat(2, 1, 1))
        torch.testing.assert_close(outputs[step], expected, rtol=1e-5, atol=1e-5)
