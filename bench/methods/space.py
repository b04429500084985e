"""What a search may set a method's options to: one line an option, declared with each method.

A space depends on the run that is to be made faster: its number of steps, and whether its model is a flow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Whole:
    """A whole number from `low` to `high`, both included."""

    low: int
    high: int


@dataclass(frozen=True)
class Real:
    """A number from `low` to `high`, equally likely at each order of magnitude."""

    low: float
    high: float


@dataclass(frozen=True)
class Among:
    """One of several groups of options, by a name that only the search uses."""

    groups: Mapping[str, Mapping[str, Any]]


Dimension = Whole | Real | Among
Space = Mapping[str, Dimension]  # an option, or a name for a group of options -> its values


@dataclass(frozen=True)
class Baseline:
    """The run that methods are to make faster."""

    steps: int
    flow: bool  # flow matching, else a diffusion that preserves variance


Spaces = Callable[[Baseline], Mapping[str, Space]]  # a name for each space -> the space


def no_spaces(baseline: Baseline) -> Mapping[str, Space]:
    """For methods that have nothing to search.

    Args:
        baseline: Not looked at.

    Returns:
        No space.
    """
    return {}


def one_space(name: str, space: Callable[[Baseline], Space]) -> Spaces:
    """The spaces of a method that has one.

    Args:
        name: Of the space.
        space: Makes it for a baseline.

    Returns:
        A function from a baseline to the one space by its name.
    """
    return lambda baseline: {name: space(baseline)}


def evaluations(baseline: Baseline) -> Whole:
    """Bound how often methods that choose it evaluate the model: where drift is from 0.02 to 0.15.

    Args:
        baseline: The run that is to be made faster.

    Returns:
        8 to 25 for 50 steps, 6 to 18 for 28.
    """
    return Whole(4 + baseline.steps // 12, 10 + 3 * baseline.steps // 10)


def solvers(baseline: Baseline, explicit: bool = False) -> Among:
    """What every cache can be combined with: the baseline's solver at all of its steps, and DPM-Solver++ at
    all, half and two fifths of them.

    Args:
        baseline: The run that is to be made faster.
        explicit: Whether the number of steps is always given, for methods that have to know it.

    Returns:
        A dimension that sets the solver's options together.
    """
    steps = baseline.steps
    dpm = {"scheduler": "dpm_solver++"}
    given = {"steps": steps} if explicit else {}
    return Among({
        "own": given,
        "dpm": dpm | given,
        "dpm-half": {**dpm, "steps": steps // 2},
        "dpm-fifths": {**dpm, "steps": 2 * steps // 5},
    })  # fmt: skip
