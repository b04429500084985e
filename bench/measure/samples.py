"""The images of both arms that all quality metrics share, each made once and kept.

Those that timing made are used as they are. The others are made outside the timing, in batches of
the same size and the same images, because on a CPU the last bits depend on the batch. They are kept
batch by batch: a killed run resumes where it stopped, the suite's configurations share the
baseline's, and another extractor makes none again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from bench.measure.timing import Pairs
from bench.pipeline.session import Generation, Session
from bench.spec.run_spec import RunSpec
from bench.store.tensors import Cache, Tensors


class Samples(NamedTuple):
    """All samples of one arm."""

    latents: Tensor  # float32 [n, channels, height, width]
    images: Tensor  # uint8 [n, 3, height, width]


def collect(
    session: Session, pairs: Pairs, cache: Cache, numbers: range, say: Callable[[str], None]
) -> tuple[Samples, Samples]:
    """Collect the images of the baseline and of the candidate.

    Args:
        session: the model under the configuration.
        pairs: what timing made, from image 0 on.
        cache: where the others are kept.
        numbers: of the images; the first is the first of a batch.
        say: told what is being made.

    Returns:
        The baseline's samples and the candidate's.
    """
    return baseline(session, pairs, cache, numbers, say), candidate(session, pairs, cache, numbers, say)


def baseline(
    session: Session, pairs: Pairs, cache: Cache | None, numbers: range, say: Callable[[str], None]
) -> Samples:
    """Collect the baseline's images, see `collect`.

    Args:
        session: the model under any configuration.
        pairs: what timing made, from image 0 on.
        cache: the cache that keeps the others; None: none is kept.
        numbers: numbers of the images; the first is the first of a batch.
        say: is told what is being made.

    Returns:
        Latents and images, see `Samples`.
    """
    key = cache.key(session.spec) if cache else ""
    arm = _Arm("baseline", session.baseline, pairs.baseline, key, cache, say)
    return arm.samples(session.spec, numbers)


def candidate(
    session: Session, pairs: Pairs, cache: Cache | None, numbers: range, say: Callable[[str], None]
) -> Samples:
    """Collect the candidate's images, see `collect`.

    Args:
        session: the model under the configuration.
        pairs: what timing made, from image 0 on.
        cache: the cache that keeps the others; None: none is kept.
        numbers: numbers of the images; the first is the first of a batch.
        say: is told what is being made.

    Returns:
        Latents and images, see `Samples`.
    """
    # The reuse that is reported is that of timed generations: a copy records the others'.
    made_by = copy(session)
    key = cache.candidate_key(session.spec) if cache else ""
    arm = _Arm("candidate", made_by.candidate, pairs.candidate, key, cache, say)
    return arm.samples(session.spec, numbers)


class _Arm(NamedTuple):
    name: str
    make: Callable[[range], Generation]
    timed: Sequence[Generation]
    key: str
    cache: Cache | None
    say: Callable[[str], None]

    def samples(self, spec: RunSpec, numbers: range) -> Samples:
        size, n = spec.batch_size, spec.quality.n
        # Whole batches, the last one too: on a CPU the last bits depend on the batch.
        which = range(numbers.start // size, -(-numbers.stop // size))
        batches = [self._batch(i, range(i * size, (i + 1) * size), n) for i in which]
        latents, images = (
            torch.cat([b[part] for b in batches])[: len(numbers)] for part in ("latents", "images")
        )
        return Samples(latents, images)

    def _batch(self, number: int, numbers: range, n: int) -> Tensors:
        name = f"images/{self.name}-{self.key}/{number:05d}"
        if number >= len(self.timed):
            make = partial(self._made, numbers, n)
            return self.cache.kept(name, make) if self.cache else make()
        tensors = _as_tensors(self.timed[number])
        if self.cache and not self.cache.has(name):
            self.cache.write(name, tensors)
        return tensors

    def _made(self, numbers: range, n: int) -> Tensors:
        self.say(f"images of the {self.name}: {numbers.start} of {n}")
        return _as_tensors(self.make(numbers))


def _as_tensors(generation: Generation) -> Tensors:
    return {"latents": generation.latents, "images": generation.images}
