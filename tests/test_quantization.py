"""Low-bit storage by hand: scales, packed bytes, round trips, refusals."""

from __future__ import annotations

import math

import pytest
import torch

from dqar.core.quantization import KVQuantizer, MixedPrecisionKVQuantizer, QuantizedTensor

X = torch.tensor(
    [[[1.0, -2.0, 4.0, 0.0], [-8.0, 2.0, 1.0, 16.0]], [[2.0, 1.0, -32.0, 1.0], [0.0, 0.0, 64.0, 1.0]]]
)


def quantized(
    x: torch.Tensor, mode: str = "per_tensor", bits: int = 8, heads: int | None = None
) -> QuantizedTensor:
    stored = KVQuantizer(mode, bits, heads).quantize(x)
    assert isinstance(stored, QuantizedTensor)
    return stored


def test_eight_bits_by_hand() -> None:
    """The largest number becomes 127, the others are rounded in its unit, and the scale is float32."""
    stored = quantized(torch.tensor([[[254.0, -254.0, 3.1, 0.9]]], dtype=torch.float16))
    assert stored.values.dtype == torch.int8 and stored.values.tolist() == [[[127, -127, 2, 0]]]
    assert stored.scale.dtype == torch.float32 and stored.scale.item() == 2.0
    assert stored.nbytes == 4 + 4
    back = stored.dequantize()
    assert back.dtype == torch.float16 and back.tolist() == [[[254.0, -254.0, 4.0, 0.0]]]


def test_four_bits_are_packed_two_to_a_byte() -> None:
    """Low half first, 8 added; an odd last number is paired with a zero."""
    x = torch.tensor([[[-7.0, 3.0, 7.0, 0.0, 1.0]]])
    stored = quantized(x, bits=4)
    assert stored.values.dtype == torch.uint8
    assert stored.values.tolist() == [1 + 16 * 11, 15 + 16 * 8, 9 + 16 * 8]
    assert torch.equal(stored.dequantize(), x) and stored.nbytes == 3 + 4


@pytest.mark.parametrize("bits", [4, 8])
def test_zeros_stay_zeros(bits: int) -> None:
    """A tensor of zeros has a scale above zero, and comes back."""
    stored = quantized(torch.zeros(2, 3, 4), bits=bits)
    assert stored.scale.item() > 0 and torch.equal(stored.dequantize(), torch.zeros(2, 3, 4))


@pytest.mark.parametrize(
    ("mode", "x", "heads", "largest"),
    [
        ("per_tensor", X, None, 64.0),
        ("per_channel", X, None, [[[8.0, 2.0, 64.0, 16.0]]]),
        ("per_head", X, 2, [[[8.0, 8.0, 64.0, 64.0]]]),
        ("per_head", X, 4, [[[8.0, 2.0, 64.0, 16.0]]]),
        # [batch, heads, tokens, width]
        ("per_channel", X[None], None, [[[[8.0, 2.0, 4.0, 16.0]], [[2.0, 1.0, 64.0, 1.0]]]]),
        ("per_head", X[None], None, [[[[16.0]], [[64.0]]]]),
        ("per_head", X[:, None], None, [[[[64.0]]]]),
        ("per_channel", X[:, None], None, [[[[8.0, 2.0, 64.0, 16.0]]]]),
    ],
)
def test_numbers_that_share_a_scale(mode: str, x: torch.Tensor, heads: int | None, largest: object) -> None:
    """Scales are the largest magnitudes of all, of each channel or of each head, over 127, batch and tokens
    shared."""
    assert (quantized(x, mode, 8, heads).scale * 127).tolist() == largest


def test_sixteen_bits_are_off() -> None:
    """The tensor itself is kept, and given back."""
    off = KVQuantizer(bits=16)
    assert off.quantize(X) is X and off.dequantize(X) is X


def test_a_clone_has_its_own_memory() -> None:
    """What happens to the original later does not reach it."""
    stored = quantized(X)
    copy = stored.clone()
    before = copy.dequantize()
    stored.values.zero_()
    stored.scale.zero_()
    assert torch.equal(copy.dequantize(), before) and (copy.shape, copy.bits) == (X.shape, 8)


def test_what_is_not_allowed_is_named() -> None:
    """Mode, bits, and heads that do not divide the width."""
    with pytest.raises(ValueError, match=r"mode = 'rows' .*allowed: per_tensor, per_channel, per_head"):
        KVQuantizer("rows")
    with pytest.raises(ValueError, match=r"bits = 5 .*allowed: 4, 8, 16"):
        KVQuantizer(bits=5)
    for heads in (None, 3):
        with pytest.raises(ValueError, match=f"num_heads = {heads} .*allowed: a divisor of 4"):
            KVQuantizer("per_head", num_heads=heads).quantize(X)


def test_bytes_and_errors_of_each_option_by_hand() -> None:
    """[127, 0.25] loses its second number in 8 and 4 bits, and nothing in 16; a weight scales the error."""
    x = torch.tensor([[[127.0, 0.25]]])
    lost = math.sqrt(0.25**2 / (127**2 + 0.25**2))
    mixed = MixedPrecisionKVQuantizer([x, (x, x), torch.zeros(1, 1, 2)], 1000, weights=[1.0, 3.0, 1.0])
    assert mixed.nbytes == [[5, 6, 8], [10, 12, 16], [5, 6, 8]]
    assert mixed.errors[0] == pytest.approx([lost, lost, 0.0])
    assert mixed.errors[1] == pytest.approx([3 * lost, 3 * lost, 0.0])
    assert mixed.errors[2] == [0.0, 0.0, 0.0]
    assert mixed.bits == (16, 16, 4)
    assert [quantizer.bits for quantizer in mixed.quantizers] == [16, 16, 4]
    plain = MixedPrecisionKVQuantizer([x, x], 99, mode="per_channel")
    assert plain.errors == [pytest.approx([0.0, 0.0, 0.0], abs=1e-6)] * 2
    assert MixedPrecisionKVQuantizer([x], 99).errors[0] == pytest.approx([lost, lost, 0.0])
    assert {q.mode for q in plain.options} == {"per_channel"}


def test_the_budget_goes_where_it_helps_most() -> None:
    """Of two like layers the one whose error weighs more gets the bits; heads are passed on."""
    x = torch.tensor([[[127.0, 0.25]]])
    for weights, bits in (([1.0, 2.0], (4, 16)), ([2.0, 1.0], (16, 4))):
        mixed = MixedPrecisionKVQuantizer([x, x], 13, weights=weights)
        assert mixed.bits == bits
    assert {q.num_heads for q in MixedPrecisionKVQuantizer([X], 999, "per_head", 2).options} == {2}
