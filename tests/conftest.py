"""Fixtures shared by the tests: a stock pipeline small enough to run hundreds of steps a second."""

from __future__ import annotations

import copy
import functools
import gc
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import tiers
import yaml

# torch and diffusers are imported where they are used: the process that only hands out tests needs neither,
# and its workers start when it has read this file.
if TYPE_CHECKING:
    import torch
    from diffusers import DiTPipeline

# The tiny model's operations are far too small to share out, and two processes of tests have two cores: one
# thread here (before torch is imported) and in the processes that tests start.
os.environ["OMP_NUM_THREADS"] = "1"
# Processes that tests start import this checkout, whichever one is installed, and what else was on the path,
# on which a worker of the tests finds this checkout already.
PLACES = (str(Path(__file__).parents[1]), *os.environ.get("PYTHONPATH", "").split(os.pathsep))
os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(filter(None, PLACES)))

gc.disable()  # while libraries are imported: what they define is no garbage

# What takes longest begins first, or one process would end long after the other.
LONGEST = (
    "bench_ray", "gpu_check", "shipped_metrics", "transformer_classes", "compile", "prompt_commands",
    "bench_methods", "cli_mistakes", "published", "random_architectures", "bench_cli", "bench_kill",
    "bench_measure", "bench_prompts", "survives", "waits", "config", "policy_cli", "bench_calibrate",
    "dynamic_shifting", "bench_asv", "bench_disk", "cache", "report_front", "tiny_pipelines",
    "beyond_attention", "bench_together", "report", "report_sentences", "bench_profile", "bench_tune",
    "base_install", "whole_graph", "help", "bench_store", "embedded", "bench_quality", "bench_memory",
    "bench_control", "bench_shards", "text_to_image", "flow_caches", "bench_samples", "bench_stack",
)  # fmt: skip
_ORDER = {f"test_{name}.py": place for place, name in enumerate(LONGEST)}


COLLECTED = pytest.StashKey[list[pytest.Item]]()  # all tests, those that are not asked for too


def pytest_addoption(parser: pytest.Parser) -> None:
    """Which of the slow tests are asked for."""
    parser.addoption("--part", default="1/1", help="K/N: of the slow tests, every N-th from the K-th on")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Run the longest files first, each file's tests in their order; of the slow ones the part asked for."""
    items.sort(key=lambda item: _ORDER.get(item.path.name, len(LONGEST)))
    tiers.mark(items)
    config.stash[COLLECTED] = [*items]
    slow = tiers.slow(items)
    others = {*slow} - tiers.part(slow, config.getoption("part"))
    config.hook.pytest_deselected(items=[item for item in items if item.nodeid in others])
    items[:] = [item for item in items if item.nodeid not in others]


def pytest_collection_finish() -> None:
    """Leave what was imported out of garbage collection: the harness collects before each timed pair, which
    would walk a million objects of modules each time."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)  # whatever a library has set
    gc.enable()
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="module")
def frozen() -> None:
    """What a file's first tests import, and the files before it left, is not walked in each collection."""
    gc.freeze()


def build_tiny_pipeline(layers: int = 6) -> DiTPipeline:
    """A stock DiTPipeline with seeded random weights: 6 layers, width 32, 16 tokens, 16 px images."""
    import torch

    pipe, generator = _built(layers)
    torch.set_rng_state(generator)  # as if it were made now
    memo: dict[int, Any] = {}
    for module in (pipe.transformer, pipe.vae):
        _copied(module, memo)
    return copy.deepcopy(pipe, memo)


def _copied(module: torch.nn.Module, memo: dict[int, Any]) -> torch.nn.Module:
    """What `copy.deepcopy` makes of a module, in a quarter of the time: most of what a module consists of are
    empty dictionaries and numbers."""
    copied: torch.nn.Module = type(module).__new__(type(module))
    memo[id(module)] = copied
    for name, value in vars(module).items():
        if name == "_modules":
            value = {key: None if part is None else _copied(part, memo) for key, part in value.items()}
        elif isinstance(value, (dict, set)) and not value:
            value = type(value)()
        elif value is not None and not isinstance(value, (bool, int, float, str)):
            value = copy.deepcopy(value, memo)
        vars(copied)[name] = value
    return copied


@functools.cache
def _built(layers: int) -> tuple[DiTPipeline, torch.Tensor]:
    """The pipeline, and the state of torch's generator once its weights are drawn."""
    import torch
    from diffusers import AutoencoderKL, DDIMScheduler, DiTPipeline, DiTTransformer2DModel

    torch.manual_seed(0)
    transformer = DiTTransformer2DModel(
        num_attention_heads=4,
        attention_head_dim=8,
        in_channels=4,
        out_channels=4,
        num_layers=layers,
        sample_size=8,
        num_embeds_ada_norm=1000,
    )
    vae = AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
        sample_size=16,
    )
    scheduler = DDIMScheduler(beta_start=1e-4, beta_end=0.02, beta_schedule="linear", clip_sample=False)
    # .eval(): a model built by hand is in training mode, where labels are dropped at random.
    pipe = DiTPipeline(transformer=transformer.eval(), vae=vae.eval(), scheduler=scheduler)
    pipe.set_progress_bar_config(disable=True)
    return pipe, torch.get_rng_state()


def generate(pipe: Any, labels: tuple[int, ...] = (1, 2), steps: int = 10, **options: Any) -> torch.Tensor:
    """The final latents of one `pipe(...)` call, seeded."""
    import torch

    seen: list[torch.Tensor] = []
    hook = pipe.vae.post_quant_conv.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    generator = torch.Generator().manual_seed(7)
    try:
        pipe(list(labels), generator=generator, num_inference_steps=steps, output_type="pt", **options)
    finally:
        hook.remove()
    return seen[0]


@contextmanager
def decisions_of(pipe: Any) -> Iterator[set[Any]]:
    """The distinct decisions that the layers get while it is open."""
    manager, seen = pipe._dqar.manager, set()
    decide = manager.begin_step

    def begin_step(*args: Any) -> bool:
        followed: bool = decide(*args)
        if followed:
            seen.add(manager.active.decision[:6])
        return followed

    manager.begin_step = begin_step
    try:
        yield seen
    finally:
        del manager.begin_step


@pytest.fixture
def pipe() -> DiTPipeline:
    """A fresh tiny pipeline."""
    return build_tiny_pipeline()


@pytest.fixture(scope="session")
def tiny_model_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The tiny pipeline saved as a stock model directory."""
    path = tmp_path_factory.mktemp("models") / "tiny"
    build_tiny_pipeline().save_pretrained(path)
    yield path


@pytest.fixture
def tiny_suite(tiny_model_dir: Path, tmp_path: Path) -> Path:
    """A suite of one configuration that takes no time but its process's start."""
    path = tmp_path / "tiny.yaml"
    content = {
        "title": "a test",
        "model": str(tiny_model_dir),
        "num_inference_steps": 6,
        "batch_size": 2,
        "timing": {"min_pairs": 2, "max_pairs": 2, "warmup": 0},
        "quality": {"n": 4, "converged_n": 2, "converged_steps": 12, "extractor": None},
        "memory": False,
        "runs": [{"name": "half", "method": "fewer_steps", "options": {"steps": 3}}],
    }
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> None:
    """The faulty methods, in this process and in the workers; one thread suits the tiny model."""
    import faulty_worker

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    faulty_worker.register()


@pytest.fixture(scope="session")
def preloaded() -> None:
    """What forks need is imported in this process."""
    import warm

    warm.preload()
    gc.freeze()


@pytest.fixture
def warm_processes(preloaded: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The harness's own processes start as forks of this one, without 7 CPU seconds of imports each."""
    import warm

    monkeypatch.setattr(subprocess, "Popen", warm.WarmPopen)


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plots are files without a drawing, here and in warm processes: for tests of what surrounds them."""
    from PIL import Image

    from bench.report.plots import style

    monkeypatch.setattr(style, "_drawn", lambda figure: Image.new("RGB", (8, 8)))
