"""Which shards of quality are still to be made: those that the store does not hold, a minute's work each."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from bench.store.tensors import Cache, Tensors

MINUTE = 60.0  # seconds that a task should take: what a lost worker costs
UNTIMED = 16  # tasks of a worker where nothing is known of their time
MOST_IMAGES = 1024  # of a task, whose images are in memory
BASELINE = ""  # in place of a configuration's name


class Part(NamedTuple):
    """A task: shards of some configurations, the baseline perhaps among them, of the same images."""

    names: tuple[str, ...]
    numbers: range


def name_of(key: str, numbers: range) -> str:
    """Name a shard in the cache.

    Args:
        key: the shards' key, see `bench.measure.shards.key`.
        numbers: numbers of its images.

    Returns:
        The name.
    """
    return f"shards/{key}/{numbers.start:07d}-{numbers.stop:07d}"


def held(cache: Cache, key: str) -> list[range]:
    """List the shards that are there, whole or damaged.

    Args:
        cache: holds them.
        key: their key.

    Returns:
        The numbers of the images of each.
    """
    names = sorted(path.stem for path in (cache.directory / "shards" / key).glob("*-*.safetensors"))
    bounds = [name.split("-") for name in names]
    return [range(int(start), int(stop)) for start, stop in bounds if (start + stop).isdigit()]


def usable(cache: Cache, key: str, n: int, batch: int) -> list[range]:
    """List the shards that can be joined: undamaged, apart, made of whole batches.

    Args:
        cache: holds them.
        key: their key.
        n: number of images of the configuration.
        batch: number of images of a generation.

    Returns:
        The numbers of the images of each, in order.
    """
    kept: list[range] = []
    # Of two that begin alike the longer: the other was made for a configuration of fewer images.
    for numbers in sorted(held(cache, key), key=lambda numbers: (numbers.start, -numbers.stop)):
        whole = numbers.start % batch == 0 and (numbers.stop % batch == 0 or numbers.stop == n)
        apart = not kept or numbers.start >= kept[-1].stop
        if whole and apart and numbers.stop <= n and cache.read(name_of(key, numbers)) is not None:
            kept.append(numbers)
    return kept


def read(cache: Cache, key: str, n: int, batch: int) -> list[Tensors]:
    """Read the shards of all images.

    Args:
        cache: holds them.
        key: their key.
        n: number of images of the configuration.
        batch: number of images of a generation.

    Returns:
        The shards in order; empty where one is missing.
    """
    kept = usable(cache, key, n, batch)
    if sum(map(len, kept)) < n:
        return []
    shards = [cache.read(name_of(key, numbers)) for numbers in kept]
    return [tensors for tensors in shards if tensors is not None]


def parts(kept: Mapping[str, Sequence[range]], n: int, batch: int, size: int) -> Iterator[Part]:
    """Plan the tasks that make what is missing.

    Args:
        kept: by configuration the images whose shards are there, see `usable`.
        n: images of each configuration.
        batch: images of a generation, which is never cut.
        size: batches of a task, see `batches_of`.

    Yields:
        The tasks, in the images' order.
    """
    numbers = range(math.ceil(n / batch))
    lacking = [tuple(name for name, ranges in kept.items() if not _in(ranges, i * batch)) for i in numbers]
    for names, run in itertools.groupby(numbers, key=lambda i: lacking[i]):
        which = list(run) if names else []
        for first in range(0, len(which), size):
            some = which[first : first + size]
            yield Part(names, range(some[0] * batch, min((some[-1] + 1) * batch, n)))


def batches_of(seconds: float, batch: int, batches: int, workers: int) -> int:
    """Choose the size of tasks: about a minute of work, and no fewer tasks than workers.

    Args:
        seconds: of one batch, all configurations of the task and the baseline together; 0 where nothing was
            timed: a worker's share is then in UNTIMED tasks.
        batch: images of one.
        batches: of a configuration.
        workers: that share them.

    Returns:
        The number of batches of a task, at least 1.
    """
    share = math.ceil(batches / max(1, workers))
    wanted = int(MINUTE / seconds) if seconds else math.ceil(share / UNTIMED)
    return max(1, min(wanted, share, MOST_IMAGES // batch))


def _in(ranges: Iterable[range], image: int) -> bool:
    return any(image in numbers for numbers in ranges)
