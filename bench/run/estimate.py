"""How long a suite takes, estimated from its budgets."""

from __future__ import annotations

from collections.abc import Sequence

from bench.spec.run_spec import RunSpec, groups

# Seconds besides timing, on two cores: to start a process; to warm up, count and compare a configuration; and
# the process that measures its memory.
PROCESS_S, CONFIGURATION_S, MEMORY_S = 10, 6, 8


def minutes(specs: Sequence[RunSpec]) -> float:
    """The minutes that timing may take, with what each process and configuration takes besides."""
    return sum(map(_seconds, groups(specs))) / 60


def estimate(specs: Sequence[RunSpec]) -> str:
    """The estimate in words: a slow model's least number of pairs may exceed the budget."""
    limit = sum(spec.timeout_s for spec in specs) / 60
    return f"about {minutes(specs):.0f} minutes where the budgets suffice, at most {limit:.0f}"


def _seconds(group: Sequence[RunSpec]) -> float:
    """Of n configurations a round is n + 1 generations, where pairs of their own would be 2 n."""
    n, budget = len(group), sum(spec.timing.budget_s for spec in group)
    besides = sum(CONFIGURATION_S + spec.memory * MEMORY_S for spec in group)
    return PROCESS_S + budget * (n + 1) / (2 * n) + besides
