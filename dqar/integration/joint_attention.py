"""Joint attention (SD3, Flux) under DQAR: text and picture tokens attend together."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

if TYPE_CHECKING:
    from dqar.integration.manager import DQARManager


class DQARJointAttentionProcessor:
    """Stands in for a joint layer's own diffusers processor and obeys the manager's decision.

    The layer's own processor always computes, whatever the model's norms and rotary embeddings are;
    query and key are taken at its attention core. An entry holds the picture's output, and in a
    two-stream block the text's beside it.
    """

    supports_kv = False  # K and V come out of the model's own processor, which cannot be cut in two

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
        image_rotary_emb: Any = None,
    ) -> Tensor | tuple[Tensor, ...]:
        """Return the layer's output `[batch, tokens, width]`, or (picture, text), fresh or cached."""
        manager, layer = self.manager, self.layer
        if manager.reused[layer]:
            tensors = manager.load(layer)
            return tensors if len(tensors) > 1 else tensors[0]
        # SD3's processor has no rotary embedding and would not take one.
        rotary = {} if image_rotary_emb is None else {"image_rotary_emb": image_rotary_emb}
        with AttentionCore(self._measure):
            output = self.inner(attn, hidden_states, encoder_hidden_states, attention_mask, **rotary)
        manager.note(layer, *(output if isinstance(output, tuple) else (output,)))
        return output

    def _measure(self, query: Tensor, key: Tensor) -> None:
        if self.manager.measure[self.layer]:
            self.manager.measure_entropy(self.layer, query, key, query.shape[-1] ** -0.5)


class AttentionCore(TorchFunctionMode):
    """Within it, `see(query, key)` is called at every scaled dot-product attention, which then runs."""

    def __init__(self, see: Callable[[Tensor, Tensor], None]) -> None:
        super().__init__()
        self.see = see

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            query, key = (*args, *(kwargs[name] for name in ("query", "key") if name in kwargs))[:2]
            self.see(query, key)
        return func(*args, **kwargs)
