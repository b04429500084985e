"""The user's way in: switch DQAR on and off on a stock diffusers pipeline."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from dqar.config import BALANCED, DQARConfig
from dqar.core.noise_kind import noise_kind
from dqar.integration.adapter import Adapter, unwrapped
from dqar.integration.attention_processor import DQARAttentionProcessor
from dqar.integration.feed_forward import DQARFeedForward
from dqar.integration.handles import Handle, PipelineHandle, TransformerCall
from dqar.integration.hooks import ContextWatch, Decider, ForwardHook
from dqar.integration.manager import DQARManager
from dqar.integration.slots import Slots
from dqar.integration.summary import Summary
from dqar.utils.warn import warn

if TYPE_CHECKING:
    from dqar.policy.mlp_policy import ReusePolicy

COMPILED_VARIANTS = 1024  # more than the steps of any generation; a variant is made when first met
HANDLE = "_dqar"  # the attribute of a pipeline that holds what `enable` changed
TRANSFORMERS = ("transformer", "transformer_2")  # Wan 2.2 gives each a share of the steps


def enable(pipe: Any, config: DQARConfig | None = None, policy: ReusePolicy | None = None) -> None:
    """Make `pipe`'s transformer reuse attention according to `config`, until `disable`.

    Args:
        pipe: A diffusers pipeline with a `transformer`, perhaps a `transformer_2`, and a `scheduler`. It is
            called as before, with any scheduler; another configuration replaces the one before.
        config: What may be reused, and when; None = `DQARConfig.preset("balanced")`, which skips whole steps.
        policy: Decides in place of the policy that `config` names.

    Raises:
        ValueError: Naming what is missing or what the model cannot do; `pipe` is then left as it was.
    """
    for part in ("transformer", "scheduler"):
        if getattr(pipe, part, None) is None:
            raise ValueError(
                f"pipe = {type(pipe).__name__} has no {part}; "
                "allowed: a diffusers pipeline with a transformer and a scheduler"
            )
    noise_kind(pipe.scheduler)
    config = config or DQARConfig.preset(BALANCED)
    previous = getattr(pipe, HANDLE, None)
    models = [model for name in TRANSFORMERS if (model := getattr(pipe, name, None)) is not None]
    parts = [
        prepare(model, config, lambda: pipe.scheduler, previous, pipe=pipe, policy=policy) for model in models
    ]
    if previous is not None:
        previous.remove()
        parts = [
            prepare(model, config, lambda: pipe.scheduler, None, pipe=pipe, policy=policy) for model in models
        ]
    for prepared in parts:
        prepared.install()
    setattr(pipe, HANDLE, PipelineHandle(parts))


def disable(pipe: Any) -> None:
    """Restore `pipe`; its output is then bit-identical to before `enable`. Does nothing when off.

    Args:
        pipe: The pipeline that `enable` was given.
    """
    handle = getattr(pipe, HANDLE, None)
    if handle is not None:
        handle.remove()
        delattr(pipe, HANDLE)
    elif is_attached(getattr(pipe, "transformer", None)):
        warn("pipe was not enabled; another pipeline with the same transformer was: disable that one")


def summary(pipe: Any) -> Summary:
    """What the last generation reused, as it happened.

    Args:
        pipe: The pipeline that `enable` was given.

    Returns:
        Of the last generation, of all transformers that had a share in it.

    Raises:
        RuntimeError: When DQAR is off or nothing has run.
    """
    handle = getattr(pipe, HANDLE, None)
    if handle is None:
        raise RuntimeError("nothing to sum up: dqar.enable(pipe) was not called")
    last: Summary = handle.summary()
    return last


def attach(
    transformer: nn.Module, config: DQARConfig, scheduler: Callable[[], Any], **options: Any
) -> Handle:
    """Put DQAR on a transformer that follows the scheduler which `scheduler` returns.

    Args:
        transformer: As diffusers builds it, or wrapped by torch.compile.
        config: What may be reused, and when.
        scheduler: Returns the scheduler in use.
        **options: `pipe` and `policy`, as `prepare` takes them.

    Returns:
        What was changed; its `remove` undoes it.

    Raises:
        ValueError: Where it cannot; the transformer is then left as it was.
    """
    handle = prepare(transformer, config, scheduler, None, **options)
    handle.install()
    return handle


def prepare(
    transformer: nn.Module,
    config: DQARConfig,
    scheduler: Callable[[], Any],
    previous: PipelineHandle | None = None,
    pipe: Any = None,
    policy: ReusePolicy | None = None,
) -> Handle:
    """What `attach` changes, before anything is changed.

    Args:
        transformer: As diffusers builds it, or wrapped by torch.compile.
        config: What may be reused, and when.
        scheduler: Returns the scheduler in use.
        previous: What DQAR changed on the same pipeline before, which does not count as a conflict.
        pipe: The pipeline whose calls are meant; None = those of any that uses the scheduler.
        policy: Decides in place of the policy that `config` names.

    Returns:
        What to install.

    Raises:
        ValueError: The transformer is under DQAR already, or cannot do what `config` asks for.
    """
    theirs = [part.transformer for part in previous.parts] if previous is not None else []
    if is_attached(transformer) and not any(model is transformer for model in theirs):
        raise ValueError("transformer is under DQAR already; allowed: one that is not")
    adapter = Adapter(transformer)
    manager = DQARManager(
        config,
        max(1, len(adapter.attentions)),
        scheduler,
        adapter.heads,
        mlps=[len(modules) for modules in adapter.mlps] or [0],
        conditional=adapter.conditional,
        pipe=pipe,
        policy=policy,
        model=adapter.name,
    )
    check(adapter, manager.config)
    if compiled := adapter.compiled:
        allow_compiled_variants()
        manager.graphed = any(map(_in_graphs, compiled))
    # A hook knows its layer: blocks that share one compiled graph would each need their own.
    plain = adapter.regional and not manager.planner.may_reuse_layers
    manager.observed = bool(adapter.attentions) and not plain
    watch = ContextWatch(adapter.base) if hasattr(adapter.base, "cache_context") else None
    kv = manager.config.reuse_mode == "kv"
    hooks = [] if plain else hooks_of(adapter, manager.slots, manager, kv)
    patches: list[Any] = [*hooks, *([watch] if watch else []), TransformerCall(adapter, manager, watch)]
    return Handle(manager, transformer, patches)


def check(adapter: Adapter, config: DQARConfig) -> None:
    """Refuse what a model cannot do.

    Args:
        adapter: The model, understood.
        config: What may be reused, and when.

    Raises:
        ValueError: Naming what the model cannot do, and what it can.
    """
    if not adapter.attentions and not (config.use_layer_scheduling and config.layer_fraction == 0):
        raise ValueError(
            f"transformer = {adapter.name} has no attention that DQAR knows; allowed: whole steps, with "
            "use_layer_scheduling = True, layer_fraction = 0 and model_steps or step_interval"
        )
    if config.reuse_mode == "kv":
        adapter.refuse_kv()
    if config.needs_entropy or config.trace_entropy:
        field = "trace_entropy" if not config.needs_entropy else "entropy_threshold"
        adapter.refuse_entropy(field, getattr(config, field))


def hooks_of(adapter: Adapter, slots: Slots, decider: Decider, kv: bool = False) -> list[ForwardHook]:
    """The hooks on the attentions of all managed layers, and on the MLPs that some step may reuse.

    Args:
        adapter: The model, understood.
        slots: Its cache slots, which name the managed layers.
        decider: Decides what the hooks do.
        kv: Whether attentions keep K and V in place of their outputs.

    Returns:
        The hooks, none of them installed.
    """
    hooks: list[ForwardHook] = [
        DQARAttentionProcessor(layer, decider, attention, kv)
        for layer, attention in enumerate(adapter.attentions[: slots.layers])
    ]
    for layer, numbers in enumerate(slots.mlps):
        if not numbers or not slots.is_reused(numbers[0]):
            continue
        of_module: dict[nn.Module, tuple[int, ...]] = {}
        for slot, module in zip(numbers, adapter.mlps[layer], strict=True):
            of_module[module] = (*of_module.get(module, ()), slot)
        hooks += [DQARFeedForward(its, decider, module) for module, its in of_module.items()]
    return hooks


def is_attached(transformer: Any) -> bool:
    """Whether DQAR is on a transformer, or on the one within it.

    Args:
        transformer: Anything; what is no module is not attached.

    Returns:
        True where its call or the `forward` of one of its modules is DQAR's.
    """
    if not isinstance(transformer, nn.Module):
        return False
    models = (transformer, unwrapped(transformer))
    if any(isinstance(vars(model).get("_compiled_call_impl"), TransformerCall) for model in models):
        return True
    return any(isinstance(vars(module).get("forward"), ForwardHook) for module in models[1].modules())


def attention_layers(transformer: nn.Module) -> list[Any]:
    """The self- or joint attention of each layer in order.

    Args:
        transformer: As diffusers builds it, or wrapped by torch.compile.

    Returns:
        One attention module a layer.
    """
    return list(Adapter(transformer).attentions)


def allow_compiled_variants() -> None:
    """Let torch.compile keep a variant for each decision; its limit of 8 would fail a `fullgraph`."""
    compiler = torch._dynamo.config
    compiler.recompile_limit = max(compiler.recompile_limit, COMPILED_VARIANTS)
    compiler.accumulated_recompile_limit = max(compiler.accumulated_recompile_limit, COMPILED_VARIANTS)


def _in_graphs(compiled: Any) -> bool:
    """Whether it was compiled to run in CUDA graphs (`mode="reduce-overhead"`, and others)."""
    return bool((compiled.get_compiler_config() or {}).get("triton.cudagraphs"))
