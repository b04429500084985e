"""A cache entry that forecasts: a tensor with its divided differences, extrapolated instead of repeated.

Newton's form of the polynomial through the last `order + 1` computed values (Newton 1687; Taylor's form
of it for features of a DiT: Liu et al. 2025, arXiv 2503.06923), over any coordinate of the steps.
A quantised value is never differenced: every later step would amplify its rounding. The value is kept
as computed, and the differences, small compared with it, are quantised once each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dqar.core.quantization import KVQuantizer, QuantizedTensor


@dataclass(frozen=True)
class Forecast:
    """The newest value `[...]` and its divided differences of first order and up."""

    value: Tensor
    differences: tuple[QuantizedTensor | Tensor, ...] = ()

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors held."""
        return self.value.nbytes + sum(d.nbytes for d in self.differences)

    def clone(self) -> Forecast:
        """Copy the tensors that are held.

        Returns:
            The same entry in memory of its own.
        """
        return Forecast(self.value.clone(), tuple([d.clone() for d in self.differences]))

    def advanced(self, value: Tensor, rates: Sequence[Tensor | float], quantizer: KVQuantizer) -> Forecast:
        """Make the entry whose newest value is `value`.

        Args:
            value: The newest value, of the entry's shape; it is kept, not copied.
            rates: 1 / (its node - the k-th last node), `[order]`; as many differences are kept.
            quantizer: Stores the differences, and reads the old ones.

        Returns:
            A new entry; this one is unchanged.
        """
        old = [self.value, *(quantizer.dequantize(d) for d in self.differences)]
        fresh = [value]
        for before, rate in zip(old, rates, strict=False):
            fresh.append((fresh[-1] - before) * rate)
        return Forecast(value, tuple([quantizer.quantize(d) for d in fresh[1:]]))

    def at(self, weights: Sequence[Tensor | float], quantizer: KVQuantizer) -> Tensor:
        """Evaluate the polynomial at a node.

        Args:
            weights: Products (node - last) (node - last but one) ..., `[order]`; differences beyond them do
                not count.
            quantizer: Reads the differences.

        Returns:
            The forecast value, of the entry's shape; the newest value itself where there are no weights.
        """
        value = self.value
        for stored, weight in zip(self.differences, weights, strict=False):
            difference = quantizer.dequantize(stored)
            if isinstance(weight, Tensor):
                value = torch.addcmul(value, difference, weight)
            else:
                value = torch.add(value, difference, alpha=weight)
        return value


class InterpolationNodes:
    """Where along the trajectory each layer's last values were computed, on the host.

    Args:
        layers: Number of layers.
        order: Order of the polynomial; the last `order + 1` nodes of each layer are kept.
    """

    def __init__(self, layers: int, order: int) -> None:
        self.order = order
        self.past: list[list[float]] = [[] for _ in range(layers)]  # newest first

    def row(self, layer: int, position: float, reused: bool) -> list[float]:
        """What a layer's forecast at a position takes, or its differences if it is computed there.

        Args:
            layer: Number of the layer, from 0.
            position: The step's coordinate, log-SNR or step number.
            reused: Whether the layer is forecast there, else computed.

        Returns:
            A number for each order that the layer's past allows, at most `order`: products of gaps for
            `Forecast.at`, or inverse gaps for `Forecast.advanced`; none at a node that the layer has already.
        """
        gaps = [position - node for node in self.past[layer]]
        if 0 in gaps and not reused:
            return []
        if reused:
            return [math.prod(gaps[: k + 1]) for k in range(min(self.order, len(gaps) - 1))]
        return [1 / gap for gap in gaps[: self.order]]

    def computed(self, layer: int, position: float) -> None:
        """Note that a layer's value at a position was kept.

        A second one there starts the history again: no difference is known from it to earlier values.

        Args:
            layer: Number of the layer, from 0.
            position: The step's coordinate.
        """
        past = [] if position in self.past[layer] else self.past[layer]
        self.past[layer] = [position, *past][: self.order + 1]

    def forget(self, layer: int) -> None:
        """Start the layer's history again.

        Args:
            layer: Number of the layer, from 0.
        """
        self.past[layer] = []
