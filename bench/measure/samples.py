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
from bench.store.tensors import Cache, Tensors


class Samples(NamedTuple):
    """All samples of one arm."""

    latents: Tensor  # float32 [n, channels, height, width]
    images: Tensor  # uint8 [n, 3, height, width]


class Collector:
    """Collects the images of the two arms of a configuration.

    Args:
        session: the model under the configuration; for the baseline under any.
        pairs: the timed generations, from image 0 on, which are used as they are.
        cache: keeps the images of the others; None: none is kept.
        say: called with a line for each batch that is generated.
    """

    def __init__(
        self, session: Session, pairs: Pairs, cache: Cache | None, say: Callable[[str], None]
    ) -> None:
        self.session, self.pairs, self.cache, self.say = session, pairs, cache, say

    def both(self, numbers: range) -> tuple[Samples, Samples]:
        """Collect the samples of both arms.

        Args:
            numbers: of the images; the first is the first of a batch.

        Returns:
            The baseline's samples and the candidate's.
        """
        return self.baseline(numbers), self.candidate(numbers)

    def baseline(self, numbers: range) -> Samples:
        """Collect the baseline's samples.

        Args:
            numbers: as for `both`.

        Returns:
            Latents and images, in the order of their numbers.
        """
        key = self.cache.key(self.session.spec) if self.cache else ""
        return self._samples(_Arm("baseline", key, self.session.baseline, self.pairs.baseline), numbers)

    def candidate(self, numbers: range) -> Samples:
        """Collect the candidate's samples.

        Args:
            numbers: as for `both`.

        Returns:
            Latents and images, in the order of their numbers.
        """
        # The reuse that is reported is that of timed generations: a copy records the others'.
        untimed = copy(self.session)
        key = self.cache.candidate_key(self.session.spec) if self.cache else ""
        return self._samples(_Arm("candidate", key, untimed.candidate, self.pairs.candidate), numbers)

    def _samples(self, arm: _Arm, numbers: range) -> Samples:
        size = self.session.spec.batch_size
        # Whole batches, the last one too: on a CPU the last bits depend on the batch.
        which = range(numbers.start // size, -(-numbers.stop // size))
        batches = [self._batch(arm, i, range(i * size, (i + 1) * size)) for i in which]
        latents, images = (
            torch.cat([b[part] for b in batches])[: len(numbers)] for part in ("latents", "images")
        )
        return Samples(latents, images)

    def _batch(self, arm: _Arm, number: int, numbers: range) -> Tensors:
        name = f"images/{arm.name}-{arm.key}/{number:05d}"
        if number >= len(arm.timed):
            make = partial(self._generated, arm, numbers)
            return self.cache.kept(name, make) if self.cache else make()
        tensors = _as_tensors(arm.timed[number])
        if self.cache and not self.cache.has(name):
            self.cache.write(name, tensors)
        return tensors

    def _generated(self, arm: _Arm, numbers: range) -> Tensors:
        self.say(f"images of the {arm.name}: {numbers.start} of {self.session.spec.quality.n}")
        return _as_tensors(arm.make(numbers))


class _Arm(NamedTuple):
    name: str
    key: str
    make: Callable[[range], Generation]
    timed: Sequence[Generation]


def _as_tensors(generation: Generation) -> Tensors:
    return {"latents": generation.latents, "images": generation.images}
