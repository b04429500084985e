"""The pictures of both arms that all quality figures share, each made once and kept.

Those that timing made are used as they are. The others are made outside the timing, in batches of
the same size and the same pictures, for on a CPU the last bits depend on the batch; and they are kept
batch by batch, so that a killed run goes on where it was, the suite's configurations share the
baseline's, and another extractor makes none again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from bench.measure.cache import Cache, Tensors
from bench.measure.generation import Generation, Session
from bench.measure.timing import Pairs


class Pictures(NamedTuple):
    """All pictures of one arm."""

    latents: Tensor  # float32 [n, channels, height, width]
    images: Tensor  # uint8 [n, 3, height, width]


def collect(
    session: Session, pairs: Pairs, cache: Cache, say: Callable[[str], None]
) -> tuple[Pictures, Pictures]:
    """The `quality.n` pictures of the baseline and of the candidate."""
    # The reuse that is reported is that of timed generations: a copy takes note of the others'.
    session, spec = replace(session), session.spec
    base = _arm(session, "baseline", cache.key(spec), pairs.baseline, cache, say)
    cand = _arm(session, "candidate", cache.candidate_key(spec), pairs.candidate, cache, say)
    return base, cand


def _arm(
    session: Session,
    arm: Literal["baseline", "candidate"],
    key: str,
    timed: Sequence[Generation],
    cache: Cache,
    say: Callable[[str], None],
) -> Pictures:
    n, size = session.spec.quality.n, session.spec.batch_size
    batches = []
    for number, start in enumerate(range(0, n, size)):
        name, pictures = f"pictures/{arm}-{key}/{number:05d}", range(start, start + size)
        if number < len(timed):
            batches.append(_as_tensors(timed[number]))
            if not cache.has(name):
                cache.write(name, batches[-1])
        else:
            say(f"pictures of the {arm}: {start} of {n}")
            batches.append(cache.kept(name, partial(_make, session, arm, pictures)))
    latents, images = (torch.cat([b[part] for b in batches])[:n] for part in ("latents", "images"))
    return Pictures(latents, images)


def _make(session: Session, arm: Literal["baseline", "candidate"], pictures: range) -> Tensors:
    return _as_tensors(session.baseline(pictures) if arm == "baseline" else session.candidate(pictures))


def _as_tensors(made: Generation) -> Tensors:
    return {"latents": made.latents.contiguous(), "images": made.images.contiguous()}
