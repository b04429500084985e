"""A plan as the search holds it, and those that it starts from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from dqar.config import DQARConfig
from dqar.plan import BOTH, CONDITIONAL, NONE, FloatArray, spread
from dqar.policy.saved_plan import OPTIONS, SavedPlan

DEFAULT = DQARConfig()
VARIED = 0.45  # the mixture of which there are plans without a correction, and with half of the guidance


@dataclass(frozen=True)
class CandidatePlan:
    """A plan as the search changes it: per step its branches and the layers that reuse, as bits."""

    branches: tuple[int, ...]
    rows: tuple[int, ...]
    output_order: int = DEFAULT.output_order
    output_correction: float = DEFAULT.output_correction
    forecast_order: int = DEFAULT.forecast_order
    forecast_over: str | float = DEFAULT.forecast_over
    targets: str | tuple[str, ...] = DEFAULT.targets

    def plan(self, layers: int) -> SavedPlan:
        """Make the plan that it stands for.

        Args:
            layers: number of layers that the model has.

        Returns:
            The plan, without facts.
        """
        reuse = [[row >> layer & 1 for layer in range(layers)] for row in self.rows]
        return SavedPlan(
            np.array(reuse, dtype=np.bool_),
            np.array(self.branches, dtype=np.int8),
            options={name: getattr(self, name) for name in OPTIONS},
        )

    @classmethod
    def of(cls, plan: SavedPlan) -> CandidatePlan:
        """Make the candidate of a saved plan.

        Args:
            plan: its reuse and branches are taken.

        Returns:
            The candidate.
        """
        rows = [sum(1 << int(layer) for layer in np.flatnonzero(row)) for row in plan.reuse]
        return cls(tuple(map(int, plan.branches)), tuple(rows), **plan.options)

    def finer(self, factor: int) -> CandidatePlan:
        """Stretch the candidate over more steps: those in between are skipped.

        Args:
            factor: how many times the steps.

        Returns:
            The candidate at that many.
        """
        steps = factor * len(self.branches)
        branches: list[int] = [NONE] * steps
        rows = [0] * steps
        branches[::factor], rows[::factor] = self.branches, self.rows
        return replace(self, branches=tuple(branches), rows=tuple(rows))


def initial_candidates(snr: FloatArray, most: float = 1.0) -> Iterator[CandidatePlan]:
    """Make plans to start from: shares of the steps run, spread between evenly in number and evenly in
    log-SNR. Which mixture is best differs from model to model, and with the number of steps.

    Args:
        snr: signal-to-noise ratio of each step, in the schedule's order.
        most: the shares are of this share, in (0, 1].

    Yields:
        Plans with both branches, and of one mixture without a correction and with every second one
        conditional-only, too.
    """
    steps = len(snr)
    for share in (0.7, 0.6, 0.52, 0.44, 0.4, 0.36, 0.32, 0.28, 0.26, 0.24, 0.22, 0.2, 0.18, 0.16):
        for mix in (0.1, 0.2, 0.3, 0.45, 0.65):
            run = spread(snr, max(2, round(share * most * steps)), mix)
            candidate = _running(steps, {step: BOTH for step in run})
            yield candidate
            if mix == VARIED:
                yield replace(candidate, output_correction=0.0)
                halved = {step: CONDITIONAL if i % 2 and i > 2 else BOTH for i, step in enumerate(run)}
                yield _running(steps, halved)


def _running(steps: int, branches: Mapping[int, int]) -> CandidatePlan:
    return CandidatePlan(tuple([branches.get(step, NONE) for step in range(steps)]), (0,) * steps)
