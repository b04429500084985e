"""A suite on a Ray cluster of three nodes on this machine: records, faults, and what is refused."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

# As `bench.run.nodes.connect` does, before Ray is imported.
os.environ |= {
    "RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_worker_niceness": "0",
}  # fmt: skip
pytest.importorskip("ray")

import ray
from light_actor import WarmWorker, light, squares
from ray.cluster_utils import Cluster
from warm import WarmPopen

from bench.errors import BadInput
from bench.record import Record
from bench.run import pool
from bench.run.nodes import LABEL, Nodes
from bench.run.ray import Ray
from bench.run.runner import Runner
from bench.run.suite_run import SuiteRun
from bench.spec.run_spec import RunSpec, groups
from bench.store.records import Store
from bench.studies.calibrate.study import Study as Calibration
from bench.studies.masks import Study as Masks
from bench.studies.timesteps.study import Study as Timesteps
from bench.studies.tune.candidate import Task

HERE = Path(__file__).parent
SMALL: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
HEAD = SMALL | {"include_dashboard": False, "include_log_monitor": False}


@pytest.fixture(scope="module")
def driver() -> Iterator[WarmPopen]:
    """Another process that runs a suite when it is asked to; a fork can be made of this one only before it
    connects to a cluster."""
    made = WarmPopen([sys.executable, str(HERE / "light_driver.py")], stdin=subprocess.PIPE, text=True)
    yield made
    made.kill()
    made.wait()


@pytest.fixture(scope="module")
def cluster(driver: WarmPopen) -> Iterator[Cluster]:
    """Three nodes of a core each; one cluster for all tests."""
    before = os.environ["PYTHONPATH"]
    os.environ["PYTHONPATH"] = before + os.pathsep + str(HERE)  # of the nodes
    started = Cluster(initialize_head=True, head_node_args=HEAD)
    for _ in range(2):
        started.add_node(wait=False, **SMALL)
    started.wait_for_nodes()
    ray.init(started.address, log_to_driver=False, logging_level=logging.ERROR)
    yield started
    ray.shutdown()
    started.shutdown()
    os.environ["PYTHONPATH"] = before


@pytest.fixture(scope="module")
def nodes(cluster: Cluster) -> Nodes:
    """What the harness knows of the nodes, asked once."""
    return Nodes(None)


@pytest.fixture(autouse=True)
def brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that is gone is missed at once, and a task is given up after two workers were."""
    monkeypatch.setattr(pool, "REFRESH_S", 0.2)
    monkeypatch.setattr(pool, "ATTEMPTS", 2)


def spec(model: Path, name: str, n: int = 18, **changes: Any) -> RunSpec:
    settings: dict[str, Any] = {
        "suite": "cluster", "name": name, "method": "fewer_steps", "options": {"steps": 1 + len(name) % 5},
        "model": str(model), "num_inference_steps": 6, "batch_size": 2, "memory": False, "timeout_s": 60,
        "timing": {"min_pairs": 2, "max_pairs": 2, "warmup": 0, "together": 4},
        "quality": {"n": n, "converged_n": 0, "extractor": None, "worst": 1},
    }  # fmt: skip
    return RunSpec(**settings | changes)


def run(specs: Sequence[RunSpec], results: Path, placement: Ray) -> dict[str, Record]:
    """The records of a run, by name."""
    return {record.name: record for record in SuiteRun.of(specs, results, placement=placement).run()}


def logged(directory: Path, what: str) -> list[list[str]]:
    lines = (directory / "log").read_text().splitlines() if (directory / "log").exists() else []
    return [line.split()[1:] for line in lines if line.startswith(what)]


def when(condition: Callable[[], object], act: Callable[[], None]) -> threading.Thread:
    """Act as soon as the condition holds."""

    def wait() -> None:
        while not condition():
            time.sleep(0.01)
        act()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


def images(records: dict[str, Record]) -> dict[str, list[float]]:
    return {name: r.quality.drift_per_image for name, r in records.items() if r.quality}


def test_a_suite_and_its_resumption(nodes: Nodes, tiny_model_dir: Path, tmp_path: Path) -> None:
    """Each configuration is timed once and each image made once, whatever was there before; more images of
    the same configurations make only those that lack; a fault is its own configuration's alone, and what the
    object store cannot hold is kept on the disk by Ray."""
    placement = Ray(nodes, worker=light(tmp_path), workers=1)
    names = ["one", "three", "raises", "crashes"]
    records = run([spec(tiny_model_dir, name) for name in names], tmp_path / "results", placement)
    assert [records[name].status for name in names] == ["ok", "ok", "failed", "failed"]
    assert images(records) == {"one": [3.0 + i for i in range(18)], "three": [5.0 + i for i in range(18)]}
    assert (records["raises"].reason or "").startswith("RuntimeError: shapes do not match (images ")
    assert records["crashes"].reason and "2 workers were lost" in records["crashes"].reason
    assert [records["one"].quality.worst[0].index, records["one"].quality.image] == [  # type: ignore[union-attr]
        17, f"one-{records['one'].key}.png",
    ]  # fmt: skip
    assert sorted(name for (name,) in logged(tmp_path, "timed")) == sorted(names)

    (tmp_path / "log").unlink()
    more = [spec(tiny_model_dir, name, n=24) for name in ("one", "three")]
    more.append(spec(tiny_model_dir, "large", n=2))  # its shard does not fit in the object store
    again = run(more, tmp_path / "results", placement)
    assert [len(drifts) for drifts in images(again).values()] == [24, 24, 2]
    made = {words[-2] for words in logged(tmp_path, "made") if words[0] != "large"}
    assert made <= {"18-20", "20-22", "22-24", "18-22", "18-24"}
    (tmp_path / "log").unlink()
    assert run(more, tmp_path / "results", placement) == again
    assert not logged(tmp_path, "")


def test_a_task_that_hangs_is_a_record(nodes: Nodes, tiny_model_dir: Path, tmp_path: Path) -> None:
    """Its worker is replaced; the reason names the limit and the images."""
    chosen = [spec(tiny_model_dir, name, n=2, timeout_s=0.75) for name in ("hangs", "one")]
    records = run(chosen, tmp_path / "results", Ray(nodes, worker=light(tmp_path), workers=1))
    assert records["hangs"].reason == "time limit: no result within 1.5 s (images 0 to 1)"
    assert records["one"].status == "ok"


def test_trials_come_back_in_order(nodes: Nodes, tmp_path: Path) -> None:
    """Whoever evaluates them and however long each takes; one without a result is not done again."""
    placement = Ray(nodes, worker=light(tmp_path), workers=2)
    assert placement.map(squares, [5, 0, 3, 1]) == [25, None, 9, 1]
    placement._trials.close()


def test_the_driver_killed_and_started_again(
    cluster: Cluster, nodes: Nodes, driver: WarmPopen, tiny_model_dir: Path, tmp_path: Path
) -> None:
    """The records are those of an undisturbed run: nothing is timed twice, and no more than one shard a
    worker is made again."""
    specs = [spec(tiny_model_dir, name, n=20) for name in ("one", "three")]
    asked = {
        "address": cluster.address,
        "directory": str(tmp_path),
        "specs": [one.model_dump(mode="json") for one in specs],
    }
    assert driver.stdin
    driver.stdin.write(json.dumps(asked))
    driver.stdin.close()
    when(lambda: len(logged(tmp_path, "begin")) >= 5, driver.kill).join(60)
    assert driver.wait(10) == -signal.SIGKILL
    assert not list((tmp_path / "results" / "cluster").glob("*/*.json"))
    records = run(specs, tmp_path / "results", Ray(nodes, worker=light(tmp_path), workers=2))
    assert images(records) == {"one": [3.0 + i for i in range(20)], "three": [5.0 + i for i in range(20)]}
    assert sorted(logged(tmp_path, "timed")) == [["one"], ["three"]]
    started = [" ".join(words[:-1]) for words in logged(tmp_path, "begin")]
    assert 1 <= len(started) - len(set(started)) <= 2


def test_nodes_of_several_kinds(
    cluster: Cluster, nodes: Nodes, tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nodes of another kind are refused in one line, or left aside where one kind is named. On one whose
    object store is too small and whose disk is full, what does not fit is a record with its reason."""
    monkeypatch.setenv("RAY_local_fs_capacity_threshold", "0")  # as if the disk were full
    other = cluster.add_node(**SMALL, labels={LABEL: "slow"})
    try:
        with pytest.raises(BadInput, match=r"needed on a cluster of 2 kinds of devices; allowed: .*slow"):
            Nodes(None)
        with pytest.raises(BadInput, match="'fast' is not allowed; allowed: "):
            Nodes("fast")
        assert len(nodes.alive()) == 3  # one of another kind that joins is not used
        slow = Nodes("slow")
        assert [node.kind for node in slow.alive()] == ["slow"]
        chosen = [spec(tiny_model_dir, name, n=2) for name in ("large", "one")]
        records = run(chosen, tmp_path / "results", Ray(slow, worker=light(tmp_path)))
        assert records["one"].status == "ok"
        why = "OutOfDiskError: its node's object store and disk are full (images 0 to 1)"
        assert records["large"].reason == why
    finally:
        cluster.remove_node(other, False)


@pytest.mark.slow
def test_nothing_listens_beyond_the_loopback() -> None:
    """No process of a cluster that `--on ray` starts can be reached from another machine. In a process that
    has not imported Ray before: it reads then where its servers listen."""
    script = """
import psutil
from bench.cli.placement import placement
with placement("ray", workers=1):
    for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
        for one in process.net_connections():
            if one.status == psutil.CONN_LISTEN:
                print(one.laddr.ip.removeprefix("::ffff:"))
"""
    given = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-c", script], env=given, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) == {"127.0.0.1"}


@pytest.mark.slow
def test_a_cluster_without_its_token_is_refused(tmp_path: Path) -> None:
    """In one line that names the token's variable, not with a traceback of Ray's own error."""
    given = os.environ | {"RAY_ADDRESS": "127.0.0.1:1", "RAY_AUTH_MODE": "token", "HOME": str(tmp_path)}
    command = [sys.executable, "-m", "bench", "run", "smoke", "--on", "ray", "--results", str(tmp_path)]
    done = subprocess.run(command, env=given, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "RAY_AUTH_TOKEN" in done.stderr.splitlines()[-1]


@pytest.mark.slow
def test_records_are_those_of_a_local_run(
    nodes: Nodes, tiny_model_dir: Path, tmp_path: Path, warm_processes: None
) -> None:
    """With the real model: same keys, and the quality of each configuration the same to the last bit but for
    the order of additions in SSIM."""
    solved = {"n": 6, "converged_n": 4, "converged_steps": 12, "extractor": None, "worst": 2}
    chosen = [
        spec(tiny_model_dir, "half", n=6, quality=solved),
        spec(tiny_model_dir, "control", n=6, method="baseline", options={},
             quality=solved),
    ]  # fmt: skip
    results = tmp_path / "results"
    remote = run(chosen, results, Ray(nodes, worker=WarmWorker, workers=1))
    for path in Store(results, "cluster", remote["half"].environment["machine"]).directory.glob("*.json"):
        path.unlink()
    runner = Runner(results=results)
    for group in groups(chosen):
        runner.run(*group)
    local = SuiteRun.of(chosen, results).run()
    for record in local:
        other = remote[record.name]
        assert (other.key, other.config, other.status) == (record.key, record.config, "ok")
        assert other.quality and record.quality and other.reuse == record.reuse
        assert other.quality.ssim.mean == pytest.approx(record.quality.ssim.mean, rel=1e-12)
        assert other.quality.model_copy(update={"ssim": record.quality.ssim}) == record.quality
        assert other.timing and len(other.timing.pairs) == 2
    assert remote["control"].quality and remote["control"].quality.identical


@pytest.mark.slow
def test_a_calibration_is_that_of_one_process(nodes: Nodes, tiny_model_dir: Path, tmp_path: Path) -> None:
    """The seed of a calibration fixes its plans, whether this process, one worker or two judge them."""

    def plans(name: str, placement: Ray | None) -> dict[str, bytes]:
        study = Calibration(
            model=str(tiny_model_dir), solver="ddim", target="baseline", steps=8, plan_steps=8,
            images=2, guidance=4.0, results=tmp_path / name,
        )  # fmt: skip
        written = study.run(12, (1.5, 2.0, 3.0), tmp_path / f"{name}-plans", None, placement)
        if placement:
            placement._trials.close()
        return {plan.file.name: plan.file.read_bytes() for plan in written}

    here = plans("here", None)
    assert len(here) > 1
    assert plans("one", Ray(nodes, workers=1)) == here
    assert plans("two", Ray(nodes, workers=2)) == here


@pytest.mark.slow
def test_searches_of_steps_are_those_of_one_process(
    nodes: Nodes, tiny_model_dir: Path, tmp_path: Path
) -> None:
    """Two workers that share the searches find the timesteps and the masks that this process finds."""
    task = Task(model=str(tiny_model_dir), steps=4, images=2, guidance=4.0)
    solvers = ("unipc", "dpm_solver++")
    placement = Ray(nodes, workers=2)
    timesteps, masks = Timesteps(task, tmp_path / "results"), Masks(task, tmp_path / "results")
    ordered = [{"scheduler": name, "solver_order": 2} for name in solvers]
    here, there = tmp_path / "here", tmp_path / "there"
    timesteps.run(ordered, [3], 2, here)
    timesteps.run(ordered, [3], 2, there, placement)
    files = sorted(path.name for path in here.iterdir())
    assert len(files) == 6
    assert [(there / name).read_bytes() for name in files] == [(here / name).read_bytes() for name in files]
    plain = [{"scheduler": name} for name in solvers]
    assert masks.run(plain, [2], 2, placement) == masks.run(plain, [2], 2)
    placement._trials.close()


@pytest.mark.slow
def test_a_worker_killed_and_a_node_lost(
    cluster: Cluster, nodes: Nodes, tiny_model_dir: Path, tmp_path: Path
) -> None:
    """No image is lost or made of another's; only the shards under way are made again."""
    specs = [spec(tiny_model_dir, name, n=60) for name in ("one", "three")]
    lost = next(iter(cluster.worker_nodes))
    placement = Ray(nodes, worker=light(tmp_path, pause=0.1))

    def kill() -> None:
        os.kill(int(logged(tmp_path, "begin")[-1][-1]), signal.SIGKILL)

    acts = [
        when(lambda: len(logged(tmp_path, "begin")) >= 4, kill),
        when(lambda: len(logged(tmp_path, "begin")) >= 8, lambda: cluster.remove_node(lost, False)),
    ]
    records = run(specs, tmp_path / "results", placement)
    for act in acts:
        act.join(20)
    assert images(records) == {"one": [3.0 + i for i in range(60)], "three": [5.0 + i for i in range(60)]}
    started, ended = ([" ".join(w[:-1]) for w in logged(tmp_path, what)] for what in ("begin", "made"))
    assert set(started) == set(ended) and len(started) - len(set(started)) <= 2
