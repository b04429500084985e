"""An evolutionary search of a solver's timesteps, judged as `calibrate` judges plans: by the geometric mean
of the drift of whole generations."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.studies.tune.candidate import Outcome

Timesteps = tuple[float, ...]
REACH = 0.35  # of the gap to a neighbour: how far a step moves, one standard deviation


@dataclass(frozen=True)
class Judged:
    """Timesteps that were judged."""

    timesteps: Timesteps
    outcome: Outcome


def changed(timesteps: Timesteps, rng: random.Random, whole: bool) -> Timesteps:
    """Move one to three steps a little, or take one from one place to another; the first stays.

    Args:
        timesteps: Descending.
        rng: Where chance comes from.
        whole: Whether timesteps are whole numbers.

    Returns:
        As many timesteps, descending.
    """
    for _ in range(rng.choice((1, 1, 2, 3))):
        values = [*timesteps, 0.0]
        index = rng.randrange(1, len(timesteps))
        if rng.random() < 0.75:
            gap = min(values[index - 1] - values[index], values[index] - values[index + 1]) or 1.0
            values[index] += rng.gauss(0, max(REACH * gap, 1.0 if whole else 0.0))
        else:
            del values[index]
            after = rng.randrange(len(values) - 1)
            values.insert(after + 1, (values[after] + values[after + 1]) / 2)
        inner = [float(round(t)) if whole else round(t, 2) for t in values[1:-1]]
        kept = sorted({t for t in inner if 0 <= t < timesteps[0]}, reverse=True)
        if len(kept) == len(timesteps) - 1:
            timesteps = (timesteps[0], *kept)
    return timesteps


def search(
    starts: Sequence[Timesteps],
    judge: Callable[[Timesteps], Outcome],
    trials: int,
    whole: bool,
    seed: int = 0,
) -> list[Judged]:
    """Judge timesteps to start from, then change the best again and again.

    Args:
        starts: timesteps to start from, at least one.
        judge: measures the drift of timesteps.
        trials: number of changes.
        whole: whether timesteps are whole numbers.
        seed: random seed of the changes.

    Returns:
        All that was judged, the best first.
    """
    rng = random.Random(seed)
    judged = [Judged(timesteps, judge(timesteps)) for timesteps in dict.fromkeys(starts)]
    best = min(judged, key=_score)
    for _ in range(trials):
        timesteps = changed(best.timesteps, rng, whole)
        if any(timesteps == one.timesteps for one in judged):
            continue
        judged.append(Judged(timesteps, judge(timesteps)))
        best = min(best, judged[-1], key=_score)
    return sorted(judged, key=_score)


def _score(one: Judged) -> float:
    return one.outcome.score
