"""Which steps of a generation run the model, for caches that decide it before the generation."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

COMPUTED = "computed"  # the steps that run, in place of the options that place them


def computed_steps(options: dict[str, Any], excludes: Iterable[str] = ()) -> tuple[int, ...] | None:
    """The steps that options give.

    Args:
        options: A method's, by name.
        excludes: Its options that place the steps otherwise.

    Returns:
        Ascending from 0; None where the options give none.

    Raises:
        ValueError: Naming the option, the value and what is allowed.
    """
    given = options.get(COMPUTED)
    if given is None:
        return None
    whole = isinstance(given, list | tuple) and all(type(step) is int for step in given)
    if not whole or not given or given[0] != 0 or any(a >= b for a, b in itertools.pairwise(given)):
        raise ValueError(f"{COMPUTED}: {given!r} is not allowed; allowed: a list that ascends from step 0")
    for name in excludes:
        if name in options:
            raise ValueError(f"{COMPUTED}: excludes {name}; allowed: one of them")
    return tuple(given)


def check_length(method: str, computed: Iterable[int], steps: int) -> None:
    """Check that a generation has the steps that are to run.

    Args:
        method: Its name, for the message.
        computed: The steps that run.
        steps: How many the generation has.

    Raises:
        ValueError: One lies behind the generation's last.
    """
    last = max(computed)
    if last >= steps:
        raise ValueError(f"{method}: {COMPUTED} = {last} is not allowed; allowed: steps below {steps}")


def evenly(steps: int, budget: int, first: int) -> tuple[int, ...]:
    """Run the first steps, and the others of a budget at equal distances behind them.

    Args:
        steps: How many the generation has.
        budget: How many run, at least `first`; all of them where there are no more.
        first: How many of the first run, at least 1.

    Returns:
        Ascending from 0; behind the last one lies as great a distance as between them.
    """
    if budget >= steps:
        return tuple(range(steps))
    rest = budget - first
    behind = [first + (i + 1) * (steps - first) // (rest + 1) for i in range(rest)]
    return (*range(first), *behind)
