"""Attention entropy: how widely the queries of a layer look, in nats, from 0 to ln(keys)."""

from __future__ import annotations

import torch
from torch import Tensor


def compute_attention_entropy(weights: Tensor, eps: float = 1e-12) -> Tensor:
    """Mean entropy of attention weights, -1/(heads * queries) sum A ln(A + eps), over the batch too.

    `weights` is `[..., queries, keys]` with rows that sum to 1; returns a scalar tensor, float32, nats.
    """
    a = weights.float()
    return -(a * (a + eps).log()).sum(-1).mean()


def entropy_from_qk(query: Tensor, key: Tensor, scale: float, stride: int = 1) -> Tensor:
    """Mean attention entropy over every `stride`-th query row, without the full attention matrix.

    `query` `[batch, heads, queries, width]` and `key` `[batch, heads, keys, width]`; `scale` multiplies
    their products. H = logsumexp(s) - sum p s, in float32 (from the definition, with p = softmax(s)).
    Exact over the rows it takes. Returns a scalar tensor, nats.
    """
    rows = query[:, :, ::stride]
    scores = torch.matmul(rows, key.transpose(-1, -2)).float() * scale  # [batch, heads, rows, keys]
    log_z = scores.logsumexp(-1)
    return (log_z - (scores.softmax(-1) * scores).sum(-1)).mean()
