"""The one place that decides whether a fused kernel computes: Triton on CUDA, else plain torch.

Dequantisation in plain torch is a product in float32 and a cast, 13 bytes of traffic a number; fused it is 3.
Both round alike, so that the bits are the same.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

from dqar.utils.warn import warn


def dequantize(values: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """Multiply 8-bit numbers by their scales.

    Args:
        values: int8, of any shape.
        scale: float32, broadcastable to the shape of `values`.
        dtype: Of the result.

    Returns:
        A new tensor of the shape of `values`.
    """
    if is_fused(values, scale):
        try:
            from dqar.core import triton_kernels

            return triton_kernels.dequantize(values, scale, dtype)
        except Exception as error:  # no compiler on the machine, or a device that Triton does not know
            _give_up(f"{type(error).__name__}: {error}")
    return torch.mul(values, scale).to(dtype)


def is_fused(values: Tensor, scale: Tensor) -> bool:
    """Whether the Triton kernel computes a product.

    Args:
        values: int8.
        scale: One scale for all numbers, or one for each of the last dimension.

    Returns:
        False off CUDA, without Triton, within torch.compile (it fuses by itself), for other scales, and once
        the kernel has failed.
    """
    if type(values) is not Tensor or not values.is_cuda or torch.compiler.is_compiling():
        return False
    return not _failed and _has_triton() and values.is_contiguous() and fits(values, scale)


def fits(values: Tensor, scale: Tensor) -> bool:
    """Whether the kernel's scales are these.

    Args:
        values: int8.
        scale: Broadcastable to the shape of `values`.

    Returns:
        True for one scale, or one for each of the last dimension and no other.
    """
    return scale.numel() == 1 or (scale.numel() == scale.shape[-1] == values.shape[-1])


@cache
def _has_triton() -> bool:
    return find_spec("triton") is not None


_failed: list[str] = []


def _give_up(why: str) -> None:
    _failed.append(why)
    warn(f"the Triton kernel cannot run ({' '.join(why.split())[:200]}): plain torch dequantises instead")
