"""Symmetric low-bit storage: x_q = round(x / s), s = max|x| / (2^(bits-1) - 1), s in float32."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from dqar.core import fused
from dqar.errors import InvalidValue, invalid_value
from dqar.validation import QUANTIZATION_BITS, QUANTIZATION_MODES


@dataclass(frozen=True, slots=True)
class QuantizedTensor:
    """A tensor in 8 or 4 bits with its scales; `nbytes` is what it holds, nothing else is kept."""

    values: Tensor  # int8 in the tensor's shape, or uint8 with two 4-bit numbers a byte, flat
    scale: Tensor  # float32, broadcastable to the shape
    shape: torch.Size
    dtype: torch.dtype
    bits: int

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors held."""
        return self.values.nbytes + self.scale.nbytes

    def clone(self) -> QuantizedTensor:
        """Copy the tensors that are held.

        Returns:
            The same numbers in memory of their own.
        """
        return replace(self, values=self.values.clone(), scale=self.scale.clone())

    def dequantize(self) -> Tensor:
        """Compute the numbers that the stored ones stand for.

        Returns:
            A new tensor of the original shape and dtype.
        """
        values = self.values if self.bits == 8 else _unpack(self.values, self.shape)
        return fused.dequantize(values, self.scale, self.dtype)


class KVQuantizer:
    """Quantises what a cache keeps: K, V or an attention output.

    Tensors are `[batch, heads, tokens, width]`, or `[batch, tokens, heads * width]`.

    Args:
        mode: Which numbers share a scale: `per_tensor` all; `per_channel` those of one channel; `per_head`
            those of one head.
        bits: 4, 8, or 16 = off.
        num_heads: Heads of tensors with three dimensions, for `per_head`.

    Raises:
        InvalidValue: An unknown mode or number of bits.
    """

    def __init__(self, mode: str = "per_tensor", bits: int = 8, num_heads: int | None = None) -> None:
        if mode not in QUANTIZATION_MODES:
            raise invalid_value("mode", mode, ", ".join(QUANTIZATION_MODES))
        if bits not in QUANTIZATION_BITS:
            raise invalid_value("bits", bits, ", ".join(map(str, QUANTIZATION_BITS)))
        self.mode, self.bits, self.num_heads = mode, bits, num_heads
        self.levels = 2 ** (bits - 1) - 1

    def quantize(self, x: Tensor) -> QuantizedTensor | Tensor:
        """Store a tensor in fewer bits.

        Args:
            x: `[batch, heads, tokens, width]` or `[batch, tokens, heads * width]`, of any floating dtype.

        Returns:
            The tensor in `bits` bits with its scales; `x` itself at 16.

        Raises:
            InvalidValue: `per_head`, and the heads do not divide the width.
        """
        if self.bits == 16:
            return x
        scale = (self._max_abs(x).float() / self.levels).clamp_min(torch.finfo(torch.float32).tiny)
        values = (x.float() / scale).round_().to(torch.int8)  # at most levels: scale is max|x| / levels
        stored = values if self.bits == 8 else _pack(values)
        return QuantizedTensor(stored, scale, x.shape, x.dtype, self.bits)

    def dequantize(self, stored: QuantizedTensor | Tensor) -> Tensor:
        """Restore what `quantize` stored.

        Args:
            stored: What `quantize` returned.

        Returns:
            A tensor of the original shape and dtype, within half a scale of what was stored.
        """
        return stored if isinstance(stored, Tensor) else stored.dequantize()

    def _max_abs(self, x: Tensor) -> Tensor:
        if self.mode == "per_tensor":
            return x.abs().amax()
        tokens = x.ndim - 2
        if self.mode == "per_channel":
            return x.abs().amax((0, tokens), keepdim=True)
        if x.ndim == 4:
            return x.abs().amax((0, 2, 3), keepdim=True)
        return self._max_abs_of_heads(x)

    def _max_abs_of_heads(self, x: Tensor) -> Tensor:
        width = x.shape[-1]
        if not self.num_heads or width % self.num_heads:
            raise invalid_value("num_heads", self.num_heads, f"a divisor of {width}")
        channels = x.abs().amax((0, 1)).view(self.num_heads, -1)
        return channels.amax(1, keepdim=True).expand_as(channels).reshape(1, 1, width)


State = tuple[int, float, tuple[int, ...]]  # bytes, error, the option of each layer so far


class MixedPrecisionKVQuantizer:
    """Chooses each layer's bits so that a cache of all layers fits `budget` bytes with least error.

    `samples` holds what a layer keeps, one tensor or several (K and V) each, as measured on a real run.
    A layer's error at some bits is the relative error of its samples' round trip,
    ||x - x_q|| / ||x||, times its `weights` entry. The choice is the exact optimum of the sum
    (multiple-choice knapsack by its Pareto front, Kellerer et al. 2004, ch. 11); layers of one
    shape have few distinct sums of bytes, so that the front stays short.

    Args:
        samples: For each layer one tensor or several.
        budget: Bytes that the whole cache may hold.
        mode: As `KVQuantizer` takes it.
        num_heads: The same.
        weights: Factor on each layer's error; None = 1 everywhere.

    Raises:
        InvalidValue: A budget too small for 4 bits everywhere, or `weights` of another length.
    """

    def __init__(
        self,
        samples: Sequence[Tensor | Sequence[Tensor]],
        budget: int,
        mode: str = "per_tensor",
        num_heads: int | None = None,
        weights: Sequence[float] | None = None,
    ) -> None:
        if weights is not None and len(weights) != len(samples):
            raise InvalidValue(f"weights has {len(weights)} entries; allowed: one per layer, {len(samples)}")
        self.options = [KVQuantizer(mode, bits, num_heads) for bits in QUANTIZATION_BITS]
        layers = [(x,) if isinstance(x, Tensor) else tuple(x) for x in samples]
        measured = [[_round_trip(quantizer, xs) for quantizer in self.options] for xs in layers]
        self.nbytes = [[size for size, _ in row] for row in measured]  # [layers][options]
        scales = weights or [1.0] * len(layers)
        self.errors = [[error * w for _, error in row] for row, w in zip(measured, scales, strict=True)]
        self.choice = self._choose(budget)

    @property
    def bits(self) -> tuple[int, ...]:
        """Bits of each layer."""
        return tuple(quantizer.bits for quantizer in self.quantizers)

    @property
    def quantizers(self) -> list[KVQuantizer]:
        """One quantiser a layer, as `LayerWiseKVCache` takes them."""
        return [self.options[i] for i in self.choice]

    def _choose(self, budget: int) -> tuple[int, ...]:
        least = sum(min(sizes) for sizes in self.nbytes)
        if budget < least:
            raise invalid_value("budget", budget, f"at least {least} bytes (4 bits everywhere)")
        front: list[State] = [(0, 0.0, ())]
        for sizes, errors in zip(self.nbytes, self.errors, strict=True):
            grown = [
                (size + sizes[i], error + errors[i], (*chosen, i))
                for size, error, chosen in front
                for i in range(len(self.options))
            ]
            front = _pareto([state for state in grown if state[0] <= budget])
        return front[-1][2]


def _round_trip(quantizer: KVQuantizer, samples: Sequence[Tensor]) -> tuple[int, float]:
    """Bytes and relative error of keeping `samples` by `quantizer`."""
    stored = [quantizer.quantize(x) for x in samples]
    lost = sum(
        float((x.float() - quantizer.dequantize(q).float()).square().sum())
        for x, q in zip(samples, stored, strict=True)
    )
    power = sum(float(x.float().square().sum()) for x in samples)
    return sum(q.nbytes for q in stored), (lost / power) ** 0.5 if power else 0.0


def _pareto(states: list[State]) -> list[State]:
    """The states that no smaller one matches in error, by rising bytes and falling error."""
    kept: list[State] = []
    for state in sorted(states):
        if not kept or state[1] < kept[-1][1]:
            kept.append(state)
    return kept


def _pack(values: Tensor) -> Tensor:
    """Pack 4-bit numbers (int8, -7 to 7), two to a byte; an odd last one is paired with a zero."""
    flat = F.pad(values.flatten(), (0, values.numel() % 2)) + 8
    return (flat[::2] | (flat[1::2] << 4)).view(torch.uint8)


def _unpack(packed: Tensor, shape: torch.Size) -> Tensor:
    pairs = torch.stack((packed & 15, packed >> 4), dim=-1).view(torch.int8) - 8
    return pairs.flatten()[: shape.numel()].view(shape)
