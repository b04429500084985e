"""The profile: what is summed up, that it covers a generation, and the command as a user runs it."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import generate
from diffusers import DiTPipeline
from torch.autograd import DeviceType
from torch.autograd.profiler_util import FunctionEvent
from typer.testing import CliRunner

import dqar
from bench.cli.main import app
from bench.spec.run_spec import RunSpec
from bench.studies.profile import TITLES, Arm, compare, page
from dqar import DQARConfig
from dqar.evaluation.profiling import GAPS, DQARProfiler, Profile, device_seconds
from dqar.evaluation.ranges import GROUPS, REST, WHOLE
from dqar.integration import DQARManager

# Every part of the runtime has something to do.
ALL_PARTS: dict[str, Any] = {
    "targets": "both", "forecast_order": 1, "max_age": 2, "guidance_interval": 2, "warmup_steps": 1,
    "warmup_fraction": 0.0, "snr_low": 0.0, "entropy_threshold": 100.0,
}  # fmt: skip


def spec(model: Path, **changes: Any) -> RunSpec:
    given = {"suite": "tiny", "name": "run", "method": "dqar", "options": ALL_PARTS, "model": str(model)}
    return RunSpec(**given | {"num_inference_steps": 6, "batch_size": 2} | changes)


@pytest.mark.slow
def test_the_command_shows_both_arms(tmp_path: Path) -> None:
    """On the embedded model it prints and writes a table whose parts sum to all, and two traces."""
    arguments = ["profile", "smoke", "maximum-age2", "--steps", "4", "--repeats", "1"]
    done = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    text = (tmp_path / "README.md").read_text()
    assert text.strip() in done.output and "maximum-age2" in text and str(tmp_path) not in text
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if "|" in line][2:]
    *parts, whole = rows
    for column in (1, 3, 5):
        assert sum(float(row[column]) for row in parts) == pytest.approx(float(whole[column]), abs=0.1)
    assert {"attention", TITLES["cache"], "scheduler step", "decoder"} <= {row[0] for row in parts}
    for name in ("trace-baseline", "trace"):
        events = json.loads(gzip.decompress((tmp_path / f"{name}.json.gz").read_bytes()))["traceEvents"]
        assert any(event.get("name") == "dqar::attention" for event in events)


def test_an_unknown_run_is_one_line() -> None:
    """A name that the suite lacks is bad input that lists the suite's runs."""
    done = CliRunner().invoke(app, ["profile", "smoke", "none"])
    assert done.exit_code == 2 and len(done.output.splitlines()) == 1
    assert "'none' is not a run; allowed: baseline" in done.output


def test_each_part_of_the_runtime_has_its_row(tiny_model_dir: Path, tmp_path: Path) -> None:
    """Gate, forecast and cache take time by the method and none by the baseline; the page has them."""
    comparison = compare(spec(tiny_model_dir), tmp_path, repeats=1)
    for group in ("gate", "forecast", "cache"):
        assert comparison.method.seconds[group] > 0 == comparison.baseline.seconds[group]
        assert TITLES[group] in page(comparison).markdown


def test_the_parts_are_the_whole_generation(pipe: DiTPipeline) -> None:
    """No second is lost or counted twice: with all parts at work their sum is the time that passed."""
    dqar.enable(pipe, DQARConfig(num_layers=6, num_heads=4, **ALL_PARTS))
    with DQARProfiler(pipe) as profiler:
        generate(pipe)
    result = profiler.result
    assert result is not None and result.seconds.keys() == set(GROUPS)
    (root,) = [event for event in profiler._events() if event.name == f"dqar::{REST}"]
    assert result.total == pytest.approx(root.cpu_time_total / 1e6, rel=1e-6)
    assert result.seconds[REST] < 0.5 * result.total


def test_nothing_is_left_behind(pipe: DiTPipeline) -> None:
    """After a profile, also one that was cut short by an error, every hook and method is as it was."""
    before = generate(pipe)
    with pytest.raises(IndexError), DQARProfiler(pipe):
        generate(pipe, labels=(5000,))  # no such class: fails within an embedding
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in pipe.transformer.modules())
    assert "step" not in vars(pipe.scheduler) and "decode" not in vars(pipe.vae)
    assert not hasattr(DQARManager.begin_step, "__wrapped__")
    assert torch.equal(generate(pipe), before)


@pytest.mark.slow
def test_a_compiled_transformer_counts_as_a_whole(pipe: DiTPipeline) -> None:
    """Its modules run no hooks: one part has it all, and the solver and the decoder are distinguished."""
    torch._dynamo.reset()
    pipe.transformer = torch.compile(pipe.transformer, fullgraph=True, backend="eager")
    generate(pipe, steps=3)
    with DQARProfiler(pipe) as profiler:
        generate(pipe, steps=3)
    assert profiler.result is not None
    seconds = profiler.result.seconds
    assert min(seconds[group] for group in (WHOLE, "scheduler", "vae", REST)) > 0
    assert seconds["attention"] == seconds["mlp"] == 0


def event(name: str, start: float, end: float, parent: FunctionEvent | None = None, **more: Any) -> Any:
    """An event as torch's profiler has it, in microseconds."""
    made = FunctionEvent(0, name, 0, start, end, use_device="cuda", **more)
    if parent is not None:
        made.set_cpu_parent(parent)
        parent.append_cpu_child(made)
    return made


def test_kernels_belong_to_the_range_that_launched_them() -> None:
    """On a device a part has its kernels' time, however late they run; overlap, copies that nothing launched
    and the shadows of ranges are not counted twice; the rest of the wall clock is the gaps."""
    root = event(f"dqar::{REST}", 0, 100)
    attention = event("dqar::attention", 10, 20, root)
    product = event("aten::mm", 12, 15, attention)
    product.append_kernel("gemm", 0, 30.0)
    attention.append_kernel("dqar::attention", 0, 500.0)  # its shadow
    cuda: dict[str, Any] = {"device_type": DeviceType.CUDA}
    kernels = [event("gemm", 50, 80, **cuda), event("Memcpy HtoD", 70, 90, **cuda)]
    shadow = event("dqar::attention", 50, 550, is_user_annotation=True, **cuda)
    seconds = device_seconds([root, attention, product, *kernels, shadow], wall=100e-6)
    assert seconds["attention"] == pytest.approx(30e-6)
    assert seconds[REST] == pytest.approx(10e-6)  # 40 busy, of which 30 have an owner
    assert seconds[GAPS] == pytest.approx(60e-6)
    assert sum(seconds.values()) == pytest.approx(100e-6)


def test_gaps_are_those_without_a_profiler() -> None:
    """The profiler slows the host down, not the kernels: the unwatched generation's time counts."""
    watched = Profile(total=3.0, seconds={"attention": 1.0, GAPS: 2.0}, peak_memory=0)
    assert Arm(1.5, [watched]).seconds == {"attention": 1.0, GAPS: 0.5}
