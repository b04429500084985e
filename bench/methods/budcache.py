"""BudCache (Lei et al. 2026, arXiv 2606.13496): of a fixed budget of steps, a search finds those that run.

At the others the blocks' last residual is held. Searched is the mask whose final latents have the least mean
squared error from those of a generation in which every step runs. The first max(1, budget // 4) steps always
run. Simulated annealing moves one or two of the others, mostly by a few steps, at a temperature that falls
from 0.05 to 1e-5 over 200 iterations; then hill climbing goes to the best of all masks with one step moved by
up to 3, and of a few with one moved anywhere, until none is better.

The annealing begins with steps at equal distances, the authors' with random ones. Theirs was on one prompt;
here it is on the run's own first images, or on the calibration images of `python -m bench masks`, whose masks
`computed` takes. Their optional second
stage, which learns other timesteps for the mask, is not here; their main results are without it.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, wraps
from typing import Any

from torch import Tensor

from bench.methods.base import Arm, Method, Untimed, always
from bench.methods.hooks import Progress, Range, checked, progress, restored, tried
from bench.methods.residual import HeldResidual
from bench.methods.scheduler import solver
from bench.methods.space import Among, Baseline, Space, evaluations, one_space, solvers
from bench.methods.step_mask import COMPUTED, check_length, computed_steps, evenly

MASK = "mask"  # the steps that a search found; without it and `computed` every step runs, to search by
SEARCHED = {
    "budget": Range(int, 1, 1000, 14),  # steps that run
    "iterations": Range(int, 0, 10000, 200),  # of simulated annealing
    "climbs": Range(int, 0, 1000, 20),  # of hill climbing, at most
}
TEMPERATURES = (0.05, 1e-5)  # the first and the last
REACH = 3  # steps by which one is moved nearby
NEARBY, SINGLE = 0.7, 0.9  # how often annealing moves a step nearby, and only one
ANYWHERE = 2  # neighbours for each step that hill climbing draws from all

Mask = tuple[int, ...]  # the steps that run, ascending


def fixed(budget: int) -> int:
    """Count the first steps, which always run.

    Args:
        budget: How many steps run.

    Returns:
        A quarter of them, at least 1.
    """
    return max(1, budget // 4)


def moved(mask: Mask, steps: int, rng: random.Random) -> Mask:
    """Let one step or two run in place of others, as annealing does.

    Args:
        mask: The steps that run, the fixed ones first.
        steps: How many there are.
        rng: Where chance comes from.

    Returns:
        As many steps; the same where none can be moved.
    """
    movable, free = mask[fixed(len(mask)) :], _free(mask, steps)
    if not movable or not free:
        return mask
    if rng.random() >= SINGLE and min(len(movable), len(free)) > 1:
        return _replaced(mask, rng.sample(movable, 2), rng.sample(free, 2))
    one = rng.choice(movable)
    near = [step for step in free if abs(step - one) <= REACH]
    return _replaced(mask, [one], [rng.choice(near if near and rng.random() < NEARBY else free)])


def neighbours(mask: Mask, steps: int, rng: random.Random) -> list[Mask]:
    """List the masks among which hill climbing chooses.

    Args:
        mask: The steps that run, the fixed ones first.
        steps: How many there are.
        rng: Where the steps that are moved anywhere come from.

    Returns:
        Others with as many steps, none twice.
    """
    free, found = _free(mask, steps), list[Mask]()
    for one in mask[fixed(len(mask)) :]:
        near = [step for step in free if abs(step - one) <= REACH]
        anywhere = [rng.choice(free) for _ in range(ANYWHERE)] if free else []
        found += [_replaced(mask, [one], [step]) for step in near + anywhere]
    return list(dict.fromkeys(found))


def _free(mask: Mask, steps: int) -> list[int]:
    return [step for step in range(fixed(len(mask)), steps) if step not in mask]


def _replaced(mask: Mask, out: Sequence[int], into: Sequence[int]) -> Mask:
    return tuple(sorted({*mask} - {*out} | {*into}))


def search(
    steps: int,
    budget: int,
    error: Callable[[Mask], float],
    iterations: int = 200,
    climbs: int = 20,
    seed: int = 0,
) -> Mask:
    """Find the mask of least error, by simulated annealing and then hill climbing.

    Args:
        steps: How many there are.
        budget: How many run.
        error: Of a mask; asked once for each.
        iterations: Of annealing.
        climbs: Of hill climbing, at most.
        seed: Random seed of the moves.

    Returns:
        The best of all that were looked at.
    """
    rng, hot, cold = random.Random(seed), *TEMPERATURES
    known = cache(error)
    best = current = evenly(steps, budget, fixed(budget))
    if budget >= steps:
        return best
    for iteration in range(iterations):
        temperature = hot * (cold / hot) ** (iteration / iterations)
        other = moved(current, steps, rng)
        worse = known(other) - known(current)
        if worse < 0 or rng.random() < math.exp(-worse / temperature):
            current = other
            best = min(best, current, key=known)
    for _ in range(climbs):
        other = min(neighbours(current, steps, rng), key=known, default=current)
        if known(other) >= known(current):
            break
        current = other
    return min(best, current, key=known)


class Cache(HeldResidual):
    """Runs the blocks at the steps of a mask, and holds their residual at the others.

    Args:
        transformer: With one list of blocks, `transformer_blocks`.
        mask: The steps that run; None: all.
        at: Where the generation is.
    """

    def __init__(self, transformer: Any, mask: Mask | None, at: Progress) -> None:
        super().__init__(transformer)
        self.mask, self.at = mask, at

    def holds(self, given: dict[str, Any]) -> bool:
        """Decide by the mask alone."""
        if self.mask is None:
            return False
        if self.at.step == 0:
            check_length("budcache", self.mask, self.at.steps)
        return self.at.step not in self.mask


def check(options: dict[str, Any]) -> None:
    """Check options against SEARCHED, or the steps in their place, and the solver's.

    Args:
        options: As a suite has them.

    Raises:
        ValueError: Naming the option, its value and what is allowed.
    """
    computed_steps(options, SEARCHED)
    checked({name: value for name, value in options.items() if name != COMPUTED}, SEARCHED)


def _values(options: dict[str, Any]) -> dict[str, Any]:
    return checked({k: value for k, value in options.items() if k not in (COMPUTED, MASK)}, SEARCHED)


@contextmanager
def apply(pipe: Any, options: dict[str, Any]) -> Iterator[Arm]:
    """Hold by the mask given, or run every step where none is; the arm then reports the final latents.

    Args:
        pipe: A pipeline that calls its transformer once a step.
        options: As `check` lets them through, and `mask` as `resolve` found it.

    Yields:
        The pipeline with the cache on.
    """
    _values(options)
    given = {name: value for name, value in options.items() if name not in (COMPUTED, MASK, *SEARCHED)}
    mask = options.get(MASK) or computed_steps(options)
    with solver(pipe, given) as call, restored(pipe.transformer), progress(pipe) as at:
        held = Cache(pipe.transformer, mask and tuple(mask), at)
        with _final(pipe.scheduler) as last:
            yield Arm(
                call=call,
                cache_bytes=lambda: held.bytes,
                calibrated=lambda: {"latents": last[0], "steps": at.steps},
            )


@contextmanager
def _final(scheduler: Any) -> Iterator[list[Tensor]]:
    """The latents behind the scheduler's last step, in a list."""
    step, last = scheduler.step, list[Tensor]()

    @wraps(step)
    def noted(*args: Any, **kwargs: Any) -> Any:
        result = step(*args, **kwargs)
        last[:] = [result[0] if isinstance(result, tuple) else result.prev_sample]
        return result

    scheduler.step = noted
    try:
        yield last
    finally:
        del scheduler.step


def resolve(options: dict[str, Any], untimed: Untimed) -> dict[str, Any]:
    """Search for the mask of the current model on this solver, where no steps are given.

    Args:
        options: As `check` lets them through.
        untimed: Runs an untimed generation: one in which every step runs, then one for each mask.

    Returns:
        `mask`, the steps that run; none where `computed` has them.
    """
    if COMPUTED in options:
        return {}
    with untimed(options) as arm:
        whole = arm.calibrated()

    def error(mask: Mask) -> float:
        with untimed(options | {MASK: list(mask)}) as arm:
            return float((arm.calibrated()["latents"] - whole["latents"]).square().mean())

    return {MASK: list(search(whole["steps"], error=error, **_values(options)))}


def space(baseline: Baseline) -> Space:
    """What is searched: how many steps run, on each of the solvers, at equal distances.

    A mask takes minutes to search, and one of a search cut short to 16 masks was no better on other images
    than equal distances: so masks are searched for what is chosen here, by `python -m bench masks`.

    Args:
        baseline: The run that is to be made faster.

    Returns:
        One space's dimensions by name.
    """
    return {
        "solver": solvers(baseline),
        "budget": evaluations(baseline),
        "search": Among({"none": {"iterations": 0, "climbs": 0}}),
    }


METHOD = Method(
    check=check,
    apply=apply,
    resolve=resolve,
    by_data=lambda options: COMPUTED not in options,
    fixed_steps=always,
    gap=tried,
    spaces=one_space("budcache", space),
)
