"""The images of both arms that all quality metrics share, each made once and kept.

Those that timing made are used as they are. The others are made outside the timing, in batches of
the same size and the same images, because on a CPU the last bits depend on the batch. They are kept
batch by batch: a killed run resumes where it stopped, the suite's configurations share the
baseline's, and another extractor makes none again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
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
    session: Session, pairs: Pairs, cache: Cache, say: Callable[[str], None]
) -> tuple[Samples, Samples]:
    """The images that all quality metrics share, of both arms.

    Args:
        session: The configuration; its `reuse` stays that of the timed generations.
        pairs: Its timed generations.
        cache: Keeps the images, batch by batch.
        say: Called with a line on what is being done.

    Returns:
        `quality.n` images of the baseline, and of the candidate.
    """
    # The reuse that is reported is that of timed generations: a copy records the others'.
    session, spec = copy(session), session.spec
    base = _Arm("baseline", session.baseline, pairs.baseline, cache.key(spec), cache, say)
    cand = _Arm("candidate", session.candidate, pairs.candidate, cache.candidate_key(spec), cache, say)
    return base.samples(spec), cand.samples(spec)


class _Arm(NamedTuple):
    name: str
    make: Callable[[range], Generation]
    timed: Sequence[Generation]
    key: str
    cache: Cache
    say: Callable[[str], None]

    def samples(self, spec: RunSpec) -> Samples:
        n, size = spec.quality.n, spec.batch_size
        batches = [self._batch(i, range(i * size, (i + 1) * size), n) for i in range(-(-n // size))]
        latents, images = (torch.cat([b[part] for b in batches])[:n] for part in ("latents", "images"))
        return Samples(latents, images)

    def _batch(self, number: int, numbers: range, n: int) -> Tensors:
        name = f"images/{self.name}-{self.key}/{number:05d}"
        if number >= len(self.timed):
            return self.cache.kept(name, lambda: self._made(numbers, n))
        tensors = _as_tensors(self.timed[number])
        if not self.cache.has(name):
            self.cache.write(name, tensors)
        return tensors

    def _made(self, numbers: range, n: int) -> Tensors:
        self.say(f"images of the {self.name}: {numbers.start} of {n}")
        return _as_tensors(self.make(numbers))


def _as_tensors(generation: Generation) -> Tensors:
    return {"latents": generation.latents, "images": generation.images}
