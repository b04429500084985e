"""One branch of a generation: all calls of a guided batch, or the calls of one guidance branch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dqar.core.reasons import Reason
from dqar.core.reuse_gate import Signals
from dqar.integration.layer_store import LayerStore, Measurements
from dqar.integration.output_forecast import OutputForecaster, StepPosition
from dqar.integration.step_decision import COMPUTED, SKIPPED, DecisionMaker, StepDecision
from dqar.integration.summary import Record
from dqar.plan import NONE, FloatArray


class Branch:
    """State of one branch: nothing of it is shared with another, and nothing outlives its generation.

    Args:
        store: What its layers keep.
        measurements: What its layers measure.
        maker: Decides its steps one by one.
        ahead: Its steps' decisions, where no data change them.
        record: What happened so far.
        inputs: Shape, dtype and device of its latents.
        outputs: Kept where some step does not run, or runs only one branch.
    """

    def __init__(
        self,
        store: LayerStore,
        measurements: Measurements,
        maker: DecisionMaker,
        ahead: list[StepDecision] | None,
        record: Record,
        inputs: Any,
        outputs: OutputForecaster | None,
    ) -> None:
        self.store, self.measurements, self.maker, self.ahead = store, measurements, maker, ahead
        self.record, self.inputs, self.outputs = record, inputs, outputs
        self.step = maker.begin - 1
        self.last_deviation = np.nan  # the last error of a forecast over the expected one
        self._table: Tensor | None = None  # coefficients of all steps, on the device

    @property
    def decision(self) -> StepDecision:
        """What this step does."""
        return self.store.decision

    def begin(self, step: int, signals: Signals | None, latents: Tensor | Sequence[Tensor]) -> None:
        """Decide a step, and prepare what its layers ask for on the device of the latents.

        Args:
            step: Number of the step, from 0; the one after the last that was started.
            signals: What is known from the data; None for a static plan.
            latents: `[batch, ...]`, or a list of one a sample; only their device counts.
        """
        decision = self.ahead[step] if self.ahead is not None else self.maker.next(step, signals)
        self.step = step
        self.store.begin(decision, self._coefficients(step, decision, latents) if self.store.order else None)
        self.record.decisions[step] = decision

    def end(self, graphed: bool, observed: bool) -> None:
        """Note what happened at the step, and the bytes that are held.

        Args:
            graphed: Whether the transformer runs in CUDA graphs, which write over what they returned.
            observed: Whether hooks report what each slot did; without, all is taken to go as decided.
        """
        decision = self.store.decision
        if graphed and decision.stores:
            self.store.copy_from_graph()
        if decision.branches != NONE and observed and bytes(self.store.did) != decision.outcome:
            self._correct_record()
        if decision.stores or self.outputs is not None:
            held = self.store.cache.nbytes + (self.outputs.nbytes if self.outputs else 0)
            self.record.cache_bytes = max(self.record.cache_bytes, held)

    def free(self) -> None:
        """Free what is cached: no step of the generation is left."""
        self.store.cache.clear()
        self.outputs = None
        self._table = None

    def note_read(
        self, entropy: FloatArray, change: FloatArray, deviation: float, expected: FloatArray
    ) -> None:
        """Take what the last step measured, as it was read.

        Args:
            entropy: Of each layer, `[layers]`, nats; nan = not measured.
            change: Relative change of each layer's output, `[layers]`; nan = not measured.
            deviation: Relative error of the output's forecast; nan = not measured.
            expected: That error as the plan's calibration measured it, `[steps]`, above 0.
        """
        measured = ~np.isnan(entropy)
        self.maker.known_entropy[measured] = self.record.entropy[self.step, measured] = entropy[measured]
        self.maker.measured_at[measured] = self.step
        if self.maker.gate.adaptive is not None:
            self.maker.gate.adaptive.observe(change, self.maker.span)
        if not np.isnan(deviation):
            self.record.deviation[self.step] = deviation
            self.last_deviation = deviation / expected[self.step]

    def position(self, sensitivity: FloatArray) -> StepPosition:
        """Where this step is, for the forecasts of outputs.

        Args:
            sensitivity: Of the solver, as `solver_sensitivity` gives it, `[steps]`.

        Returns:
            Its coordinate and the solver's sensitivity there.
        """
        return StepPosition(float(self.maker.position[self.step]), float(sensitivity[self.step]))

    def needs_qkv(self, layer: int) -> bool:
        """Whether a layer's queries, keys or values are wanted at this step.

        Args:
            layer: Number of the layer, from 0.

        Returns:
            True where its entropy is measured, or its K and V are kept or compared.
        """
        kv = self.maker.config.reuse_mode == "kv"
        return self.decision.measure[layer] or (
            kv and (self.decision.keep[layer] or self.decision.compare[layer])
        )

    def _coefficients(
        self, step: int, decision: StepDecision, latents: Tensor | Sequence[Tensor]
    ) -> Tensor | None:
        """The step's forecast coefficients `[layers, order]` on the device, without a wait."""
        device = latents.device if isinstance(latents, Tensor) else latents[0].device
        if self.ahead is None:
            return _to_device([decision.coefficients], device)[0] if decision.coefficients else None
        if self._table is None:
            empty = ((0.0,) * self.store.order,) * self.store.slots.layers
            self._table = _to_device([d.coefficients or empty for d in self.ahead], device)
        return self._table[step]

    def _correct_record(self) -> None:
        """Where a layer did not do as decided, its record states what it did instead."""
        row, did, decided = self.decision.reasons.copy(), self.store.did, self.decision.outcome
        for layer, slots in enumerate(self.store.slots.targets):
            called = [slot for slot in slots if did[slot] != SKIPPED]  # some streams do not always run
            if not called:
                row[layer] = Reason.NOT_CALLED
            elif any(did[slot] == COMPUTED != decided[slot] for slot in called):
                row[layer] = Reason.NO_ENTRY
        self.record.corrections[self.step] = row


def _to_device(rows: Sequence[Any], device: torch.device) -> Tensor:
    table = torch.tensor(rows)
    # Pinned, so that the host need not wait for the copy.
    pinned = table.pin_memory() if device.type == "cuda" else table
    return pinned.to(device, non_blocking=True)
