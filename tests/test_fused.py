"""The fused kernel: through Triton's interpreter it makes plain torch's bits, and one place decides on it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from types import ModuleType

import pytest
import torch

import dqar.core
from dqar.core import fused
from dqar.core.quantization import KVQuantizer, QuantizedTensor

SHAPES = [(2, 5, 24), (1, 1, 1), (3, 4, 700)]


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The kernels as Triton's interpreter runs them, on the CPU; other tests get compiled ones."""
    pytest.importorskip("triton")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    _forget()
    yield importlib.import_module("dqar.core.triton_kernels")
    _forget()


def _forget() -> None:
    sys.modules.pop("dqar.core.triton_kernels", None)
    vars(dqar.core).pop("triton_kernels", None)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("mode", ["per_tensor", "per_channel", "per_head"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_kernel_makes_the_bits_of_plain_torch(
    kernels: ModuleType, shape: tuple[int, ...], mode: str, dtype: torch.dtype
) -> None:
    """At sizes within one block and across several, with a scale for all and one for each channel. In bf16
    the interpreter cuts off where a device rounds: there within one unit of the last place."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    stored = KVQuantizer(mode, 8, num_heads=1).quantize(x)
    assert isinstance(stored, QuantizedTensor) and fused.fits(stored.values, stored.scale)
    expected = torch.mul(stored.values, stored.scale).to(dtype)
    computed = kernels.dequantize(stored.values, stored.scale, dtype)
    last_place = 2**-7 if dtype is torch.bfloat16 else 0.0
    torch.testing.assert_close(computed, expected, rtol=last_place, atol=0.0)


@pytest.mark.parametrize("mode", ["per_channel", "per_head"])
def test_scales_of_other_dimensions_are_plain_torchs(mode: str) -> None:
    """Of [batch, heads, tokens, width] scales are by head too: as many as the width, they are another's."""
    stored = KVQuantizer(mode, 8).quantize(torch.randn(2, 8, 5, 8))
    assert isinstance(stored, QuantizedTensor) and stored.scale.numel() > 1
    assert not fused.fits(stored.values, stored.scale)


def test_off_cuda_the_kernel_is_not_even_imported() -> None:
    """On a CPU plain torch computes, whether Triton is installed or not."""
    _forget()
    values, scale = torch.ones(2, 4, dtype=torch.int8), torch.full((1,), 0.5)
    assert not fused.is_fused(values, scale)
    assert torch.equal(fused.dequantize(values, scale, torch.float16), torch.full((2, 4), 0.5).half())
    assert "dqar.core.triton_kernels" not in sys.modules


def test_a_kernel_that_fails_is_given_up_with_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Triton cannot compile, one line says so and plain torch computes, then and from then on."""
    failed: list[str] = []
    monkeypatch.setattr(fused, "_failed", failed)
    monkeypatch.setattr(fused, "is_fused", lambda values, scale: not failed)
    _forget()
    monkeypatch.setitem(sys.modules, "dqar.core.triton_kernels", None)  # its import fails
    values, scale = torch.ones(2, 4, dtype=torch.int8), torch.full((1,), 0.5)
    with pytest.warns(UserWarning, match="Triton kernel cannot run"):
        first = fused.dequantize(values, scale, torch.float32)
    assert torch.equal(first, fused.dequantize(values, scale, torch.float32)) and len(failed) == 1
    assert torch.equal(first, torch.full((2, 4), 0.5))
