"""The decision of each step: which layers reuse, are kept, measured and compared, and what runs at all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dqar.cache.divided_differences import InterpolationNodes
from dqar.config import DQARConfig
from dqar.core.reasons import Reason, Reasons
from dqar.core.reuse_gate import ReuseGate, Signals
from dqar.integration.slots import Slots
from dqar.plan import BOTH, NONE, Branches, Rules

FloatArray = npt.NDArray[np.float64]
Layers = npt.NDArray[np.bool_]  # [layers]


class StepDecision(NamedTuple):
    """What one call of the transformer does. Plain tuples: constants to torch.compile, and cheap to index.

    `reuse` and `keep` have an entry for each cache slot, `measure`, `compare` and `known` for each layer.
    """

    reuse: tuple[bool, ...]  # return the cached output
    keep: tuple[bool, ...]  # cache what is computed
    measure: tuple[bool, ...]  # measure the attention's entropy
    compare: tuple[bool, ...]  # measure how far the entry is from what is computed
    known: tuple[int, ...]  # coefficients that a layer's forecast takes
    branches: Branches  # guidance branches that run
    drop: tuple[int, ...]  # slots whose entries are dropped before the step
    coefficients: tuple[tuple[float, ...], ...]  # [layers, order], of the forecasts
    reasons: Reasons  # [layers]
    outcome: bytes  # what each slot does where all goes as decided: SKIPPED, COMPUTED or REUSED
    stores: bool  # whether some slot gets a new entry


SKIPPED, COMPUTED, REUSED = 0, 1, 2  # what a slot did at a step


class DecisionMaker:
    """Walks one branch along the trajectory and decides each step from the rules, the ages and the data.

    Without data the walk can be made ahead: a static plan is looked up instead of decided again.

    Args:
        config: What may be reused, and when.
        slots: The model's cache slots.
        rules: What depends on no data, of the whole schedule.
        position: Coordinate of each step, for forecasts, `[steps]`.
        begin: Step at which the branch begins, where nothing is cached yet.
        gate: Of this branch alone: it keeps the entries' ages.
    """

    def __init__(
        self,
        config: DQARConfig,
        slots: Slots,
        rules: Rules,
        position: FloatArray,
        begin: int,
        gate: ReuseGate,
    ) -> None:
        self.config, self.slots, self.position, self.gate, self.begin = config, slots, position, gate, begin
        self.follow(rules)
        layers = len(slots.targets)
        self.nodes = InterpolationNodes(layers, config.forecast_order)
        self.kept = np.zeros(layers, dtype=np.bool_)
        self.known_entropy = np.full(layers, np.nan)  # of each layer's last measurement
        self.measured_at = np.full(layers, -np.inf)  # step of that measurement
        self.span = np.ones(layers)  # steps since the entry was made that a computed layer has

    def follow(self, rules: Rules) -> None:
        """Take other rules from the next step on.

        Args:
            rules: Of the whole schedule; they are copied. Up to the step at which the branch begins nothing
                is skipped.
        """
        self.blocked, self.branches = rules.blocked.copy(), rules.branches.copy()
        early = self.blocked[: self.begin + 1]
        early[early == Reason.SKIPPED] = Reason.NO_ENTRY
        self.branches[: self.begin + 1] = BOTH

    def ahead(self) -> list[StepDecision]:
        """The decisions of all steps, where no data change them.

        Returns:
            One a step from 0 on; those before the branch begins are that step's own.
        """
        decisions = [self.next(step) for step in range(self.begin, len(self.blocked))]
        return [decisions[0]] * self.begin + decisions

    def next(self, step: int, signals: Signals | None = None) -> StepDecision:
        """Decide a step.

        Args:
            step: Number of the step, from 0; the one after the last that was decided.
            signals: What is known from the data; None = the data allow everything.

        Returns:
            What the step does.
        """
        self.span = self.gate.age + 1
        reasons = self.gate.decide(self.blocked[step], signals)
        if (reasons == Reason.DEVIATION).any():
            self.branches[step] = BOTH
        branches = Branches(int(self.branches[step]))
        if branches == NONE:
            return self._skipped(reasons)
        wanted = self._wanted(step)
        due = step - self.measured_at >= self.config.entropy_interval
        measure = (wanted & due & self.config.needs_entropy) | self.config.trace_entropy
        # What is measured now may allow it; what is known already may have forbidden it.
        entropy_blocked = self.gate.forbids(self.known_entropy) & ~measure
        return self._decision(step, reasons, wanted & ~entropy_blocked, measure, branches)

    def _wanted(self, step: int) -> Layers:
        """Layers whose entry may be reused at the next step that runs, or for a forecast at one of the
        `order` after it: only these are worth keeping."""
        run = step + 1 + np.flatnonzero(self.branches[step + 1 :] != NONE)
        coming = self.blocked[run[: 1 + self.config.forecast_order]]
        return np.asarray(((coming == Reason.REUSED) | (coming == Reason.PROBE)).any(axis=0))

    def _decision(
        self, step: int, reasons: Reasons, keep: Layers, measure: Layers, branches: Branches
    ) -> StepDecision:
        reused = reasons == Reason.REUSED
        compare = self.kept & ~reused & self.config.adaptive
        # Dropped before it is computed again: never two of a layer at once, unless a forecast needs both.
        held = keep if self.config.forecast_order else np.zeros_like(keep)
        dropped = np.flatnonzero(~reused & ~compare & ~held)
        for layer in dropped:
            self.nodes.forget(int(layer))
        self.kept = keep
        known, coefficients = self._coefficients(step, reused, keep)
        reuse, kept = self.slots.mask(reused), self.slots.mask(keep)
        return StepDecision(
            reuse=reuse,
            keep=kept,
            measure=tuple(measure.tolist()),
            compare=tuple(compare.tolist()),
            known=known,
            branches=branches,
            drop=self.slots.of(dropped),
            coefficients=coefficients,
            reasons=reasons,
            outcome=self.slots.outcome(reuse),
            stores=any(k and not r for k, r in zip(kept, reuse, strict=True)),
        )

    def _skipped(self, reasons: Reasons) -> StepDecision:
        slots, layers = (False,) * self.slots.count, (False,) * len(self.kept)
        return StepDecision(
            reuse=slots,
            keep=slots,
            measure=layers,
            compare=layers,
            known=(0,) * len(self.kept),
            branches=NONE,
            drop=(),
            coefficients=(),
            reasons=reasons,
            outcome=bytes(self.slots.count),
            stores=False,
        )

    def _coefficients(
        self, step: int, reused: Layers, keep: Layers
    ) -> tuple[tuple[int, ...], tuple[tuple[float, ...], ...]]:
        """What each layer's forecast takes at this step, padded to the order with zeros."""
        order, layers = self.config.forecast_order, len(keep)
        if not order:
            return (0,) * layers, ()
        here = float(self.position[step])
        rows = [self.nodes.row(layer, here, bool(reused[layer])) for layer in range(layers)]
        for layer in np.flatnonzero(keep & ~reused):
            self.nodes.computed(int(layer), here)
        padded = tuple([tuple([*row, *[0.0] * (order - len(row))]) for row in rows])
        return tuple([len(row) for row in rows]), padded


def by_hand(slots: Slots, reuse: Sequence[int], keep: bool, measure: bool) -> StepDecision:
    """Make a decision outside of any plan.

    Args:
        slots: The model's cache slots.
        reuse: Numbers of the layers to reuse; all others compute.
        keep: Whether the others are kept.
        measure: Whether entropies are measured.

    Returns:
        A decision that runs both guidance branches and forecasts nothing.
    """
    layers = len(slots.targets)
    reused = np.isin(np.arange(layers), list(reuse))
    mask = slots.mask(reused)
    return StepDecision(
        reuse=mask,
        keep=slots.mask(np.full(layers, keep)),
        measure=(measure,) * layers,
        compare=(False,) * layers,
        known=(0,) * layers,
        branches=BOTH,
        drop=(),
        coefficients=(),
        reasons=np.where(reused, Reason.REUSED, Reason.PLAN).astype(np.int8),
        outcome=slots.outcome(mask),
        stores=keep,
    )
