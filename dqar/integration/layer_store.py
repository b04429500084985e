"""What one branch's layers keep from step to step, and what they measured at the last one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dqar.cache.kv_cache import LayerWiseKVCache
from dqar.core.entropy import entropy_from_qk
from dqar.core.quantization import KVQuantizer
from dqar.integration.slots import Slots
from dqar.integration.step_decision import SKIPPED, StepDecision
from dqar.integration.tree import LEAF, Template
from dqar.plan import BOTH


class LayerStore:
    """The cached outputs of a branch's slots, under the decision of the current step.

    Args:
        slots: The model's cache slots.
        quantizers: One for each slot.
        order: Order of the forecasts; 0 = the last output is repeated.
    """

    decision: StepDecision

    def __init__(self, slots: Slots, quantizers: Sequence[KVQuantizer], order: int) -> None:
        self.slots, self.order = slots, order
        self.cache = LayerWiseKVCache(quantizers)
        self.templates: list[Template] = [LEAF] * slots.count
        self.layer_of = [slots.layer_of(slot) for slot in range(slots.count)]
        self.conditional: int | None = None  # the guidance half that entries hold, if they hold one
        self.coefficients = torch.zeros(slots.layers, 0)  # [layers, order], on the device
        self.did = [SKIPPED] * slots.count  # what each slot did at this step

    def begin(self, decision: StepDecision, coefficients: Tensor | None) -> None:
        """Take a step's decision, and drop the entries that it drops.

        Args:
            decision: What the step does.
            coefficients: Of its forecasts, `[layers, order]`, on the device; None = the step has none.
        """
        self.decision = decision
        if coefficients is not None:
            self.coefficients = coefficients
        for slot in decision.drop:
            self.cache.drop(slot)
        self.did = [SKIPPED] * self.slots.count

    def next_of(self, slots: tuple[int, ...]) -> int | None:
        """The slot of a module's next call at this step.

        Args:
            slots: The module's slots in the order of its calls.

        Returns:
            None where it has been called as often as it has slots: further calls run untouched.
        """
        for slot in slots:
            if self.did[slot] == SKIPPED:
                return slot
        return None

    def can_reuse(self, slot: int) -> bool:
        """Whether a slot is to return its entry at this step, and has one.

        Args:
            slot: Number of the slot.

        Returns:
            False where the decision allows it but nothing was kept.
        """
        return self.decision.reuse[slot] and self.cache.has(slot)

    def store(self, slot: int, *tensors: Tensor) -> None:
        """Keep what a slot computed; one guidance half of it if entries hold one.

        Args:
            slot: Number of the slot.
            *tensors: An output, or K and V, `[batch, ...]`.
        """
        if self.conditional is not None and self.decision.branches == BOTH:
            # A copy: a view of one half would keep the other half's memory alive.
            tensors = tuple([t.chunk(2)[self.conditional].clone() for t in tensors])
        if self.order:
            self.cache.extend(slot, self._row(slot), *tensors)
        else:
            self.cache.store(slot, *tensors)

    def load(self, slot: int) -> tuple[Tensor, ...]:
        """Read what `store` kept, or the forecast from it at this step.

        Args:
            slot: Number of a slot that has an entry.

        Returns:
            The tensors for the whole batch, `[batch, ...]`.

        Raises:
            KeyError: The slot has no entry.
        """
        tensors = self.cache.load(slot, self._row(slot) if self.order else ())
        if self.conditional is not None and self.decision.branches == BOTH:
            tensors = tuple([torch.cat((t, t)) for t in tensors])
        return tensors

    def copy_from_graph(self) -> None:
        """Copy what the step stored out of a CUDA graph's memory, before the next replay writes over it."""
        for slot, (keep, reuse) in enumerate(zip(self.decision.keep, self.decision.reuse, strict=True)):
            if keep and not reuse:
                self.cache.own(slot)

    def _row(self, slot: int) -> tuple[Tensor, ...]:
        layer = self.layer_of[slot]
        return tuple([self.coefficients[layer, k] for k in range(self.decision.known[layer])])


class Measurements:
    """What the layers measured at a step, on the device, until all of it is read together.

    Args:
        layers: Layers that are managed.
        heads: Attention heads whose entropy is averaged, counted from the first.
        stride: The entropy is that of every `stride`-th query row.
    """

    def __init__(self, layers: int, heads: int, stride: int) -> None:
        self.layers, self.heads, self.stride = layers, heads, stride
        self.clear()

    def clear(self) -> None:
        """Forget what was measured."""
        self.entropy: list[Tensor | None] = [None] * self.layers
        self.change: list[Tensor | None] = [None] * self.layers
        self.deviation: Tensor | None = None

    def measure_entropy(
        self, layer: int, query: Tensor, key: Tensor, scale: float, mask: Tensor | None = None
    ) -> None:
        """Measure the entropy of a layer's attention.

        Args:
            layer: Number of the layer, from 0.
            query: `[batch, heads, tokens, width]`.
            key: `[batch, heads, keys, width]`; fewer heads than the query's, which they divide, are shared by
                them.
            scale: Factor on their products.
            mask: As scaled dot-product attention takes it; None = all attend to all.
        """
        if key.shape[1] < query.shape[1]:  # grouped queries share their keys
            key = key.repeat_interleave(query.shape[1] // key.shape[1], dim=1)
        heads = min(self.heads, query.shape[1])
        query, key = query[:, :heads], key[:, :heads]
        if mask is not None and mask.ndim == 4 and mask.shape[1] > 1:
            mask = mask[:, :heads]
        self.entropy[layer] = entropy_from_qk(query, key, scale, self.stride, mask=mask)

    def measure_change(self, layer: int, cached: Tensor, fresh: Tensor) -> None:
        """Measure how far a layer's entry is from what was just computed, ||fresh - cached|| / ||fresh||.

        Args:
            layer: Number of the layer, from 0.
            cached: The entry's first tensor, dequantised.
            fresh: What replaces it, of the same shape.
        """
        self.change[layer] = ((fresh - cached).float().norm() / fresh.float().norm()).clamp_max(1e6)
