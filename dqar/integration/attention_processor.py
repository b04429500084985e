"""One attention layer under DQAR: serve from the cache, or compute, keep and measure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from dqar.integration.manager import DQARManager


class DQARAttentionProcessor:
    """Stands in for a layer's own diffusers processor and obeys the manager's decision.

    Where neither K and V nor an entropy is wanted, the layer's own processor computes; elsewhere the
    same operations as diffusers' `AttnProcessor2_0`, so that the output is bit-identical to it.
    """

    supports_kv = True

    def __init__(self, layer: int, manager: DQARManager, inner: Any) -> None:
        self.layer = layer
        self.manager = manager
        self.inner = inner

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        """Return the layer's attention output, `[batch, tokens, width]`, fresh or cached."""
        manager, layer = self.manager, self.layer
        if manager.reused[layer]:
            return self._serve(attn, hidden_states, attention_mask)
        if manager.needs_qkv(layer):
            return self._compute(attn, hidden_states, encoder_hidden_states, attention_mask)
        output = self.inner(attn, hidden_states, encoder_hidden_states, attention_mask, temb)
        manager.note(layer, output)
        return output

    def _serve(self, attn: Any, x: Tensor, mask: Tensor | None) -> Tensor:
        if not self.manager.caches_kv:
            return self.manager.load(self.layer)[0]
        key, value = self.manager.load(self.layer)
        return attend(attn, project_query(attn, x), key, value, mask)

    def _compute(self, attn: Any, x: Tensor, context: Tensor | None, mask: Tensor | None) -> Tensor:
        query = project_query(attn, x)
        key, value = project_key_value(attn, x if context is None else context)
        if self.manager.measure[self.layer]:
            self.manager.measure_entropy(self.layer, query, key, attn.scale)
        output = attend(attn, query, key, value, mask)
        self.manager.note(self.layer, *((key, value) if self.manager.caches_kv else (output,)))
        return output


def project_query(attn: Any, x: Tensor) -> Tensor:
    """`[batch, tokens, width]` -> `[batch, heads, tokens, head width]`."""
    query = split_heads(attn.to_q(x), attn.heads)
    return query if attn.norm_q is None else attn.norm_q(query)


def project_key_value(attn: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """`[batch, tokens, width]` -> K and V, each `[batch, heads, tokens, head width]`."""
    key, value = split_heads(attn.to_k(x), attn.heads), split_heads(attn.to_v(x), attn.heads)
    return (key if attn.norm_k is None else attn.norm_k(key)), value


def split_heads(x: Tensor, heads: int) -> Tensor:
    """`[batch, tokens, heads * width]` -> `[batch, heads, tokens, width]`."""
    return x.view(x.shape[0], -1, heads, x.shape[-1] // heads).transpose(1, 2)


def attend(attn: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """Attention core and output projection: `[batch, heads, tokens, width]` -> `[batch, tokens, ...]`."""
    if mask is not None:
        mask = attn.prepare_attention_mask(mask, key.shape[2], key.shape[0])
        mask = mask.view(key.shape[0], attn.heads, -1, mask.shape[-1])
    x = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    x = x.transpose(1, 2).reshape(x.shape[0], -1, attn.heads * x.shape[-1]).to(query.dtype)
    x = attn.to_out[1](attn.to_out[0](x))
    return x / attn.rescale_output_factor
