"""What is kept from step to step: for each layer an attention output, or a K and a V."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from dqar.cache.divided_differences import Forecast
from dqar.core.quantization import KVQuantizer, QuantizedTensor

Entry = tuple[QuantizedTensor | Tensor | Forecast, ...]


class LayerWiseKVCache:
    """One entry a layer, each layer with a quantiser of its own; an entry is replaced as a whole.

    Args:
        quantizers: One for each layer.
    """

    def __init__(self, quantizers: Sequence[KVQuantizer]) -> None:
        self.quantizers = tuple(quantizers)
        self.entries: list[Entry | None] = [None] * len(self.quantizers)

    def store(self, layer: int, *tensors: Tensor) -> None:
        """Replace a layer's entry, quantised.

        Args:
            layer: Number of the layer, from 0.
            *tensors: An attention output, or K and V, `[batch, ...]`.

        Raises:
            IndexError: The cache has no such layer.
        """
        self._check(layer)
        quantizer = self.quantizers[layer]
        self.entries[layer] = tuple([quantizer.quantize(t) for t in tensors])

    def extend(self, layer: int, rates: Sequence[Tensor], *tensors: Tensor) -> None:
        """Keep tensors with their differences to those before, from which `load` forecasts.

        Args:
            layer: Number of the layer, from 0.
            rates: As `Forecast.advanced` takes them, `[order]`; empty where nothing before counts.
            *tensors: As many as the entry has, of the same shapes; the newest are kept in full precision.

        Raises:
            IndexError: The cache has no such layer.
        """
        self._check(layer)
        quantizer, old = self.quantizers[layer], self.entries[layer] if len(rates) else None
        if old is None:
            self.entries[layer] = tuple([Forecast(t) for t in tensors])
            return
        pairs = zip(old, tensors, strict=True)
        self.entries[layer] = tuple(
            [f.advanced(t, rates, quantizer) for f, t in pairs if isinstance(f, Forecast)]
        )

    def load(self, layer: int, weights: Sequence[Tensor] = ()) -> tuple[Tensor, ...]:
        """Read a layer's entry.

        Args:
            layer: Number of the layer, from 0.
            weights: As `Forecast.at` takes them, `[order]`; not used for an entry of `store`.

        Returns:
            The tensors, dequantised, or forecast where they were extended.

        Raises:
            KeyError: The layer has no entry.
        """
        self._check(layer)
        entry, quantizer = self.entries[layer], self.quantizers[layer]
        if entry is None:
            raise KeyError(f"layer {layer} has no cache entry")
        return tuple(
            [
                stored.at(weights, quantizer)
                if isinstance(stored, Forecast)
                else quantizer.dequantize(stored)
                for stored in entry
            ]
        )

    def has(self, layer: int) -> bool:
        """Whether a layer has an entry.

        Args:
            layer: Number of the layer, from 0.

        Returns:
            True once something was kept and not dropped.
        """
        return self.entries[layer] is not None

    def own(self, layer: int) -> None:
        """Copy a layer's entry into memory of its own, out of a CUDA graph's.

        Args:
            layer: Number of the layer, from 0.

        Raises:
            IndexError: The cache has no such layer.
        """
        self._check(layer)
        entry = self.entries[layer]
        self.entries[layer] = entry and tuple([stored.clone() for stored in entry])

    def drop(self, layer: int) -> None:
        """Forget a layer's entry.

        Args:
            layer: Number of the layer, from 0.

        Raises:
            IndexError: The cache has no such layer.
        """
        self._check(layer)
        self.entries[layer] = None

    def clear(self) -> None:
        """Forget all entries."""
        self.entries = [None] * len(self.quantizers)

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors held now."""
        return sum(stored.nbytes for entry in self.entries if entry for stored in entry)

    def _check(self, layer: int) -> None:
        if not 0 <= layer < len(self.entries):
            raise IndexError(f"layer = {layer} is not in the cache; allowed: 0 to {len(self.entries) - 1}")


class QuantizedKVCache(LayerWiseKVCache):
    """A cache whose layers all share one quantiser.

    Args:
        num_layers: Number of layers.
        quantizer: Shared by all of them; None = 8 bits, one scale a tensor.
    """

    def __init__(self, num_layers: int, quantizer: KVQuantizer | None = None) -> None:
        super().__init__([quantizer or KVQuantizer()] * num_layers)
