"""Reuse under torch.compile: one whole-graph variant for each set of step decisions, none twice."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from conftest import build_tiny_pipeline, decisions_of, generate
from diffusers import DiTPipeline, FluxTransformer2DModel
from torch import Tensor
from torch._dynamo.utils import counters

import dqar
from bench.methods.compilation import REGIONAL, compiled
from dqar import DQARConfig
from dqar.integration.adapter import blocks_of


@pytest.fixture
def pipe() -> DiTPipeline:
    """The tiny pipeline with two layers: the compiler's time grows with layers times variants."""
    return build_tiny_pipeline(layers=2)


@pytest.fixture(autouse=True)
def fresh_compiler() -> None:
    torch._dynamo.reset()
    counters.clear()


def compiled_graphs() -> int:
    return int(counters["stats"]["unique_graphs"])


@pytest.mark.everyday("output")
@pytest.mark.parametrize(
    "change",
    [{}, {"entropy_threshold": 2.74}, {"reuse_mode": "kv", "quantization_bits": 4}],
    ids=["output", "entropy", "kv"],
)
def test_one_variant_for_each_set_of_decisions(pipe: DiTPipeline, change: dict[str, Any]) -> None:
    """With fullgraph=True a run compiles as many graphs as it has distinct decisions, a second run none."""
    config = DQARConfig.preset("maximum", max_age=2, **change)
    dqar.enable(pipe, config)
    eager = generate(pipe, steps=6)
    dqar.disable(pipe)
    # The "eager" backend traces and guards as inductor does, and spends no time on generating code.
    pipe.transformer = torch.compile(pipe.transformer, fullgraph=True, backend="eager")
    dqar.enable(pipe, config)
    with decisions_of(pipe) as decisions:
        generate(pipe, steps=6)
    assert dqar.summary(pipe).ratio > 0
    assert compiled_graphs() == len(decisions) > 1
    latents = generate(pipe, steps=6)
    assert compiled_graphs() == len(decisions)
    dqar.enable(pipe, config)
    assert torch.equal(generate(pipe, steps=6), latents)
    assert compiled_graphs() == len(decisions)  # nor after it was enabled again
    assert torch.allclose(latents, eager, rtol=1e-4, atol=1e-4 * float(eager.abs().max()))


@pytest.mark.slow
def test_disabled_after_compiling_is_the_compiled_model(pipe: DiTPipeline) -> None:
    """`disable` gives the compiled pipeline its own output back, bit for bit."""
    pipe.transformer = torch.compile(pipe.transformer, fullgraph=True, backend="eager")
    untouched = generate(pipe, steps=6)
    dqar.enable(pipe, DQARConfig.preset("maximum"))
    assert not torch.equal(generate(pipe, steps=6), untouched)
    dqar.disable(pipe)
    assert torch.equal(generate(pipe, steps=6), untouched)


def compile_blocks(pipe: DiTPipeline) -> None:
    """As `compiled(transformer, "regional")` does it, without the time that inductor takes."""
    for block in blocks_of(pipe.transformer):
        block.compile(fullgraph=True, dynamic=False, backend="eager")


@pytest.mark.everyday("hold")
@pytest.mark.parametrize(
    "change", [{}, {"forecast_order": 1}, {"reuse_mode": "kv"}], ids=["hold", "forecast", "kv"]
)
def test_layers_are_reused_within_compiled_blocks(pipe: DiTPipeline, change: dict[str, Any]) -> None:
    """Over blocks that are compiled one by one, with nothing reused, latents are the untouched model's to the
    bit; with reuse they are those of reuse without compiling; a second run compiles nothing."""
    untouched, config = generate(pipe, steps=6), DQARConfig.preset("maximum", max_age=2, **change)
    dqar.enable(pipe, config)
    eager = generate(pipe, steps=6)
    dqar.disable(pipe)
    compile_blocks(pipe)
    dqar.enable(pipe, DQARConfig.preset("maximum", entropy_threshold=0.0, quantization_bits=16))
    assert torch.equal(generate(pipe, steps=6), untouched)
    dqar.enable(pipe, config)
    latents = generate(pipe, steps=6)
    assert dqar.summary(pipe).ratio > 0
    assert torch.allclose(latents, eager, rtol=1e-4, atol=1e-4 * float(eager.abs().max()))
    graphs = compiled_graphs()
    assert torch.equal(generate(pipe, steps=6), latents) and compiled_graphs() == graphs
    dqar.disable(pipe)
    assert torch.equal(generate(pipe, steps=6), untouched)


@pytest.mark.parametrize("layers", [2, 5])
def test_blocks_share_their_graph_where_steps_are_skipped(layers: int) -> None:
    """However many blocks there are, they have two graphs, the first block's inputs being laid out in another
    way: a plan of whole steps adds none, and its latents are those without compiling."""
    pipe = build_tiny_pipeline(layers=layers)
    config = DQARConfig.preset("maximum", layer_fraction=0.0, model_steps=3)
    dqar.enable(pipe, config)
    eager = generate(pipe, steps=6)
    dqar.disable(pipe)
    compile_blocks(pipe)
    dqar.enable(pipe, config)
    assert torch.allclose(generate(pipe, steps=6), eager, rtol=1e-4, atol=1e-4 * float(eager.abs().max()))
    assert dqar.summary(pipe).skipped.mean() == 0.5 and compiled_graphs() == 2
    dqar.disable(pipe)
    generate(pipe, steps=6)
    assert compiled_graphs() == 2


def test_the_compiled_blocks_are_those_that_diffusers_names() -> None:
    """On a class for which diffusers has `compile_repeated_blocks`, ours compiles the same modules."""
    theirs, ours = (
        FluxTransformer2DModel(
            in_channels=4, num_layers=2, num_single_layers=2, attention_head_dim=8, num_attention_heads=2,
            joint_attention_dim=8, pooled_projection_dim=8, axes_dims_rope=(2, 2, 4),
        )
        for _ in range(2)
    )  # fmt: skip
    theirs.compile_repeated_blocks()
    compiled(ours, REGIONAL)
    chosen = [
        {name for name, part in model.named_modules() if part._compiled_call_impl is not None}
        for model in (theirs, ours)
    ]
    assert chosen[0] == chosen[1] and len(chosen[0]) == 4


@contextmanager
def memory_of_a_graph(pipe: DiTPipeline) -> Iterator[None]:
    """What a layer computed or the transformer returned is overwritten as the transformer is called again, as
    a CUDA graph's replay does."""
    transformer = pipe.transformer
    handed: list[torch.Tensor] = []
    own = transformer.forward

    @functools.wraps(own)
    def forward(*args: Any, **kwargs: Any) -> Any:
        for tensor in handed:
            tensor.fill_(float("nan"))
        handed.clear()
        output = own(*args, **kwargs)
        handed.append(output.sample if hasattr(output, "sample") else output[0])
        return output

    def note(layer: int, _: Any, __: Any, output: Tensor) -> None:
        if not pipe._dqar.manager.active.decision.reuse[layer]:
            handed.append(output)

    hooks = [
        block.attn1.register_forward_hook(functools.partial(note, layer))
        for layer, block in enumerate(transformer.transformer_blocks)
    ]
    transformer.forward = forward
    try:
        yield
    finally:
        transformer.forward = own
        for hook in hooks:
            hook.remove()


@pytest.mark.parametrize(
    ("change", "graphed"),
    [
        ({"max_age": 2}, True),
        ({"max_age": 2, "forecast_order": 1}, True),
        ({"layer_fraction": 0.0, "model_steps": 5}, False),  # only the output is kept, and always copied
        ({"layer_fraction": 0.0, "step_interval": 2, "guidance_interval": 2, "warmup_fraction": 0.0}, False),
    ],
    ids=["layers", "forecast", "steps", "branches"],
)
def test_what_is_kept_outlives_the_next_replay(
    pipe: DiTPipeline, change: dict[str, Any], graphed: bool
) -> None:
    """Over memory that each call overwrites, the images are those over memory that stays, to the bit."""
    config = DQARConfig.preset("maximum", quantization_bits=16, **change)
    dqar.enable(pipe, config)
    expected = generate(pipe)
    assert dqar.summary(pipe).ratio >= 0.2
    dqar.disable(pipe)
    with memory_of_a_graph(pipe):
        dqar.enable(pipe, config)
        if graphed:
            assert not torch.isfinite(generate(pipe)).all()  # the memory is as described
        pipe._dqar.manager.graphed = graphed
        assert torch.equal(generate(pipe), expected)


@pytest.mark.parametrize(
    ("compiled", "graphed"),
    [({"mode": "reduce-overhead"}, True), ({"mode": "default"}, False), ({"backend": "eager"}, False)],
)
def test_a_transformer_in_cuda_graphs_is_recognised(
    pipe: DiTPipeline, compiled: dict[str, Any], graphed: bool
) -> None:
    """What the transformer was compiled for decides whether its layers' tensors must be copied."""
    pipe.transformer = torch.compile(pipe.transformer, **compiled)
    dqar.enable(pipe, DQARConfig())
    assert pipe._dqar.manager.graphed is graphed
