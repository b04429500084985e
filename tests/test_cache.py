"""The cache holds what it reports, in the bytes it reports, and nothing else."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import generate
from diffusers import DiTPipeline

import dqar
from dqar import DQARConfig
from dqar.cache.kv_cache import LayerWiseKVCache, QuantizedKVCache
from dqar.core.quantization import KVQuantizer, MixedPrecisionKVQuantizer
from dqar.utils.helpers import load_dit_model

TOKENS, WIDTH, LAYERS = 16, 32, 6  # the tiny pipeline's
NUMBERS = 4 * TOKENS * WIDTH  # of one output: two images, each with guidance


@pytest.mark.parametrize(("bits", "per_number"), [(16, 4.0), (8, 1.0), (4, 0.5)])
def test_bytes_are_those_of_the_numbers_held(pipe: DiTPipeline, bits: int, per_number: float) -> None:
    """The most a run held is the formula's bytes (here float32 when off) for all layers at once."""
    config = DQARConfig.preset("maximum", use_layer_scheduling=False, quantization_bits=bits)
    dqar.enable(pipe, config)
    generate(pipe)
    scales = 0 if bits == 16 else 4
    assert dqar.summary(pipe).cache_bytes == LAYERS * (NUMBERS * per_number + scales)


def test_keys_and_values_take_twice_the_bytes_of_an_output(pipe: DiTPipeline) -> None:
    """K and V are kept in int8 each, with a scale each."""
    config = DQARConfig.preset("maximum", use_layer_scheduling=False, reuse_mode="kv")
    dqar.enable(pipe, config)
    generate(pipe)
    assert dqar.summary(pipe).cache_bytes == LAYERS * 2 * (NUMBERS + 4)


@pytest.mark.slow
@pytest.mark.parametrize(("bits", "share"), [(8, 0.51), (4, 0.27)])
def test_a_half_precision_run_holds_that_share_of_its_bytes(bits: int, share: float) -> None:
    """On the trained model in fp16 the output cache of a run holds at most 0.51 of what it does
    unquantised in 8 bits, and at most 0.27 in 4."""
    model = load_dit_model(Path(__file__).parents[1] / "bench/embedded/model", dtype=torch.float16)
    model.set_progress_bar_config(disable=True)
    held = []
    for kept in (16, bits):
        config = DQARConfig.preset("maximum", use_layer_scheduling=False, quantization_bits=kept)
        dqar.enable(model, config)
        generate(model, steps=4)
        held.append(dqar.summary(model).cache_bytes)
    assert 0 < held[1] <= share * held[0]


def held_tensors(numel: int) -> list[torch.Tensor]:
    gc.collect()
    held = [o for o in gc.get_objects() if isinstance(o, torch.Tensor) and o.numel() == numel]
    return [tensor for tensor in held if not isinstance(tensor, torch.nn.Parameter)]


@pytest.mark.parametrize("mode", ["output", "kv"])
def test_no_full_precision_copy_stays_with_an_int8_entry(pipe: DiTPipeline, mode: str) -> None:
    """In mid-run every tensor of an entry's size that is alive is int8: no hidden copy."""
    dqar.enable(pipe, DQARConfig.preset("maximum", use_layer_scheduling=False, reuse_mode=mode))
    kinds: list[set[Any]] = []
    others = held_tensors(NUMBERS)  # that whatever ran before has left behind

    def look(*_: Any) -> None:
        kinds.append({t.dtype for t in held_tensors(NUMBERS) if all(t is not other for other in others)})

    hook = pipe.transformer.register_forward_pre_hook(look)
    generate(pipe)
    hook.remove()
    assert {torch.int8} in kinds
    assert all(kind <= {torch.int8} for kind in kinds)


def test_cache_does_not_grow_and_is_freed_after_the_last_step(pipe: DiTPipeline) -> None:
    """From the first step with all entries on the bytes held stay the same, and end at none."""
    dqar.enable(pipe, DQARConfig.preset("maximum", use_layer_scheduling=False, max_age=2))
    held: list[int] = []

    def cached() -> int:
        return int(pipe._dqar.manager.trajectory.main.store.cache.nbytes)

    hook = pipe.transformer.register_forward_pre_hook(lambda *_: held.append(cached()))
    generate(pipe, steps=20)
    hook.remove()
    full = dqar.summary(pipe).cache_bytes
    assert max(held) == full and cached() == 0


def test_mixed_precision_plugs_into_the_configuration(pipe: DiTPipeline) -> None:
    """Bits chosen per layer within a byte budget run, and the run holds no more than the budget."""
    samples = [torch.randn(4, TOKENS, WIDTH) * (1 + 9 * (layer % 2)) for layer in range(LAYERS)]
    budget = int(LAYERS * NUMBERS * 0.8)
    mixed = MixedPrecisionKVQuantizer(samples, budget)
    bits = tuple(quantizer.bits for quantizer in mixed.quantizers)
    assert len(set(bits)) > 1
    dqar.enable(pipe, DQARConfig.preset("maximum", use_layer_scheduling=False, quantization_bits=bits))
    generate(pipe)
    assert dqar.summary(pipe).cache_bytes <= budget


def test_each_layer_has_its_own_quantiser() -> None:
    """A layer-wise cache stores each layer in its own bits and gives all of them back."""
    cache = LayerWiseKVCache([KVQuantizer(bits=bits) for bits in (4, 8, 16)])
    x = torch.randn(2, 8, 4)
    errors = []
    for layer in range(3):
        cache.store(layer, x)
        errors.append(float((cache.load(layer)[0] - x).abs().max()))
    assert errors[0] > errors[1] > errors[2] == 0


def test_unknown_layer_and_missing_entry_are_named() -> None:
    """A layer that does not exist, or has nothing stored, is refused with its number."""
    cache = QuantizedKVCache(3)
    with pytest.raises(IndexError, match="layer = 3 is not in the cache; allowed: 0 to 2"):
        cache.store(3, torch.zeros(1))
    with pytest.raises(KeyError, match="layer 1 has no cache entry"):
        cache.load(1)
