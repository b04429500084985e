"""Images that a run keeps where `--keep-images` says, on this machine and on a worker of a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bench.errors import BadInput
from bench.run.actor import Actor, ShardTask
from bench.run.suite_run import SuiteRun
from bench.spec.run_spec import RunSpec
from bench.store import keys


def spec(model: Path, name: str = "half", **changes: Any) -> RunSpec:
    settings: dict[str, Any] = {
        "suite": "kept", "name": name, "method": "fewer_steps", "options": {"steps": 2}, "model": str(model),
        "num_inference_steps": 4, "batch_size": 2, "memory": False, "seed": 40,
        "timing": {"min_pairs": 2, "max_pairs": 2, "warmup": 0},
        "quality": {"n": 5, "converged_n": 0, "extractor": None, "worst": 1},
    }  # fmt: skip
    return RunSpec(**settings | changes)


def shards(chosen: RunSpec, keep: Path | None) -> None:
    """Let a worker make shards of images 2 to 4."""
    given = {chosen.name: keys.inputs(chosen)}
    task = ShardTask(
        specs=[chosen], inputs=given, start=2, stop=5, baseline=True, cache=None, keep_images=keep
    )
    made = Actor().shards(task.model_dump_json())
    assert [shard.reason for shard in made] == [None, None]


def names(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file())


def test_images_are_kept_where_they_are_asked_for(
    tiny_model_dir: Path, tmp_path: Path, warm_processes: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is a PNG file named by suite, configuration and seed: of a run on this machine all, those that
    timing made included; of a worker its task's, the same ones. A finished run's are written from its cache;
    without the option there is none."""
    monkeypatch.chdir(tmp_path)
    chosen, results = spec(tiny_model_dir), tmp_path / "results"
    run = SuiteRun.of([chosen], results)
    assert run.run()[0].status == "ok"
    shards(chosen, None)
    assert not [name for name in names(tmp_path) if name.endswith(".png") and "results" not in name]
    run.run(Path("here"))
    assert names(tmp_path / "here") == [f"kept/half/{seed}.png" for seed in range(40, 45)]
    shards(chosen, tmp_path / "worker")
    assert names(tmp_path / "worker") == [f"kept/half/{seed}.png" for seed in (42, 43, 44)]
    for name in names(tmp_path / "worker"):
        here, there = (np.asarray(Image.open(tmp_path / place / name)) for place in ("here", "worker"))
        assert here.shape[2] == 3 and here.std() > 0 and np.abs(here.astype(int) - there).max() <= 1


def test_a_directory_that_cannot_be_written_is_refused_at_once(tiny_model_dir: Path, tmp_path: Path) -> None:
    """In one line, before anything is measured."""
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match="cannot be written"):
        SuiteRun.of([spec(tiny_model_dir)], tmp_path / "results").run(tmp_path / "file")
    assert not list((tmp_path / "results").rglob("*.json"))
