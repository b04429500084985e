"""What is kept from step to step: for each layer an attention output, or a K and a V."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from dqar.core.quantization import KVQuantizer, QuantizedTensor

Entry = tuple[QuantizedTensor | Tensor, ...]


class LayerWiseKVCache:
    """One entry a layer, each layer with a quantiser of its own; an entry is replaced as a whole."""

    def __init__(self, quantizers: Sequence[KVQuantizer]) -> None:
        self.quantizers = tuple(quantizers)
        self.entries: list[Entry | None] = [None] * len(self.quantizers)

    def store(self, layer: int, *tensors: Tensor) -> None:
        """Replace the layer's entry by `tensors` (an output, or K and V), quantised."""
        self._check(layer)
        quantizer = self.quantizers[layer]
        self.entries[layer] = tuple([quantizer.quantize(t) for t in tensors])

    def load(self, layer: int) -> tuple[Tensor, ...]:
        """Return the layer's tensors, dequantised. Raises `KeyError` when it has no entry."""
        self._check(layer)
        entry = self.entries[layer]
        if entry is None:
            raise KeyError(f"layer {layer} has no cache entry")
        return tuple([self.quantizers[layer].dequantize(stored) for stored in entry])

    def drop(self, layer: int) -> None:
        """Forget the layer's entry."""
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
    """A cache whose layers all share one quantiser."""

    def __init__(self, num_layers: int, quantizer: KVQuantizer | None = None) -> None:
        super().__init__([quantizer or KVQuantizer()] * num_layers)
