"""Kernels in Triton; only `dqar.core.fused` imports this, where they can run."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 1024  # numbers of a program


@triton.jit  # type: ignore[untyped-decorator]
def _dequantize(values: Any, scale: Any, out: Any, count: Any, width: Any, block: tl.constexpr) -> None:
    """out = values * scale[i mod width]."""
    at = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    inside = at < count
    factor = tl.load(scale + at % width, mask=inside, other=0.0)
    product = tl.load(values + at, mask=inside, other=0).to(tl.float32) * factor
    tl.store(out + at, product.to(out.dtype.element_ty), mask=inside)


def dequantize(values: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """Multiply 8-bit numbers by their scales in one pass.

    Args:
        values: int8, contiguous.
        scale: float32, of one number or as many as the last dimension of `values` has.
        dtype: Of the result.

    Returns:
        A new tensor of the shape of `values`.
    """
    out = torch.empty(values.shape, dtype=dtype, device=values.device)
    count = values.numel()
    grid = (triton.cdiv(count, BLOCK),)
    _dequantize[grid](values, scale.contiguous(), out, count, scale.numel(), BLOCK)
    return out
