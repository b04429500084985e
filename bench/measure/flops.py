"""Counted FLOPs of the pipeline, and the speedup that they allow a method."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch._ops import HigherOrderOperator
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from bench.machine import nvml
from bench.machine.device import device_type
from bench.methods import get
from bench.pipeline.session import Session, stopwatch
from bench.record import Limits, Timing
from dqar.integration.adapter import Adapter, unwrapped

# Dense bf16/fp16 peak in FLOP/s by the vendor's data sheets; the first whose words a name has counts.
PEAKS = {
    "H100 PCIe": 756e12, "H100 NVL": 835e12, "H200 NVL": 835e12, "H200": 989e12, "H100": 989e12,
    "A100": 312e12, "L40S": 362e12,
}  # fmt: skip

REPEATS = 24  # matrix products, of which the first few warm up


@dataclass(frozen=True)
class Cost:
    """FLOPs (two a multiply-add) of the parts of one baseline generation."""

    forward: float  # a denoising step: the transformer's calls, one or one a branch of guidance
    attention: float  # of which the blocks' self- or joint attention: projections, core and output
    mlp: float  # of which the blocks' MLPs
    rest: float  # the text encoders and the decoder

    def generation(self, steps: int) -> float:
        """FLOPs of a generation.

        Args:
            steps: Its denoising steps.

        Returns:
            Of the batch that was counted.
        """
        return steps * self.forward + self.rest


def count(session: Session) -> Cost:
    """Count a baseline generation of one step of a batch, by the part of the pipeline that computes.

    Args:
        session: The configuration; its method does not count.

    Returns:
        FLOPs of the batch, whether the transformer is compiled or not.
    """
    pipe, eager = session.pipe, unwrapped(session.pipe.transformer)
    arguments = session.arguments(range(session.spec.batch_size)) | {"num_inference_steps": 1}
    compiled, pipe.transformer = pipe.transformer, eager  # it can be counted
    try:
        # Blocks that are compiled one by one are part of the model that is counted.
        with torch.compiler.set_stance("force_eager"), counting() as counter:
            pipe(**arguments)
    finally:
        pipe.transformer = compiled
    root, counts = type(eager).__name__, counter.get_flop_counts()
    flops = {name: sum(ops.values()) for name, ops in counts.items()}
    adapter, names = Adapter(eager), {module: name for name, module in eager.named_modules()}
    attentions = {f"{root}.{names[module]}" for module in adapter.attentions}
    mlps = {f"{root}.{names[module]}" for each in adapter.mlps for module in each}
    forward = flops[root]
    return Cost(
        forward=forward,
        attention=sum(flops.get(name, 0) for name in attentions),
        mlp=sum(flops.get(name, 0) for name in mlps),
        rest=counter.get_total_flops() - forward,
    )


def candidate(session: Session) -> float:
    """FLOPs of one generation of a batch by the method, whatever it reuses, forecasts or leaves out.

    Where the images decide what it reuses, the whole batch is made once more; else one image will do,
    for products grow with the rows.

    Args:
        session: The configuration.

    Returns:
        FLOPs of the whole batch, text encoders and decoder included.
    """
    session, spec = copy(session), session.spec  # the reuse that is reported stays that of timed generations
    samples = spec.batch_size if get(spec.method).by_data(spec.options) else 1
    with torch.compiler.set_stance("force_eager"), counting_total() as total:
        session.candidate(range(samples))
    return float(total.flops) * spec.batch_size / samples


@contextmanager
def counting() -> Iterator[FlopCounterMode]:
    """Count the FLOPs of what runs, by module: of matrix products and convolutions, two a multiply-add.

    Yields:
        The counter; read it once the body has ended.
    """
    # The math backend, for the counter knows its products on every device.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        yield counter


class Total(TorchDispatchMode):
    """FlopCounterMode's total without its parts, which take five times as long as a small model itself."""

    supports_higher_order_operators = True

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation, and add its FLOPs where it has any."""
        formula = flop_registry.get(getattr(func, "_overloadpacket", func))
        if formula is None and isinstance(func, HigherOrderOperator):
            return NotImplemented  # what it runs would not be counted
        result = func(*args, **(kwargs or {}))
        if formula is not None:
            self.flops += formula(*args, **(kwargs or {}), out_val=result)
        return result


@contextmanager
def counting_total() -> Iterator[Total]:
    """Count the FLOPs of what runs as one number, as `counting` counts them.

    Not in inference mode, in which an operation that consists of others is none of them.

    Yields:
        The counter; `flops` grows as the body runs.
    """
    with sdpa_kernel(SDPBackend.MATH), Total() as total:
        yield total


def limits(session: Session, cost: Cost, timing: Timing | None) -> Limits:
    """What the FLOPs of baseline and candidate allow, and how much of that gain was realised.

    Args:
        session: The configuration.
        cost: Of the baseline, as `count` returned it.
        timing: Of the same configuration; None: not timed, hence no rate and no utilisation.

    Returns:
        The record's part.
    """
    steps = session.spec.num_inference_steps
    whole = cost.generation(steps)
    share = steps * cost.attention / whole
    limit = whole / candidate(session)
    if timing is None:
        return Limits(flops_generation=whole, attention_share=share, speedup_limit=limit)
    rate = whole / timing.baseline_s.median
    peak, source = peak_flops(session.pipe.dtype)
    if rate > peak:  # a measured peak is a lower bound of the true one, and so is this
        peak, source = rate, f"the baseline itself, above the {source}"
    return Limits(
        flops_generation=whole,
        attention_share=share,
        speedup_limit=limit,
        realised=(timing.speedup.median - 1) / (limit - 1) if limit > 1 + 1e-9 else None,
        flops_per_second=rate,
        mfu=rate / peak,
        peak=peak,
        peak_source=source,
    )


def data_sheet_peak() -> float | None:
    """The GPU's dense half-precision peak by its vendor.

    Returns:
        FLOP/s; None where it is not known, as of a MIG slice.
    """
    name: Any = (nvml.describe() or {}).get("name") or ""
    if "MIG" in name:
        return None
    return next((peak for part, peak in PEAKS.items() if part in name), None)


def peak_flops(dtype: torch.dtype) -> tuple[float, str]:
    """The device's dense peak: the data sheet's for half precision on a known GPU, else a matrix product's
    here.

    Args:
        dtype: What the model computes in.

    Returns:
        FLOP/s, and the name of its source.
    """
    known = data_sheet_peak()
    if known and dtype != torch.float32:
        return known, "data sheet"
    size = 8192 if device_type() == "cuda" else 1024
    return matmul_flops(size, dtype), f"best of {REPEATS} matrix products of {size} in {dtype}, measured"


@cache
def matmul_flops(size: int, dtype: torch.dtype) -> float:
    """The fastest of REPEATS square matrix products, found once a process.

    Args:
        size: Rows and columns.
        dtype: Of the matrices.

    Returns:
        FLOP/s, two a multiply-add.
    """
    where = device_type()
    a, b = (torch.randn(size, size, device=where, dtype=dtype) for _ in range(2))
    seconds: list[float] = []
    for _ in range(REPEATS):
        with stopwatch() as took:
            torch.mm(a, b)
        seconds += took
    return 2 * size**3 / min(seconds)
