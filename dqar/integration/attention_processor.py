"""One attention layer under DQAR: reuse its output, or compute, keep and measure it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from dqar.errors import invalid_value
from dqar.integration.hooks import Decider, ForwardHook

if TYPE_CHECKING:
    from torch import nn

    from dqar.integration.branch import Branch

PLAIN_PROCESSORS = ("AttnProcessor2_0",)
EXTRAS = (
    "group_norm",
    "spatial_norm",
    "norm_cross",
    "residual_connection",
    "add_k_proj",
    "fused_projections",
)


class DQARAttentionProcessor(ForwardHook):
    """Stands in for an attention module's `forward`; the module's own processor stays and computes.

    Only where K and V are wanted, or the entropy of a plain attention, the same operations as those of
    diffusers' `AttnProcessor2_0` run here, so that the output is bit-identical to it. The entropy of other
    attentions is measured at their core, the scaled dot-product attention.

    Args:
        layer: Number of the layer, from 0, which is its cache slot too.
        decider: Decides what each call does.
        module: The attention.
        kv: Whether K and V are kept in place of the output.
    """

    def __init__(self, layer: int, decider: Decider, module: nn.Module, kv: bool = False) -> None:
        super().__init__((layer,), decider, module)
        self.kv = kv

    def _reused(self, branch: Branch, slot: int, args: Any, kwargs: Any) -> Any:
        if not self.kv:
            return super()._reused(branch, slot, args, kwargs)
        self._check_plain()
        hidden_states, _, mask = _arguments(*args, **kwargs)
        key, value = branch.store.load(slot)
        return attend(self.module, project_query(self.module, hidden_states), key, value, mask)

    def _computed(self, branch: Branch, slot: int, args: Any, kwargs: Any) -> Any:
        if not branch.needs_qkv(slot):
            return super()._computed(branch, slot, args, kwargs)
        if is_plain(self.module):
            return self._plain(branch, slot, *_arguments(*args, **kwargs))
        if self.kv:
            self._check_plain()
        return self._seen(branch, slot, args, kwargs)

    def _plain(
        self, branch: Branch, slot: int, x: Tensor, context: Tensor | None, mask: Tensor | None
    ) -> Tensor:
        attn: Any = self.module
        query = project_query(attn, x)
        key, value = project_key_value(attn, x if context is None else context)
        if branch.decision.measure[slot]:
            branch.measurements.measure_entropy(slot, query, key, attn.scale)
        output = attend(attn, query, key, value, mask)
        self._keep_tensors(branch, slot, *((key, value) if self.kv else (output,)))
        return output

    def _seen(self, branch: Branch, slot: int, args: Any, kwargs: Any) -> Any:
        """Compute as the module does, and measure at its core, which must run once."""
        seen = 0

        def see(query: Tensor, key: Tensor, mask: Tensor | None, scale: float | None) -> None:
            nonlocal seen
            seen += 1
            scale = query.shape[-1] ** -0.5 if scale is None else scale
            branch.measurements.measure_entropy(slot, query, key, scale, mask)

        with AttentionCore(see):
            output = self.inner(*args, **kwargs)
        if seen != 1:
            raise ValueError(
                f"entropy is not known here; allowed: no entropy gate or trace: {no_core(self.module, seen)}"
            )
        self._keep(branch, slot, output)
        return output

    def _check_plain(self) -> None:
        if not is_plain(self.module):
            raise invalid_value("reuse_mode", "kv", f"'output': {why_not_plain(self.module)}")


class AttentionCore(TorchFunctionMode):
    """Within it, a function is called before every scaled dot-product attention.

    Args:
        see: Called with query, key, mask (None = none; causal ones as a tensor) and scale (None =
            width^-0.5).
    """

    def __init__(self, see: Callable[[Tensor, Tensor, Tensor | None, float | None], None]) -> None:
        super().__init__()
        self.see = see

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal", "scale")
            given = dict(zip(names, args, strict=False)) | kwargs
            self.see(given["query"], given["key"], _mask(given), given.get("scale"))
        return func(*args, **kwargs)


def _mask(given: dict[str, Any]) -> Tensor | None:
    mask: Tensor | None = given.get("attn_mask")
    if mask is None and given.get("is_causal"):
        query, key = given["query"], given["key"]
        return torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool, device=query.device).tril()
    return mask


def is_plain(attention: Any) -> bool:
    """Whether an attention computes as diffusers' `Attention` with `AttnProcessor2_0` and no extras.

    Args:
        attention: An attention module.

    Returns:
        True where its K and V can be computed here, bit-identical to its own.
    """
    return why_not_plain(attention) is None


def why_not_plain(attention: Any) -> str | None:
    """What keeps an attention from being computed here.

    Args:
        attention: An attention module.

    Returns:
        A clause for an error message; None where nothing does.
    """
    name, processor = type(attention).__name__, type(getattr(attention, "processor", None)).__name__
    if name != "Attention":
        return f"{name} computes K and V in its own way"
    if processor not in PLAIN_PROCESSORS:
        return f"its processor is {processor}, which computes K and V in its own way"
    extra = next((extra for extra in EXTRAS if _is_set(getattr(attention, extra, None))), None)
    return None if extra is None else f"{name} has {extra}"


def _is_set(value: Any) -> bool:
    return value is not None and value is not False


def no_core(attention: Any, calls: int) -> str:
    """State that an attention has not the one softmax over keys that could be measured.

    Args:
        attention: An attention module.
        calls: Calls of torch's scaled dot-product attention that were seen in one of its own.

    Returns:
        A clause for an error message.
    """
    kind = f"{type(attention).__name__} with {type(getattr(attention, 'processor', None)).__name__}"
    return f"{kind} calls torch's scaled_dot_product_attention {calls} times, not once"


def _arguments(
    hidden_states: Tensor,
    encoder_hidden_states: Tensor | None = None,
    attention_mask: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """The arguments of `Attention.forward` that a plain attention uses."""
    return hidden_states, encoder_hidden_states, attention_mask


def project_query(attn: Any, x: Tensor) -> Tensor:
    """Project to queries, and normalise them where the module does.

    Args:
        attn: A plain attention module.
        x: Hidden states, `[batch, tokens, width]`.

    Returns:
        `[batch, heads, tokens, head width]`.
    """
    query = split_heads(attn.to_q(x), attn.heads)
    return query if attn.norm_q is None else attn.norm_q(query)


def project_key_value(attn: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """Project to keys and values, and normalise the keys where the module does.

    Args:
        attn: A plain attention module.
        x: Hidden states, or those of what is attended to, `[batch, tokens, width]`.

    Returns:
        K and V, each `[batch, heads, tokens, head width]`.
    """
    key, value = split_heads(attn.to_k(x), attn.heads), split_heads(attn.to_v(x), attn.heads)
    return (key if attn.norm_k is None else attn.norm_k(key)), value


def split_heads(x: Tensor, heads: int) -> Tensor:
    """View a projection as its heads.

    Args:
        x: `[batch, tokens, heads * width]`.
        heads: Number of heads; it divides the last dimension.

    Returns:
        A view, `[batch, heads, tokens, width]`.
    """
    return x.view(x.shape[0], -1, heads, x.shape[-1] // heads).transpose(1, 2)


def attend(attn: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """Attention core and output projection of a plain attention.

    Args:
        attn: A plain attention module.
        query: `[batch, heads, tokens, width]`.
        key: `[batch, heads, keys, width]`.
        value: The same as `key`.
        mask: As `Attention.forward` takes it, `[batch, keys]` or `[batch, tokens, keys]`; None = all attend
            to all.

    Returns:
        `[batch, tokens, width of the output]`, in the query's dtype.
    """
    if mask is not None:
        mask = attn.prepare_attention_mask(mask, key.shape[2], key.shape[0])
        mask = mask.view(key.shape[0], attn.heads, -1, mask.shape[-1])
    x = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    x = x.transpose(1, 2).reshape(x.shape[0], -1, attn.heads * x.shape[-1]).to(query.dtype)
    x = attn.to_out[1](attn.to_out[0](x))
    output: Tensor = x / attn.rescale_output_factor
    return output
