"""The user's way in: switch DQAR on and off on a stock diffusers pipeline."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.models.attention_processor import Attention
from torch import nn

from dqar.config import DQARConfig
from dqar.core.snr import schedule_snr
from dqar.integration.attention_processor import DQARAttentionProcessor
from dqar.integration.feed_forward import DQARFeedForward, feed_forwards
from dqar.integration.joint_attention import DQARJointAttentionProcessor
from dqar.integration.manager import DQARManager
from dqar.integration.trajectory import Summary
from dqar.plan import CONDITIONAL, NONE
from dqar.validation import refusal

COMPILED_VARIANTS = 1024  # more than the steps of any generation; a variant is made when first met
HANDLE = "_dqar"  # the attribute of a pipeline that holds what `enable` changed


@dataclass
class Handle:
    """What DQAR changed on a transformer, and how to undo it."""

    manager: DQARManager
    transformer: nn.Module
    processors: list[tuple[Any, Any]]  # each attention with its own processor
    feed_forwards: list[nn.Module]
    own_forward: Any  # the transformer instance's own, None = its class's

    def remove(self) -> None:
        """Put every processor, MLP and the transformer's call back."""
        for attention, processor in self.processors:
            attention.processor = processor
        for module in self.feed_forwards:
            del module.forward  # the instance's: the class's own shows again
        self.release()
        self.manager.reset()

    def release(self) -> None:
        """Put the transformer's own call back alone: processors then obey orders that are given by hand."""
        if self.own_forward is None:
            vars(self.transformer).pop("forward", None)
        else:
            self.transformer.forward = self.own_forward


def enable(pipe: Any, config: DQARConfig | None = None) -> None:
    """Make `pipe`'s transformer reuse attention as `config` says, until `disable`.

    `pipe` is a diffusers pipeline with a `transformer` and a `scheduler`, and is called as before,
    with any scheduler; another configuration replaces the one before. Raises `ValueError` naming what
    is missing, and then leaves `pipe` as it was.
    """
    for part in ("transformer", "scheduler"):
        if getattr(pipe, part, None) is None:
            raise ValueError(
                f"pipe = {type(pipe).__name__} has no {part}; "
                "allowed: a diffusers pipeline with a transformer and a scheduler"
            )
    schedule_snr(pipe.scheduler)
    previous = getattr(pipe, HANDLE, None)
    handle = attach(pipe.transformer, config or DQARConfig(), lambda: pipe.scheduler, previous)
    setattr(pipe, HANDLE, handle)


def disable(pipe: Any) -> None:
    """Restore `pipe`; its output is then bit-identical to before `enable`. Harmless when off."""
    handle = getattr(pipe, HANDLE, None)
    if handle is not None:
        handle.remove()
        delattr(pipe, HANDLE)


def summary(pipe: Any) -> Summary:
    """What the last generation reused. Raises `RuntimeError` when DQAR is off or nothing has run."""
    handle = getattr(pipe, HANDLE, None)
    if handle is None:
        raise RuntimeError("nothing to sum up: dqar.enable(pipe) was not called")
    return handle.manager.summary()


def attach(
    transformer: nn.Module,
    config: DQARConfig,
    scheduler: Callable[[], Any],
    previous: Handle | None = None,
) -> Handle:
    """Put DQAR's processors and steps on `transformer`, in place of those of `previous`."""
    attentions = attention_layers(transformer)
    manager = DQARManager(config, len(attentions), scheduler, attentions[0].heads)
    processors = [_processor(attention) for attention in attentions]
    if config.reuse_mode == "kv" and not all(kind.supports_kv for kind in processors):
        raise refusal("reuse_mode", "kv", "'output' for joint attention")
    reused = [site for sites in manager.targets for site in sites if site >= manager.layers]
    modules = feed_forwards(transformer) if reused else []
    replaced = previous.manager if previous is not None else None
    theirs = [
        a.processor for a, kind in zip(attentions, processors, strict=True) if isinstance(a.processor, kind)
    ]
    if any(processor.manager is not replaced for processor in theirs):
        raise ValueError("transformer is under DQAR already; allowed: one that is not")
    if previous is not None:
        previous.remove()
    if hasattr(transformer, "_orig_mod"):
        _allow_compiled_variants()
        manager.graphed = _in_graphs(transformer)
    managed = attentions[: manager.layers]
    chosen = [modules[site - manager.layers] for site in reused]
    own = transformer.__dict__.get("forward")  # a compiled module has one
    handle = Handle(manager, transformer, [(a, a.processor) for a in managed], chosen, own)
    for layer, (attention, own) in enumerate(handle.processors):
        attention.processor = processors[layer](layer, manager, own)
    for site, module in zip(reused, chosen, strict=True):
        module.forward = DQARFeedForward(site, manager, module).forward
    transformer.forward = _stepping(transformer, manager)
    return handle


def attention_layers(transformer: nn.Module) -> list[Any]:
    """The self- or joint attention of each block in order. Raises `ValueError` where there is none."""
    blocks = [
        *getattr(transformer, "transformer_blocks", ()),
        *getattr(transformer, "single_transformer_blocks", ()),
    ]
    candidates = [getattr(block, "attn1", None) or getattr(block, "attn", None) for block in blocks]
    found = [attention for attention in candidates if hasattr(attention, "processor")]
    if not found:
        raise ValueError(
            f"transformer = {type(transformer).__name__} has no transformer_blocks[i].attn1 or .attn; "
            "allowed: a diffusers transformer with such attention modules"
        )
    return found


def _processor(attention: Any) -> type[DQARAttentionProcessor] | type[DQARJointAttentionProcessor]:
    """The DQAR processor for an attention: joint where text has projections or the class its own rotary."""
    joint = hasattr(attention, "add_k_proj") and attention.add_k_proj is not None
    return DQARJointAttentionProcessor if joint or not _is_plain(attention) else DQARAttentionProcessor


def _is_plain(attention: Any) -> bool:
    """Whether the attention computes as diffusers' `Attention` with `AttnProcessor2_0` and no extras."""
    extras = ("group_norm", "spatial_norm", "norm_cross", "residual_connection")
    return isinstance(attention, Attention) and not any(getattr(attention, name, None) for name in extras)


def _allow_compiled_variants() -> None:
    """Let torch.compile keep a variant for each set of orders; its limit of 8 would fail a `fullgraph`."""
    compiler = torch._dynamo.config
    compiler.recompile_limit = max(compiler.recompile_limit, COMPILED_VARIANTS)
    compiler.accumulated_recompile_limit = max(compiler.accumulated_recompile_limit, COMPILED_VARIANTS)


def _in_graphs(transformer: Any) -> bool:
    """Whether it was compiled to run in CUDA graphs (`mode="reduce-overhead"`, and others)."""
    return bool((transformer.get_compiler_config() or {}).get("triton.cudagraphs"))


def _stepping(transformer: nn.Module, manager: DQARManager) -> Callable[..., Any]:
    """The transformer's forward with the manager around it, which may leave out branches, or all of it."""
    own = transformer.forward
    names = tuple(inspect.signature(getattr(transformer, "_orig_mod", transformer).forward).parameters)

    @functools.wraps(own)
    def forward(*args: Any, **kwargs: Any) -> Any:
        given = dict(zip(names, args, strict=False)) | kwargs
        prompt, latent = given.get("encoder_hidden_states"), given["hidden_states"]
        manager.begin_step(latent, given["timestep"], None if prompt is None else prompt.shape[1])
        if manager.branches == NONE:
            return manager.end_step()
        if manager.branches == CONDITIONAL:
            return manager.end_step(own(**manager.inputs(given, len(latent))))
        return manager.end_step(own(*args, **kwargs))

    return forward
