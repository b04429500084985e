"""Low-bit storage: its error and bytes follow the formula, and mixed precision spends bytes at best."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from dqar.cache.kv_cache import LayerWiseKVCache
from dqar.core.quantization import KVQuantizer, MixedPrecisionKVQuantizer, QuantizedTensor

MODES = ("per_tensor", "per_channel", "per_head")
SHAPES = [(2, 4, 16, 8), (1, 3, 7, 5), (2, 16, 32), (1, 7, 15)]  # [b, heads, n, d] and [b, n, width]


def heads(shape: tuple[int, ...]) -> int:
    return shape[1] if len(shape) == 4 else {32: 4, 15: 3}[shape[-1]]


def scales(mode: str, shape: tuple[int, ...]) -> int:
    """How many scales are held: where width holds the heads, one a channel."""
    if mode == "per_tensor":
        return 1
    if len(shape) == 3:
        return shape[-1]
    return heads(shape) * (shape[-1] if mode == "per_channel" else 1)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("mode", MODES)
def test_error_and_bytes_follow_the_formula(mode: str, bits: int, shape: tuple[int, ...]) -> None:
    """Every number comes back within half its scale, and bytes are numbers * bits / 8 + 4 a scale."""
    x = 3 * torch.randn(shape, generator=torch.Generator().manual_seed(0))
    stored = KVQuantizer(mode, bits, heads(shape)).quantize(x)
    assert isinstance(stored, QuantizedTensor)
    assert ((x - stored.dequantize()).abs() <= stored.scale / 2 * (1 + 1e-5)).all()
    assert stored.scale.max() <= x.abs().max() / (2 ** (bits - 1) - 1) * (1 + 1e-6)
    assert stored.nbytes == math.ceil(x.numel() * bits / 8) + 4 * scales(mode, shape)


@pytest.mark.parametrize("mode", MODES)
def test_bytes_on_dit_shapes(mode: str) -> None:
    """On DiT-XL/2's outputs and K, int8 takes at most 0.51 and 4 bits 0.27 of the fp16 bytes."""
    for shape in [(2, 256, 1152), (2, 16, 256, 72), (8, 64, 192)]:
        x = torch.randn(shape).half()
        for bits, share in ((8, 0.51), (4, 0.27)):
            assert KVQuantizer(mode, bits, 16).quantize(x).nbytes <= share * x.nbytes


def layers(count: int, seed: int) -> list[torch.Tensor]:
    """Outputs whose sensitivity differs: a few outliers widen the scale."""
    generator = torch.Generator().manual_seed(seed)
    samples = [torch.randn(2, 4 + 2 * (i % 3), 8, generator=generator).half() for i in range(count)]
    for i, x in enumerate(samples):
        x[0, 0, 0] *= 4 * (i + 1)
    return samples


@pytest.mark.parametrize("seed", range(4))
def test_choice_is_the_optimum(seed: int) -> None:
    """For every budget the choice has the error of the best of all assignments by brute force."""
    samples, weights = layers(5, seed), [1.0, 4.0, 0.5, 2.0, 1.0]
    full = sum(x.nbytes for x in samples)
    for budget in range(int(0.3 * full) + 21, full + 1, full // 7):
        mixed = MixedPrecisionKVQuantizer(samples, budget, weights=weights)
        choices = list(itertools.product(range(3), repeat=5))
        costs = [sum(mixed.nbytes[i][c] for i, c in enumerate(choice)) for choice in choices]
        errors = [sum(mixed.errors[i][c] for i, c in enumerate(choice)) for choice in choices]
        best = min(e for e, cost in zip(errors, costs, strict=True) if cost <= budget)
        place = choices.index(mixed.choice)
        assert costs[place] <= budget and errors[place] == pytest.approx(best)


def test_budget_is_what_the_cache_holds() -> None:
    """A cache made of the chosen quantisers holds K and V in no more bytes than the budget."""
    samples = [(x, x + 1) for x in layers(6, 0)]
    budget = sum(k.nbytes + v.nbytes for k, v in samples) // 2
    mixed = MixedPrecisionKVQuantizer(samples, budget)
    cache = LayerWiseKVCache(mixed.quantizers)
    for layer, pair in enumerate(samples):
        cache.store(layer, *pair)
    assert len(set(mixed.bits)) > 1
    assert 0.8 * budget < cache.nbytes <= budget


def test_bad_budget() -> None:
    """A budget below 4 bits everywhere is refused with the least that is allowed."""
    samples = layers(3, 0)
    least = sum(KVQuantizer(bits=4).quantize(x).nbytes for x in samples)
    assert MixedPrecisionKVQuantizer(samples, least).bits == (4, 4, 4)
    with pytest.raises(ValueError, match=f"budget = {least - 1} .*allowed: at least {least}"):
        MixedPrecisionKVQuantizer(samples, least - 1)
    with pytest.raises(ValueError, match="weights has 1 entries; allowed: one per layer, 3"):
        MixedPrecisionKVQuantizer(samples, least, weights=[1.0])
