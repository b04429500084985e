"""Which shards are to be made, and where a command runs: no cluster is needed to know."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from bench.cli.main import app
from bench.cli.placement import SERVED_BY, placement
from bench.errors import BadInput
from bench.run.shard_plan import Part, batches_of, name_of, parts, read, usable
from bench.store.tensors import Cache
from bench.studies.scaling.plan import Costs, Plan, simulate


def test_only_what_is_missing_is_made() -> None:
    """Every image of every configuration is in exactly one task or shard; who lacks the same images shares a
    task, and none is larger than asked."""
    there = {"": [range(0, 20)], "one": [range(0, 6)], "three": []}
    planned = list(parts(there, n=17, batch=2, size=2))
    assert planned[:2] == [Part(("three",), range(0, 4)), Part(("three",), range(4, 6))]
    assert planned[2:] == [Part(("one", "three"), range(i, min(i + 4, 17))) for i in (6, 10, 14)]
    assert not list(parts({"one": [range(0, 8), range(8, 17)]}, n=17, batch=2, size=2))


def test_shards_that_cannot_be_joined_are_made_again(tmp_path: Path) -> None:
    """One that is damaged, that overlaps another, or that ends within a batch is none."""
    cache = Cache(tmp_path, {})
    for start, stop in ((0, 4), (2, 6), (4, 7), (8, 10), (10, 11)):
        cache.write(name_of("key", range(start, stop)), {"drift": torch.arange(start, stop)})
    assert usable(cache, "key", n=11, batch=2) == [range(0, 4), range(8, 10), range(10, 11)]
    assert read(cache, "key", n=11, batch=2) == []
    cache.write(name_of("key", range(4, 8)), {"drift": torch.arange(4, 8)})
    whole = read(cache, "key", n=11, batch=2)
    assert torch.cat([part["drift"] for part in whole]).tolist() == list(range(11))
    path = tmp_path / f"{name_of('key', range(4, 8))}.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    assert range(4, 8) not in usable(cache, "key", n=11, batch=2)


def test_a_task_takes_a_minute() -> None:
    """As many batches as fit; at least one, at most what memory holds, and something for every worker; where
    nothing is known of the time, a sixteenth of a worker's share, so that a stopped run loses no more."""
    assert batches_of(7.0, batch=32, batches=1000, workers=4) == 8
    assert batches_of(400.0, batch=32, batches=1000, workers=4) == 1
    assert batches_of(0.01, batch=32, batches=1000, workers=4) == 32
    assert batches_of(7.0, batch=32, batches=8, workers=4) == 2
    assert batches_of(0.0, batch=4, batches=253, workers=2) == 8


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["--on", "mars"], "--on: 'mars' is not allowed; allowed: local, ray"),
        (["--workers", "2"], "--workers: needs --on ray"),
        (["--device-kind", "x"], "--device-kind: needs --on ray"),
    ],
)
def test_a_place_that_is_none_is_refused(given: list[str], says: str) -> None:
    """In one line, before anything runs."""
    done = CliRunner().invoke(app, ["run", "smoke", *given])
    assert done.exit_code == 2 and says in done.output and done.output.count("\n") == 1


@pytest.mark.parametrize("search", ["calibrate", "tune", "timesteps", "masks"])
def test_every_search_takes_a_place(search: str, tmp_path: Path) -> None:
    """Each command that searches runs its trials where `--on` says, and refuses what is none in one line."""
    given = [] if search == "tune" else ["--out", str(tmp_path / "out")]
    more = ["--method", "fewer_steps"] if search == "tune" else []
    done = CliRunner().invoke(app, [search, *given, *more, "--workers", "2"])
    assert done.exit_code == 2 and "--workers: needs --on ray" in done.output
    assert done.output.count("\n") == 1


@pytest.mark.parametrize(
    ("address", "lacking", "says"),
    [
        ("127.0.0.1:6379", (), "--dashboard: RAY_ADDRESS"),
        ("", SERVED_BY, "--dashboard: aiohttp is not installed"),
        ("", SERVED_BY[1:], "--dashboard: aiohttp_cors is not installed"),
    ],
)
def test_a_dashboard_that_cannot_be_shown_is_refused(
    address: str, lacking: Sequence[str], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one line: another cluster has its own, and the plain `ray` has no server for it, even where
    something else has installed aiohttp."""
    monkeypatch.setenv("RAY_ADDRESS", address)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in lacking else True)
    with pytest.raises(BadInput, match=says), placement("ray", dashboard=True):
        pass


def test_scaling_on_paper() -> None:
    """The original machine takes its 380 hours and the baseline's, a run cannot beat its tasks, failures only
    cost time, and what they cost is what is made again."""
    plan = Plan(Costs(task=0.01, start=60))
    assert plan.seconds(1) / 3600 == pytest.approx(380 * 11 / 10, rel=0.01)
    assert plan.seconds(512) > plan.task_s and plan.efficiency(512) < plan.efficiency(8) <= 1
    undisturbed, rough = simulate(plan, 64, 1e-9), simulate(plan, 64)
    assert undisturbed.failures == undisturbed.again == 0
    assert undisturbed.seconds == pytest.approx(plan.seconds(64), rel=0.01)
    assert rough.seconds > undisturbed.seconds and 0 < rough.again <= 8 * rough.failures
