"""Torture of a suite on Ray: workers killed at twenty moments, the driver at ten, a node removed.

`python tests/torture/cluster.py [WORKERS] [DRIVERS]` takes about ten minutes on two idle cores, and
ends with the records of a run without Ray, or exits 1. Its outcome is kept where `bench scaling` keeps what
it measured, whose page shows it.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import yaml

HERE = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(HERE), str(HERE.parent)]

from bench.machine import provenance  # noqa: E402
from bench.store.places import RESULTS  # noqa: E402
from bench.studies.scaling.torture import Fault, Torture, keep  # noqa: E402

NAMES = ("two", "three", "four")
IMAGES = 48
LIMIT_S = 600


def prepare(work: Path) -> None:
    """A tiny model and a suite of three configurations."""
    from conftest import build_tiny_pipeline

    build_tiny_pipeline().save_pretrained(work / "model")
    suite = {
        "title": "torture", "model": str(work / "model"), "num_inference_steps": 6, "batch_size": 2,
        "timing": {"min_pairs": 2, "max_pairs": 2, "warmup": 0, "together": 3},
        "quality": {"n": IMAGES, "converged_n": 4, "converged_steps": 30, "extractor": None}, "memory": False,
        "runs": [{"name": name, "method": "fewer_steps", "options": {"steps": 2 + i}}
                 for i, name in enumerate(NAMES)],
    }  # fmt: skip
    (work / "tiny.yaml").write_text(yaml.safe_dump(suite))


def start(work: Path, *more: str, address: str | None = None) -> subprocess.Popen[bytes]:
    """`bench run` in a process of its own."""
    places = ["--results", str(work / "results"), "--reports", str(work / "reports")]
    command = [sys.executable, "-m", "bench", "run", str(work / "tiny.yaml"), *places, *more]
    env = os.environ | {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(HERE.parent),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    if address:
        env["RAY_ADDRESS"] = address
    with (work / "out").open("ab") as out:
        return subprocess.Popen(command, cwd=work, env=env, stdout=out, stderr=out)


def finish(process: subprocess.Popen[bytes], what: str) -> None:
    """Wait for a run; AssertionError where it fails or hangs."""
    code = process.wait(LIMIT_S)
    assert code == 0, f"{what}: exit code {code}"


def quality(results: Path) -> dict[str, Any]:
    """What the records hold of the images, by name; the order of additions in SSIM aside."""
    found = {}
    for path in sorted(results.glob("tiny/*/*.json")):
        record = json.loads(path.read_text())
        kept = dict(record["quality"] or {}, ssim=None)
        found[record["name"]] = record["key"], record["status"], record["reason"], kept
    return found


def forget(results: Path) -> None:
    """Remove the records, and what was made for them, but for the identity that is part of their keys."""
    for directory in results.glob("tiny/*"):
        shutil.rmtree(directory)


def workers_of(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """The actors of a run's own cluster."""
    try:
        below = psutil.Process(process.pid).children(recursive=True)
        return [child for child in below if (child.cmdline() or [""])[0].startswith("ray::Actor")]
    except psutil.Error:
        return []


def kill_workers(work: Path, moments: int, rng: random.Random) -> int:
    """Runs on a cluster of their own, whose workers are killed one by one; how many were."""
    killed = 0
    while killed < moments:
        forget(work / "results")
        process = start(work, "--on", "ray", "--workers", "2")
        in_this = 0
        while process.poll() is None and killed < moments and in_this < 4:
            time.sleep(rng.uniform(0.5, 4))
            if found := workers_of(process):
                rng.choice(found).kill()
                killed, in_this = killed + 1, in_this + 1
        finish(process, "workers killed")
    return killed


def kill_drivers(work: Path, moments: int, rng: random.Random) -> int:
    """A run that is killed and started again until it has been killed so often; then it ends."""
    forget(work / "results")
    for _ in range(moments):
        process = start(work, "--on", "ray", "--workers", "2")
        time.sleep(rng.uniform(5, 30))
        process.send_signal(signal.SIGKILL)
        process.wait()
    finish(start(work, "--on", "ray", "--workers", "2"), "the driver killed")
    return moments


def lose_node(work: Path) -> int:
    """A run on three nodes, of which one goes and another comes."""
    os.environ |= {
        "RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_worker_niceness": "0", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    from ray.cluster_utils import Cluster

    forget(work / "results")
    small: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args=small | {"include_dashboard": False})
    nodes = [cluster.add_node(**small) for _ in range(2)]
    process = start(work, "--on", "ray", address=cluster.address)
    while process.poll() is None and not list((work / "results").glob("tiny/*/.cache/shards/*/*")):
        time.sleep(0.05)
    cluster.remove_node(nodes[0], False)
    cluster.add_node(**small)
    finish(process, "a node lost")
    cluster.shutdown()
    return 1


def suffered(what: str, torture: Callable[[], int], work: Path, expected: dict[str, Any]) -> Fault:
    """What one kind of fault came to; a run that fails or hangs is shown, and has no records."""
    began, times, same = time.monotonic(), 0, False
    try:
        times = torture()
        same = quality(work / "results") == expected
    except (AssertionError, subprocess.TimeoutExpired) as error:
        print(f"{error}: {(work / 'out').read_text()[-2000:]}")  # noqa: T201
    print(f"{what}: {'the same records' if same else 'OTHER RECORDS'}", flush=True)  # noqa: T201
    return Fault(what, times, same, time.monotonic() - began)


def main() -> int:
    """Torture, and report what differed."""
    counts = [int(value) for value in sys.argv[1:3]] + [20, 10][len(sys.argv[1:3]) :]
    rng, started = random.Random(0), time.monotonic()
    work = Path(tempfile.mkdtemp(prefix="torture-")).resolve()
    tortures: dict[str, Callable[[], int]] = {
        "a node removed": lambda: lose_node(work),
        "a worker killed": lambda: kill_workers(work, counts[0], rng),
        "the driver killed": lambda: kill_drivers(work, counts[1], rng),
    }
    try:
        prepare(work)
        finish(start(work), "without Ray")
        expected = quality(work / "results")
        faults = [suffered(what, torture, work, expected) for what, torture in tortures.items()]
    except AssertionError as error:
        print(f"{error}: {(work / 'out').read_text()[-2000:]}")  # noqa: T201
        return 1
    finally:
        shutil.rmtree(work, ignore_errors=True)
    outcome = Torture(len(NAMES), IMAGES, faults)
    file = keep(outcome, provenance.machine(), HERE.parent / RESULTS)
    seconds = time.monotonic() - started
    shown = ", ".join(f"{fault.what} {fault.times} times" for fault in faults)
    print(f"{shown}: {outcome.same} of {len(faults)} ended with the undisturbed records, {seconds:.0f} s")  # noqa: T201
    print(f"outcome: {file.relative_to(HERE.parent)}")  # noqa: T201
    return int(outcome.same < len(faults))


if __name__ == "__main__":
    sys.exit(main())
