"""A plan on another schedule: its steps that run, found again by log-SNR or by their share of the steps."""

from __future__ import annotations

import numpy as np

from dqar.plan import FloatArray, log_snr
from dqar.policy.saved_plan import SavedPlan


def by_log_snr(plan: SavedPlan, made_for: FloatArray, used_on: FloatArray, layers: int) -> SavedPlan:
    """Move a plan's steps to those of the nearest log-SNR on another schedule.

    Args:
        plan: of as many steps as `made_for`.
        made_for: SNR of each step of its schedule.
        used_on: SNR of each step of the other.
        layers: of the other model; a plan of other layers keeps its steps alone.

    Returns:
        The plan for the other schedule.
    """
    return moved(plan, log_snr(made_for), log_snr(used_on), layers)


def by_share(plan: SavedPlan, steps: int, layers: int) -> SavedPlan:
    """Move a plan's steps to the same shares of another number of steps.

    Args:
        plan: the plan to move.
        steps: number of steps of the other schedule.
        layers: number of layers that the model has.

    Returns:
        The plan for so many steps.
    """
    places = np.linspace(0, 1, len(plan.branches)), np.linspace(0, 1, steps)
    return moved(plan, *places, layers)


def moved(plan: SavedPlan, here: FloatArray, there: FloatArray, layers: int) -> SavedPlan:
    """Move each step that runs to the nearest place that none before it has taken, the first one first.

    Args:
        plan: the plan to move.
        here: the place of each of its steps.
        there: the place of each step of the other schedule.
        layers: number of layers that the model has.

    Returns:
        The plan for the other schedule; as many steps run, unless it has fewer.
    """
    branches = np.zeros(len(there), dtype=np.int8)
    reuse = np.zeros((len(there), layers), dtype=np.bool_)
    free = np.zeros(len(there))
    for step in np.flatnonzero(plan.branches)[: len(there)]:
        place = int(np.argmin(np.abs(there - here[step]) + free)) if step else 0
        free[place] = np.inf
        branches[place] = plan.branches[step]
        if plan.reuse.shape[1] == layers:
            reuse[place] = plan.reuse[step]
    return SavedPlan(reuse, branches, options=plan.options, facts=plan.facts)
