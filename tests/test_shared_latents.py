"""The converged trajectory is solved once for all configurations of a cluster, however late one is added."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from light_actor import made_up
from safetensors.torch import load

from bench.measure import converged
from bench.run.actor import SOLVED, Actor, Shard, ShardTask
from bench.run.quality_run import QualityRun
from bench.run.runner import Runner
from bench.spec.run_spec import RunSpec


def quality_run(model: Path, results: Path, name: str, steps: int) -> QualityRun:
    """A configuration that was timed and lacks its quality."""
    settings: dict[str, Any] = {
        "suite": "shared", "name": name, "method": "fewer_steps", "options": {"steps": steps},
        "model": str(model), "num_inference_steps": 4, "batch_size": 2, "memory": False,
        "quality": {"n": 6, "converged_n": 3, "converged_steps": 8, "extractor": None, "worst": 1},
    }  # fmt: skip
    job = Runner(results=results).job(RunSpec(**settings))
    return QualityRun([job], {name: job.record(status="ok", timing=made_up())}, 10.0, 3)


def made(task: ShardTask) -> list[Shard]:
    shards = Actor().shards(task.model_dump_json())
    assert [shard.reason for shard in shards] == [None] * len(shards)
    return shards


def test_a_configuration_that_is_added_later_solves_nothing(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The baseline's shards bring the converged latents of their images; a later task gets those of its own,
    and its drift from them is to the last bit that of one that solves them itself."""
    first = quality_run(tiny_model_dir, tmp_path, "first", 2)
    for task in first.tasks(None):
        assert task.baseline and task.solved is None
        first.keep(task, made(task))
    (record,) = first.finished()
    assert record.quality and record.quality.n_converged == 3
    later = quality_run(tiny_model_dir, tmp_path, "later", 3)
    tasks = later.tasks(None)
    assert [task.baseline for task in tasks] == [False] * len(tasks)
    lengths = [len(load(task.solved)[SOLVED]) for task in tasks if task.solved]
    assert sum(lengths) == 3 and tasks[-1].solved is None
    (alone,) = made(tasks[0].model_copy(update={"solved": None}))
    monkeypatch.setattr(converged, "_solve", None)
    (shared,) = made(tasks[0])
    assert alone.tensors and shared.tensors
    drifts = [load(each)["drift_converged"] for each in (alone.tensors, shared.tensors)]
    assert len(drifts[0]) and torch.equal(*drifts)
