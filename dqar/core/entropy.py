"""Attention entropy: how widely the queries of a layer look, in nats, from 0 to ln(keys)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dqar.validation import count


def compute_attention_entropy(weights: Tensor, eps: float = 1e-12) -> Tensor:
    """Mean entropy of attention weights, -1/(heads * queries) sum A ln(A + eps), over the batch too.

    Args:
        weights: `[..., queries, keys]`, rows that sum to 1.
        eps: Added within the logarithm.

    Returns:
        A scalar tensor, float32, nats.
    """
    a = weights.float()
    return -(a * (a + eps).log()).sum(-1).mean()


def entropy_from_qk(
    query: Tensor,
    key: Tensor,
    scale: float,
    stride: int = 1,
    chunk: int | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """Mean attention entropy over every `stride`-th query row, without the full attention matrix.

    H = -sum p ln p with ln p = log_softmax(s), in float32, exact over the rows that it takes.

    Args:
        query: `[batch, heads, queries, width]`.
        key: `[batch, heads, keys, width]`.
        scale: Factor on their products; scaled dot-product attention has width^-0.5.
        stride: Distance of the rows that are measured; 1 = all.
        chunk: Rows that are held at a time; None = all. Not used with a mask.
        mask: Broadcastable to `[batch, heads, queries, keys]`, as scaled dot-product attention takes it: true
            where a query attends, or a number to add to each product. None = all attend to all.

    Returns:
        A scalar tensor, float32, nats.
    """
    rows = query[:, :, ::stride] * scale
    if mask is not None:
        return _masked_entropies(rows, key, mask, stride)
    if chunk is None:
        return _row_entropies(rows, key).mean()
    return torch.cat([_row_entropies(part, key) for part in rows.split(chunk, dim=2)], 2).mean()


def _row_entropies(rows: Tensor, key: Tensor) -> Tensor:
    scores = torch.matmul(rows, key.transpose(-1, -2))  # [batch, heads, rows, keys]
    log_p = scores.log_softmax(-1, dtype=torch.float32)
    return -(log_p.exp() * log_p).sum(-1)


def _masked_entropies(rows: Tensor, key: Tensor, mask: Tensor, stride: int) -> Tensor:
    scores = torch.matmul(rows, key.transpose(-1, -2)).float()
    mask = mask[..., ::stride, :]  # of a single row, itself
    scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
    log_p = scores.log_softmax(-1)
    # A key that is masked has p = 0, and 0 ln 0 = 0; a query that may look nowhere has no entropy.
    return -(log_p.exp() * log_p.clamp_min(-1e9)).sum(-1).nanmean()


class AttentionEntropyComputer:
    """Measures attention entropies and keeps the history of each layer over the steps.

    Args:
        stride: Every n-th query row is measured; 1 = all, which is exact.
        chunk: Rows that are held at a time.

    Raises:
        InvalidValue: Either is below 1.
    """

    def __init__(self, stride: int = 1, chunk: int = 256) -> None:
        for name, value in (("stride", stride), ("chunk", chunk)):
            count(1).check(name, value)
        self.stride, self.chunk = stride, chunk
        self._recorded: dict[tuple[int, int], float | Tensor] = {}

    def from_weights(self, weights: Tensor) -> Tensor:
        """Mean entropy of attention weights.

        Args:
            weights: `[..., queries, keys]`, rows that sum to 1.

        Returns:
            A scalar tensor, float32, nats.
        """
        return compute_attention_entropy(weights)

    def from_qk(self, query: Tensor, key: Tensor, scale: float | None = None) -> Tensor:
        """Mean attention entropy of queries on keys.

        Args:
            query: `[batch, heads, tokens, width]`.
            key: The same.
            scale: Factor on their products; None = width^-0.5, as in scaled dot-product attention.

        Returns:
            A scalar tensor, nats.
        """
        return entropy_from_qk(query, key, scale or query.shape[-1] ** -0.5, self.stride, self.chunk)

    def record(self, layer: int, step: int, value: float | Tensor) -> None:
        """Record a layer's entropy at a step, in place of an earlier one.

        Args:
            layer: Number of the layer, from 0.
            step: Number of the step, from 0.
            value: Nats; a tensor stays on its device until the history is read.
        """
        self._recorded[step, layer] = value

    def history(self) -> npt.NDArray[np.float64]:
        """What was recorded.

        Returns:
            `[steps, layers]` up to the last of each, nats; nan where nothing was recorded, `[0, 0]` before
            anything is.
        """
        if not self._recorded:
            return np.empty((0, 0))
        steps, layers = (list(axis) for axis in zip(*self._recorded, strict=True))
        table = np.full((max(steps) + 1, max(layers) + 1), np.nan)
        values = [torch.as_tensor(value, dtype=torch.float32) for value in self._recorded.values()]
        table[steps, layers] = torch.stack(values).tolist()
        return table

    def reset(self) -> None:
        """Forget the history."""
        self._recorded.clear()
