"""What a method is to the harness: a check of its options and a context manager on a pipeline."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from bench.methods.space import Spaces, no_spaces
from bench.record import Reuse


def nothing_reused() -> None:
    """For methods that reuse nothing."""


def never(options: dict[str, Any]) -> bool:
    """For methods whose plan is the same whatever the model computes.

    Args:
        options: Not looked at.

    Returns:
        False.
    """
    return False


def always(options: dict[str, Any]) -> bool:
    """For methods that decide by what the model computes.

    Args:
        options: Not looked at.

    Returns:
        True.
    """
    return True


def nowhere(pipeline: str, options: dict[str, Any]) -> None:
    """For methods that run on every pipeline.

    Args:
        pipeline: Not looked at.
        options: Not looked at.
    """


def nothing(options: dict[str, Any]) -> None:
    """For methods that run on every machine.

    Args:
        options: Not looked at.
    """


def as_given(options: dict[str, Any], untimed: object) -> dict[str, Any]:
    """For methods whose options mean the same on every model.

    Args:
        options: Not looked at.
        untimed: Not looked at; nothing is run.

    Returns:
        No options.
    """
    return {}


@dataclass(frozen=True, kw_only=True)
class Arm:
    """A pipeline under a method: what differs in the call, and what is read afterwards."""

    call: dict[str, Any] = field(default_factory=dict)  # arguments in place of the baseline's
    reuse: Callable[[], Reuse | None] = nothing_reused  # of the last generation
    cache_bytes: Callable[[], int] = lambda: 0  # held after the last generation
    calibrated: Callable[[], dict[str, Any]] = dict  # options that a calibrating generation measured


# Runs an untimed generation under options, and gives its arm for what it measured.
Untimed = Callable[[dict[str, Any]], AbstractContextManager[Arm]]


@dataclass(frozen=True, kw_only=True)
class Method:
    """One method; `check` raises ValueError naming option, value and what is allowed."""

    check: Callable[[dict[str, Any]], object]
    # (pipe, options) -> context manager; on leaving, the pipeline is as it was, bit for bit
    apply: Callable[[Any, dict[str, Any]], AbstractContextManager[Arm]]
    trace: dict[str, Any] = field(default_factory=dict)  # options that measure entropy everywhere
    # whether what is reused depends on data, and so means nothing where weights are random
    by_data: Callable[[dict[str, Any]], bool] = never
    # whether the options hold for the run's own number of steps alone, so that no generation may be shorter
    fixed_steps: Callable[[dict[str, Any]], bool] = never
    # (the name of a pipeline's class, options) -> why the method does not run there, as a trial showed
    gap: Callable[[str, dict[str, Any]], str | None] = nowhere
    # options -> what this machine lacks for them: the run is skipped, and reports say why
    lacks: Callable[[dict[str, Any]], str | None] = nothing
    # (options, the arm after an untimed generation under given ones) -> options found by measuring the model
    resolve: Callable[[dict[str, Any], Untimed], dict[str, Any]] = as_given
    spaces: Spaces = no_spaces  # what `tune --method` searches


def by_one_generation(options: dict[str, Any], untimed: Untimed) -> dict[str, Any]:
    """What a method's arm finds in one untimed generation, for `resolve`.

    Args:
        options: As the method's check lets them through.
        untimed: Runs an untimed generation.

    Returns:
        Options that depend on model and solver.
    """
    with untimed(options) as arm:
        return arm.calibrated()


def only(options: dict[str, Any], allowed: tuple[str, ...]) -> None:
    """Refuse options that a method does not have.

    Args:
        options: By name, as a suite has them.
        allowed: Names of the options that there are.

    Raises:
        ValueError: Naming the first option that is not allowed.
    """
    for name in options:
        if name not in allowed:
            raise ValueError(f"unknown option {name!r}; allowed: {', '.join(allowed) or 'none'}")
