"""On a CUDA device: who makes the host wait, what is held there, and that NVML and torch agree.

`pytest -m cuda` runs these; without a device they are skipped.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import build_tiny_pipeline, generate
from denoising import GATES, PLANS, config, denoise, per_step
from diffusers import DiTPipeline
from torch import Tensor
from torch._dynamo.utils import counters

import dqar
from bench.machine import nvml
from bench.machine.device import device_type
from bench.measure import memory
from bench.pipeline import models
from bench.pipeline.session import Session
from bench.spec.run_spec import RunSpec
from bench.studies.profile import compare
from dqar import DQARConfig
from dqar.core import fused
from dqar.core.quantization import KVQuantizer, QuantizedTensor
from dqar.evaluation.profiling import GAPS
from dqar.integration import DQARDDIMSampler, DQARDiTWrapper, DQARDPMSolverSampler, SamplerConfig
from dqar.integration.whole_graph import GraphedSampler

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(device_type() != "cuda", reason="needs a CUDA device, and torch finds none"),
]
SYNC = "synchronizing CUDA operation"  # in torch's message on one
GIB = 2**30


@pytest.fixture
def pipe() -> DiTPipeline:
    """The tiny pipeline on the device."""
    return build_tiny_pipeline().to("cuda")


@contextmanager
def sync_mode(mode: str) -> Iterator[None]:
    """torch warns of, or refuses, whatever makes the host wait for the device."""
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode(mode)
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


def test_a_sync_is_seen() -> None:
    """The watch that the next tests rely on refuses a read of the device."""
    value = torch.ones(1, device="cuda")
    with pytest.raises(RuntimeError, match=SYNC), sync_mode("error"):
        value.item()
    assert torch.cuda.get_sync_debug_mode() == 0


def test_the_baselines_loop_never_waits(pipe: DiTPipeline) -> None:
    """Without DQAR the loop above makes no sync: what follows is DQAR's own."""
    denoise(pipe, lambda step: sync_mode("error"))


@pytest.mark.parametrize("change", PLANS.values(), ids=PLANS.keys())
def test_a_plan_never_makes_the_host_wait(pipe: DiTPipeline, change: dict[str, Any]) -> None:
    """Past the first step, at which a generation is recognised, the loop runs without a single sync."""
    dqar.enable(pipe, config(**change))
    denoise(pipe, lambda step: sync_mode("error") if step else nullcontext())
    assert dqar.summary(pipe).ratio > 0.2


@pytest.mark.parametrize("change", GATES.values(), ids=GATES.keys())
def test_a_gate_waits_once_a_step(pipe: DiTPipeline, change: dict[str, Any]) -> None:
    """Where data decide, each step makes at most one sync, and some step makes it."""
    dqar.enable(pipe, config(**change))
    with warnings.catch_warnings(record=True) as seen, sync_mode("warn"):
        warnings.simplefilter("always")
        counts = per_step(pipe, lambda: sum(SYNC in str(warning.message) for warning in seen))
    # The first step looks for the generation and its guidance halves.
    assert max(counts[1:]) == 1, counts


def test_disabled_is_bit_identical(pipe: DiTPipeline) -> None:
    """After `disable` the device makes the same bits as before `enable`."""
    before = generate(pipe)
    dqar.enable(pipe, config(max_age=2))
    assert not torch.equal(generate(pipe), before)
    dqar.disable(pipe)
    assert torch.equal(generate(pipe), before)


@pytest.mark.parametrize("guidance", [4.0, 1.0])
@pytest.mark.parametrize("kind", [DQARDDIMSampler, DQARDPMSolverSampler])
def test_a_whole_generation_is_one_graph(pipe: DiTPipeline, kind: Any, guidance: float) -> None:
    """Replays make the eager sampler's bits from other labels and noise, on skipped steps and int8 layers."""
    given = SamplerConfig(num_inference_steps=10, guidance_scale=guidance)
    chosen = DQARConfig.preset("maximum", model_steps=6)
    eager = kind(DQARDiTWrapper(pipe.transformer, chosen), pipe.scheduler, given)
    graphed = kind(
        DQARDiTWrapper(build_tiny_pipeline().to("cuda").transformer, chosen), pipe.scheduler, given
    )
    graph = GraphedSampler(graphed, 2)
    for labels, seed in (([1, 2], 7), ([3, 1], 8), ([1, 2], 7)):
        noise = [torch.Generator().manual_seed(seed) for _ in range(2)]
        assert torch.equal(graph.sample(labels, noise[0]), eager.sample(2, labels, noise[1]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("mode", ["per_tensor", "per_channel"])
def test_the_fused_kernel_makes_the_bits_of_plain_torch(mode: str, dtype: torch.dtype) -> None:
    """Compiled for the device the kernel is used, and rounds as a product and a cast do."""
    stored = KVQuantizer(mode, 8).quantize(torch.randn(3, 257, 1152, device="cuda").to(dtype))
    assert isinstance(stored, QuantizedTensor) and fused.is_fused(stored.values, stored.scale)
    assert torch.equal(stored.dequantize(), torch.mul(stored.values, stored.scale).to(dtype))
    assert fused.is_fused(stored.values, stored.scale)  # it did not fail


def held(
    pipe: Any, chosen: DQARConfig | None, labels: tuple[int, ...] = (1, 2), steps: int = 24
) -> list[int]:
    """Bytes that torch holds on the device after each call of the transformer in one generation."""
    if chosen is not None:
        dqar.enable(pipe, chosen)
    generate(pipe, labels, steps)  # what is allocated once and kept
    seen: list[int] = []
    hook = pipe.transformer.register_forward_hook(lambda *_: seen.append(torch.cuda.memory_allocated()))
    try:
        generate(pipe, labels, steps)
    finally:
        hook.remove()
    return seen


@pytest.mark.parametrize("change", PLANS.values(), ids=PLANS.keys())
def test_caches_do_not_grow(pipe: DiTPipeline, change: dict[str, Any]) -> None:
    """The second half of a generation holds no more than the first, nor a second generation more than one;
    nothing is left of either."""
    before = held(pipe, None)
    first = held(pipe, config(**change))
    second = held(pipe, config(**change))
    assert max(first) > max(before)
    assert max(first[12:]) <= max(first[:12])
    assert max(second) <= max(first)
    dqar.disable(pipe)
    assert held(pipe, None) == before


def test_int8_halves_what_the_device_holds() -> None:
    """By torch's allocator, not by what the cache reports of itself, int8 holds at most 0.51 of bf16."""
    # 16 rows x 64 tokens x 192 channels: below 1 MiB, where the allocator rounds to 512 bytes.
    spec = RunSpec(suite="t", name="t", method="baseline", model="embedded", dtype="bf16", batch_size=8)
    pipe, labels = models.load(spec), tuple(range(8))
    before = held(pipe, None, labels, 6)

    def cache_bytes(bits: int) -> int:
        chosen = config(num_layers=12, num_heads=6, quantization_bits=bits)
        return max(a - b for a, b in zip(held(pipe, chosen, labels, 6), before, strict=True))

    full, small = cache_bytes(16), cache_bytes(8)
    assert 0 < small <= 0.51 * full
    assert dqar.summary(pipe).cache_bytes == pytest.approx(small, rel=0.05)


def test_nvml_is_asked_about_the_device_of_torch() -> None:
    """Name and memory of the handle found by UUID are those of torch's current device."""
    described = nvml.describe()
    assert described is not None, "NVML does not answer"
    if "MIG" not in described["name"]:  # torch gives a slice the name of the whole
        assert described["name"] == torch.cuda.get_device_name()
    assert described["memory"] == pytest.approx(torch.cuda.mem_get_info()[1], rel=0.05)


def test_nvml_and_torch_agree_on_a_peak() -> None:
    """What NVML sees grow is what torch reserved, and at most the context and libraries beyond."""
    if nvml.foreign():
        pytest.skip("other processes use the device: their memory would be counted")
    spec = RunSpec(
        suite="t", name="t", method="baseline", model="embedded", dtype="bf16", batch_size=32,
        num_inference_steps=10,
    )  # fmt: skip
    peaks = memory.measure(spec)
    assert peaks.torch_allocated_peak and peaks.torch_reserved_peak
    assert peaks.nvml_device_peak and peaks.nvml_device_idle
    assert peaks.torch_allocated_peak <= peaks.torch_reserved_peak
    grown = peaks.nvml_device_peak - peaks.nvml_device_idle
    assert peaks.torch_reserved_peak <= grown <= peaks.torch_reserved_peak + 3 * GIB
    if peaks.nvml_process_peak is not None:  # containers often do not report it
        assert peaks.torch_reserved_peak <= peaks.nvml_process_peak


def graphs(model: Path | str = "embedded", **changes: Any) -> RunSpec:
    """A configuration over CUDA graphs."""
    fields: dict[str, Any] = {"suite": "t", "name": "t", "method": "baseline", "model": str(model)}
    shape = {"batch_size": 2, "num_inference_steps": 6, "compile": True, "cuda_graphs": True}
    return RunSpec(**fields | shape | changes)


def drift(a: Tensor, b: Tensor) -> float:
    """Relative L2 distance."""
    return float((a - b).norm() / b.norm())


def eagerly(spec: RunSpec) -> Session:
    return Session.open(spec.model_copy(update={"compile": False, "cuda_graphs": False}))


@pytest.fixture
def fresh_compiler() -> None:
    """Nothing compiled before counts."""
    torch._dynamo.reset()
    counters.clear()


def test_the_baseline_runs_as_cuda_graphs(fresh_compiler: None) -> None:
    """Captured, then replayed, it makes the eager images up to rounding, each time the same, and no part
    of it fell back."""
    session, samples = Session.open(graphs()), range(2)
    generations = [session.baseline(samples) for _ in range(4)]
    assert counters["inductor"]["cudagraph_skips"] == 0
    assert torch.equal(generations[-1].latents, generations[-2].latents)
    assert drift(generations[-1].latents, eagerly(graphs()).baseline(samples).latents) < 1e-2


def test_reuse_runs_as_cuda_graphs(fresh_compiler: None) -> None:
    """A plan's masks, each a graph, make the images that they make eagerly."""
    options = {"preset": "maximum", "use_layer_scheduling": False, "max_age": 2, "warmup_fraction": 0.0}
    spec, samples = graphs(method="dqar", options=options), range(2)
    session = Session.open(spec)
    generations = [session.candidate(samples) for _ in range(4)]
    assert session.reuse is not None and session.reuse.ratio > 0.2
    assert drift(generations[-1].latents, eagerly(spec).candidate(samples).latents) < 1e-2


def test_a_profile_of_the_device(tmp_path: Path) -> None:
    """Kernels have their parts, and they and the gaps are the generation: nothing counts twice."""
    options = {"preset": "maximum", "use_layer_scheduling": False, "max_age": 2, "warmup_fraction": 0.0}
    plain: dict[str, Any] = {"compile": False, "cuda_graphs": False}
    comparison = compare(graphs(method="dqar", options=options, **plain), tmp_path, repeats=2)
    for arm in (comparison.baseline, comparison.method):
        for group in ("attention", "mlp", "norm", "embeddings", "vae"):
            assert arm.seconds[group] > 0, group
        busy = sum(seconds for group, seconds in arm.seconds.items() if group != GAPS)
        assert busy <= 1.05 * arm.wall
        assert sum(arm.seconds.values()) == pytest.approx(arm.wall, rel=0.05)
        assert arm.seconds["rest"] < 0.3 * busy  # nearly all kernels were traced to a part
    assert comparison.method.seconds["cache"] > 0 == comparison.baseline.seconds["cache"]
    assert comparison.method.seconds["attention"] < comparison.baseline.seconds["attention"]
