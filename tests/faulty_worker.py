"""A worker whose registry also has methods that go wrong in the ways that real ones do."""

from __future__ import annotations

import itertools
import os
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil
import torch

from bench import methods
from bench.methods import Arm, Method
from bench.run import worker

WORKER = (sys.executable, __file__)  # as the runner takes it


@contextmanager
def raises(pipe: Any, options: dict[str, Any]) -> Iterator[Arm]:
    """Raise in the middle of the model."""

    def broken(*_: Any) -> None:
        raise RuntimeError("shapes do not match")

    hook = pipe.transformer.transformer_blocks[2].register_forward_pre_hook(broken)
    try:
        yield Arm()
    finally:
        hook.remove()


@contextmanager
def returns_nan(pipe: Any, options: dict[str, Any]) -> Iterator[Arm]:
    """Let NaN out of layer 3 from step 4 of 6 on."""
    calls = itertools.count()

    def poison(module: Any, args: Any, output: torch.Tensor) -> torch.Tensor:
        return output * (float("nan") if next(calls) % 6 >= 4 else 1.0)

    hook = pipe.transformer.transformer_blocks[3].register_forward_hook(poison)
    try:
        yield Arm()
    finally:
        hook.remove()


@contextmanager
def exhausts_memory(pipe: Any, options: dict[str, Any]) -> Iterator[Arm]:
    """Allow this process 2 GiB of addresses more than it has, and ask for 16."""
    size = psutil.Process().memory_info().vms
    resource.setrlimit(resource.RLIMIT_AS, (size + 2 * 2**30, resource.RLIM_INFINITY))
    torch.empty(16 * 2**30, dtype=torch.uint8)
    yield Arm()


@contextmanager
def hangs(pipe: Any, options: dict[str, Any]) -> Iterator[Arm]:
    """Never come back."""
    time.sleep(10_000)
    yield Arm()


@contextmanager
def crashes(pipe: Any, options: dict[str, Any]) -> Iterator[Arm]:
    """End the process without a word, as a fault in native code does."""
    getattr(os, "abort")()  # noqa: B009 (it never returns, so that no type would see the yield)
    yield Arm()


FAULTS = {
    function.__name__: Method(check=lambda options: None, apply=function)
    for function in (raises, returns_nan, exhausts_memory, hangs, crashes)
}


globals().update({f"method_{name}": method for name, method in FAULTS.items()})


def register() -> None:
    """Make the faulty methods known to the harness in this process."""
    methods.METHODS.update({name: f"faulty_worker:method_{name}" for name in FAULTS})


if __name__ == "__main__":
    register()
    worker.main()
