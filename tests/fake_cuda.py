"""A CUDA device that is not there: its tensors have shapes and a device, and no numbers.

torch computes on them as its compiler does (FakeTensorMode), and refuses what mixes devices, or needs a
number to go on. So a loop can be watched for waits on a machine without a GPU: the real scheduler, the real
model and the real runtime run, only the arithmetic does not.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class FakeCuda(TorchDispatchMode):
    """What runs on the device, or is brought there, is fake; the CPU's part stays real.

    `waits` collects what makes the host wait, as `torch.cuda.set_sync_debug_mode` sees it: copies from one
    device to the other, but for non-blocking ones to the device, and a tensor read as a list. A number
    read in another way, or a shape that depends on numbers, is an error.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.fake = FakeTensorMode(allow_non_fake_inputs=True)
        self.waits: list[str] = []
        self.on_host = self.crossings = 0  # operations on the host; copies from one device to the other

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = _tensors((args, kwargs))
        wanted = torch.device(kwargs.get("device") or "cpu").type
        if wanted != "cuda" and not any(isinstance(t, FakeTensor) for t in given):
            self.on_host += 1
            return func(*args, **kwargs)
        with self.fake:
            result = func(*args, **kwargs)
        ends = {tensor.device.type for tensor in [*given, *_tensors(result)]}
        free = kwargs.get("non_blocking") and result.device.type == "cuda"
        if "copy" in str(func) and len(ends) > 1:
            self.crossings += 1
            self.waits += [] if free else [str(func)]
        return result

    def read(self, tensor: Tensor) -> list[float]:
        """What `tolist` finds, after a wait: numbers that are no timesteps, and not nothing."""
        self.waits.append("tolist")
        return [0.3] * tensor.numel()


def _tensors(values: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


@contextmanager
def fake_cuda() -> Iterator[FakeCuda]:
    """A machine with a CUDA device, as far as shapes go."""
    torch._C._ensureCUDADeviceGuardSet()
    device = FakeCuda()
    there = torch.cuda.is_available()  # else torch, before all others, looks for a driver
    with (
        nullcontext() if there else mock.patch("torch.cuda._lazy_init"),
        mock.patch.object(Tensor, "pin_memory", lambda tensor: tensor),
        mock.patch.object(FakeTensor, "tolist", lambda tensor: device.read(tensor)),
        device,
    ):
        yield device


def to_device(module: nn.Module) -> None:
    """Put fakes of its parameters and buffers in their place, which `module.to` cannot."""
    for part in module.modules():
        for name, value in part._parameters.items():
            if value is not None:
                part._parameters[name] = nn.Parameter(torch.empty_like(value, device="cuda"), False)
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = torch.empty_like(buffer, device="cuda")
