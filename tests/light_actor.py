"""A worker of a cluster without a model: it makes shards in no time, and can be made to go wrong."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from light_worker import note
from pydantic import TypeAdapter
from safetensors.numpy import save

from bench.record import Timing
from bench.run.actor import Actor, Shard, ShardTask
from bench.run.worker import Job
from bench.stats import timed

LARGE = 90 * 2**20  # bytes; the smallest object store that Ray allows holds 75 MiB


class LightWorker(Actor):
    """What is written under `directory` shows what was done, and `fault` there decides what goes wrong."""

    directory = ""
    pause = 0.0

    def timed(self, given: str, command: Sequence[str]) -> list[tuple[str, bytes | None]]:
        """Records with made-up seconds."""
        records: list[tuple[str, bytes | None]] = []
        for job in TypeAdapter(list[Job]).validate_json(given):
            self.say("timed", job.spec.name)
            records.append((job.record(status="ok", timing=made_up()).model_dump_json(), None))
        return records

    def shards(self, given: str) -> list[Shard]:
        """Drifts that follow from the image's number alone; the faults are named after configurations."""
        task = ShardTask.model_validate_json(given)
        names = [spec.name for spec in task.specs]
        self.say("begin", *names, f"{task.start}-{task.stop}", str(os.getpid()))
        time.sleep(self.pause)
        if "crashes" in names:
            os.abort()
        if "hangs" in names:
            time.sleep(1000)
        more = LARGE if "large" in names else 0
        shards = [Shard("", packed(task.start, task.stop, 0.5))] if task.baseline else []
        for name in names:
            if name == "raises":
                shards.append(Shard(name, None, "RuntimeError: shapes do not match", "a traceback"))
            else:
                shards.append(Shard(name, packed(task.start, task.stop, float(len(name)), more)))
        self.say("made", *names, f"{task.start}-{task.stop}", str(os.getpid()))
        return shards

    def say(self, *words: str) -> None:
        """Append a line to the log."""
        note(Path(self.directory) / "log", " ".join(words))


class WarmWorker(Actor):
    """The real worker; the processes that time are forks of it, which need not import torch again."""

    def timed(self, given: str, command: Sequence[str]) -> list[tuple[str, bytes | None]]:
        """As the real one does."""
        import warm

        warm.preload()
        subprocess.Popen = warm.WarmPopen  # type: ignore[misc]
        return super().timed(given, command)


def light(directory: Path, pause: float = 0.0) -> type[LightWorker]:
    """The class of workers that write to a directory, and take so many seconds for a shard."""
    return type("Here", (LightWorker,), {"directory": str(directory), "pause": pause})


def packed(start: int, stop: int, scale: float, more: int = 0) -> bytes:
    """A shard of these images, with so many bytes of no use."""
    drift = scale + np.arange(start, stop, dtype=np.float64)
    worst = [{"index": stop - 1, "seed": stop - 1, "label": "it", "drift": drift[-1], "psnr_db": 9.0}]
    return save({
        "drift": drift, "psnr": 9 + 0 * drift, "ssim": 0.5 + 0 * drift, "identical": drift < 0,
        "digests": np.zeros((len(drift), 32), np.uint8),
        "worst": np.full((1, 3, 8, 8), stop % 251, np.uint8),
        "worst_baseline": np.zeros((1, 3, 8, 8), np.uint8),
        "worst_facts": np.frombuffer(json.dumps(worst).encode(), np.uint8),
        "more": np.zeros(more, np.uint8),
    })  # fmt: skip


def made_up() -> Timing:
    """Seconds of two pairs: a batch takes a worker a third of a minute, with its baseline."""
    pairs = [(10.0, 10.0)] * 5
    return Timing(
        **timed(pairs, 5, 0.02, 0)._asdict(), pairs=pairs, contaminated=[], contaminated_why=[],
        baseline="eager", batch_size=2, stopped="pairs",
    )  # fmt: skip


def squares() -> Callable[[int], int | None]:
    """An evaluation that takes the longer, the larger the item is; None of 0."""

    def square(item: int) -> int | None:
        time.sleep(0.05 * item)
        return item * item or None

    return square
