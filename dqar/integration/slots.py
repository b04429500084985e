"""Cache slots: one for each module whose output can be reused, and which of them a layer's reuse covers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from dqar.errors import invalid_value

TARGETS = ("attention", "mlp", "both")


class Slots:
    """The slots of the first layers of a model.

    A layer's attention has the slot of the layer's own number; the MLPs of all layers follow, one slot for
    each module.

    Args:
        targets: What a layer's reuse covers, one of TARGETS, for all layers or for each.
        layers: Number of the managed layers.
        mlps: MLPs of each layer; None = one each.
        model: The model's name, for messages.

    Raises:
        ValueError: Where `targets` has not one entry a layer, or names an MLP that a layer does not have.
    """

    def __init__(
        self,
        targets: str | Sequence[str],
        layers: int,
        mlps: Sequence[int] | None = None,
        model: str = "the model",
    ) -> None:
        each = (targets,) * layers if isinstance(targets, str) else tuple(targets)
        if len(each) != layers:
            raise ValueError(f"targets has {len(each)} entries; allowed: one for each of the {layers} layers")
        counts = [1] * layers if mlps is None else list(mlps[:layers])
        first = layers + np.concatenate(([0], np.cumsum(counts)))
        self.mlps = [tuple(range(first[layer], first[layer + 1])) for layer in range(layers)]
        self.count = int(first[-1])
        self.targets = [self._of(layer, target) for layer, target in enumerate(each)]
        lacking = [layer for layer, target in enumerate(each) if target != "attention" and not counts[layer]]
        if lacking:
            having = [layer for layer in range(layers) if counts[layer]]
            where = f", or one a layer with 'mlp' for layers {_ranges(having)}" if having else ""
            raise invalid_value("targets", "mlp", f"'attention' for {model}{where}")
        self._reused = {slot for slots in self.targets for slot in slots}
        self._hooked = bytes([int(slot < layers or slot in self._reused) for slot in range(self.count)])

    @property
    def layers(self) -> int:
        """Layers that are managed."""
        return len(self.targets)

    def layer_of(self, slot: int) -> int:
        """The layer that a slot belongs to.

        Args:
            slot: Number of the slot, below `count`.

        Returns:
            Number of the layer, from 0.
        """
        if slot < self.layers:
            return slot
        return next(layer for layer, slots in enumerate(self.mlps) if slot in slots)

    def is_reused(self, slot: int) -> bool:
        """Whether some step may reuse a slot.

        Args:
            slot: Number of the slot.

        Returns:
            False for what no layer's target covers.
        """
        return slot in self._reused

    def mask(self, layers: npt.NDArray[np.bool_]) -> tuple[bool, ...]:
        """Flag the slots that the reuse of some layers covers.

        Args:
            layers: True = reused, `[layers]`.

        Returns:
            One flag a slot.
        """
        flags = [False] * self.count
        for layer in np.flatnonzero(layers):
            for slot in self.targets[layer]:
                flags[slot] = True
        return tuple(flags)

    def of(self, layers: npt.NDArray[np.intp]) -> tuple[int, ...]:
        """The slots that the reuse of some layers covers.

        Args:
            layers: Numbers of the layers.

        Returns:
            Numbers of their slots, layer by layer.
        """
        return tuple([slot for layer in layers for slot in self.targets[layer]])

    def outcome(self, reuse: Sequence[bool]) -> bytes:
        """What each slot does where all goes as decided.

        Args:
            reuse: One flag a slot.

        Returns:
            One byte a slot: 0 = has no hook, 1 = computes, 2 = reuses.
        """
        return bytes([hooked + flag for hooked, flag in zip(self._hooked, reuse, strict=True)])

    def _of(self, layer: int, target: str) -> tuple[int, ...]:
        attention = (layer,) if target in ("attention", "both") else ()
        return attention + (self.mlps[layer] if target in ("mlp", "both") else ())


def _ranges(numbers: Sequence[int]) -> str:
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(f"{p[0]} to {p[-1]}" if len(p) > 1 else str(p[0]) for p in parts)
