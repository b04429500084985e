"""Symmetric low-bit storage: x_q = round(x / s), s = max|x| / (2^(bits-1) - 1), s in float32."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from dqar.config import QUANTIZATION_BITS, QUANTIZATION_MODES


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

    def dequantize(self) -> Tensor:
        """Return the tensor in its first shape and dtype."""
        values = self.values if self.bits == 8 else _unpack(self.values, self.shape)
        return torch.mul(values, self.scale).to(self.dtype)


class KVQuantizer:
    """Quantises what a cache keeps: K, V or an attention output.

    `mode` says which numbers share a scale: `per_tensor` all of them; `per_channel` those of one
    channel; `per_head` those of one head. Tensors are `[batch, heads, tokens, width]`, or
    `[batch, tokens, heads * width]`, which `per_head` needs `num_heads` to tell apart. 16 bits = off.
    Raises `ValueError` for an unknown mode or number of bits, or a width that heads do not divide.
    """

    def __init__(self, mode: str = "per_tensor", bits: int = 8, num_heads: int | None = None) -> None:
        if mode not in QUANTIZATION_MODES:
            raise ValueError(f"mode = {mode!r} is not allowed; allowed: {QUANTIZATION_MODES}")
        if bits not in QUANTIZATION_BITS:
            raise ValueError(f"bits = {bits!r} is not allowed; allowed: {QUANTIZATION_BITS}")
        self.mode, self.bits, self.num_heads = mode, bits, num_heads
        self.levels = 2 ** (bits - 1) - 1

    def quantize(self, x: Tensor) -> QuantizedTensor | Tensor:
        """Return `x` in fewer bits, or `x` itself at 16."""
        if self.bits == 16:
            return x
        scale = (self._max_abs(x).float() / self.levels).clamp_min(torch.finfo(torch.float32).tiny)
        values = (x.float() / scale).round_().clamp_(-self.levels, self.levels).to(torch.int8)
        stored = values if self.bits == 8 else _pack(values)
        return QuantizedTensor(stored, scale, x.shape, x.dtype, self.bits)

    def dequantize(self, stored: QuantizedTensor | Tensor) -> Tensor:
        """Return the tensor that `quantize` was given, within half a scale."""
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
            raise ValueError(f"num_heads = {self.num_heads!r} is not allowed; allowed: a divisor of {width}")
        channels = x.abs().amax((0, 1)).view(self.num_heads, -1)
        return channels.amax(1, keepdim=True).expand_as(channels).reshape(1, 1, width)


def _pack(values: Tensor) -> Tensor:
    """Pack 4-bit numbers (int8, -7 to 7), two to a byte; an odd last one gets a zero beside it."""
    flat = F.pad(values.flatten(), (0, values.numel() % 2)) + 8
    return (flat[::2] | (flat[1::2] << 4)).view(torch.uint8)


def _unpack(packed: Tensor, shape: torch.Size) -> Tensor:
    pairs = torch.stack((packed & 15, packed >> 4), dim=-1).view(torch.int8) - 8
    return pairs.flatten()[: shape.numel()].view(shape)
