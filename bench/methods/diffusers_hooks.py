"""The caches that diffusers ships, each made to work on a DiT and run as its authors describe."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from diffusers import hooks

from bench.methods import scheduler
from bench.methods.base import Arm, Method, always
from bench.methods.hooks import Range, cache_context, checked, current_timestep, restored
from bench.methods.space import Among, Dimension, Real, Whole, one_space, solvers
from dqar.integration.adapter import CONDITIONAL_FIRST, unwrapped

# TaylorSeer's own patterns match nothing in a DiT, and no MLPs in an MMDiT.
MODULES = r"(single_)?(transformer_)?blocks\.\d+\.(attn1?|ff|ff_context|ffn)"

Values = dict[str, Any]
Attach = Callable[[Any, Values, Callable[[], int], ExitStack], None]

INTERVAL = Range(int, 2, 50, 2)
PAB_OPTIONS = {
    "interval": INTERVAL,
    "from_timestep": Range(int, 0, 1000, 800),
    "to_timestep": Range(int, 0, 1000, 100),
}
TAYLORSEER_OPTIONS = {
    "interval": INTERVAL,
    "order": Range(int, 0, 4, 1),
    "computed_first": Range(int, 1, 50, 3),
}
FORA_OPTIONS = {"interval": INTERVAL}
FIRST_BLOCK_OPTIONS = {"threshold": Range(float, 0, 10, 0.05)}
FASTERCACHE_OPTIONS = {
    "attention_interval": INTERVAL,
    "unconditional_interval": Range(int, 1, 50, 5),
    "from_timestep": Range(int, 0, 1000, 681),
    "weight": Range(float, 0, 2, 0.5),
}


def pab(pipe: Any, values: Values, timestep: Callable[[], int], stack: ExitStack) -> None:
    """Pyramid Attention Broadcast (Zhao et al. 2024, arXiv 2408.12588): attention held between timesteps.

    Args:
        pipe: Its transformer is hooked.
        values: Of PAB_OPTIONS: steps held, and between which timesteps.
        timestep: Returns that of the call in progress.
        stack: Undoes what the hooks do not; not used here.
    """
    config = hooks.PyramidAttentionBroadcastConfig(
        spatial_attention_block_skip_range=values["interval"],
        spatial_attention_timestep_skip_range=(values["to_timestep"], values["from_timestep"]),
        current_timestep_callback=timestep,
    )
    hooks.apply_pyramid_attention_broadcast(pipe.transformer, config)


def taylorseer(pipe: Any, values: Values, timestep: Callable[[], int], stack: ExitStack) -> None:
    """TaylorSeer (Liu et al. 2025, arXiv 2503.06923): attention and MLP forecast by a Taylor series.

    The series is in the step index. Order 0 holds them, which is FORA (Selvaraju et al. 2024, arXiv
    2407.01425).

    Args:
        pipe: Its transformer is hooked.
        values: Of TAYLORSEER_OPTIONS or FORA_OPTIONS.
        timestep: Not used.
        stack: Undoes what the hooks do not; not used here.
    """
    config = hooks.TaylorSeerCacheConfig(
        cache_interval=values["interval"],
        max_order=values.get("order", 0),
        disable_cache_before_step=values.get("computed_first", 1),
        taylor_factors_dtype=pipe.transformer.dtype,
        cache_identifiers=[MODULES],
    )
    hooks.apply_taylorseer_cache(pipe.transformer, config)


def first_block(pipe: Any, values: Values, timestep: Callable[[], int], stack: ExitStack) -> None:
    """First Block Cache (ParaAttention): the blocks' residual is held while the first's changes little.

    Args:
        pipe: Its transformer is hooked.
        values: Of FIRST_BLOCK_OPTIONS.
        timestep: Not used.
        stack: Undoes what the hooks do not; not used here.
    """
    hooks.apply_first_block_cache(
        pipe.transformer, hooks.FirstBlockCacheConfig(threshold=values["threshold"])
    )


def first_block_gap(pipeline: str, options: Values) -> str | None:
    """Why First Block Cache does not run on a pipeline.

    Args:
        pipeline: The name of its class in diffusers.
        options: Not looked at.

    Returns:
        A clause for reports; None where it runs.
    """
    if pipeline != "StableDiffusion3Pipeline":
        return None
    return "diffusers' hook takes both streams' residuals, and this model's last block returns no text"


def fastercache(pipe: Any, values: Values, timestep: Callable[[], int], stack: ExitStack) -> None:
    """FasterCache (Lv et al. 2024, arXiv 2410.19355).

    It takes the unconditional half to come first; a DiT has the conditional half first, so the halves are
    swapped around it.

    Args:
        pipe: Its transformer is hooked.
        values: Of FASTERCACHE_OPTIONS.
        timestep: Returns that of the call in progress.
        stack: Undoes the swap.
    """
    config = hooks.FasterCacheConfig(
        spatial_attention_block_skip_range=values["attention_interval"],
        spatial_attention_timestep_skip_range=(-1, values["from_timestep"]),
        unconditional_batch_skip_range=values["unconditional_interval"],
        unconditional_batch_timestep_skip_range=(-1, values["from_timestep"]),
        attention_weight_callback=lambda _: values["weight"],
        current_timestep_callback=timestep,
        tensor_format="BCHW",
        _unconditional_conditional_input_kwargs_identifiers=SPLIT,
    )
    hooks.apply_faster_cache(pipe.transformer, config)
    if unwrapped(pipe.transformer).__class__.__name__ in CONDITIONAL_FIRST:
        swap = pipe.transformer.register_forward_pre_hook(_swapped_inputs, with_kwargs=True)
        back = pipe.transformer.register_forward_hook(_swapped_output)
        stack.callback(swap.remove)
        stack.callback(back.remove)


def fastercache_gap(pipeline: str, options: Values) -> str | None:
    """Why FasterCache does not run on a pipeline.

    Args:
        pipeline: The name of its class in diffusers.
        options: Not looked at.

    Returns:
        A clause for reports; None where it runs.
    """
    return {
        "FluxPipeline": "its guidance is distilled: there is no unconditional half to skip",
        "WanPipeline": "it takes both halves of guidance in one batch, and they are two calls here",
    }.get(pipeline)


# The arguments that it must split into halves: its own list knows neither labels nor pooled prompts.
SPLIT = ["hidden_states", "timestep", "class_labels", "encoder_hidden_states", "pooled_projections"]


def _swapped(value: Any) -> Any:
    return value.roll(len(value) // 2, 0) if isinstance(value, torch.Tensor) and value.ndim else value


def _swapped_inputs(module: Any, args: tuple[Any, ...], kwargs: Values) -> tuple[tuple[Any, ...], Values]:
    return tuple(map(_swapped, args)), {name: _swapped(value) for name, value in kwargs.items()}


def _swapped_output(module: Any, args: tuple[Any, ...], output: Any) -> Any:
    output.sample = _swapped(output.sample)
    return output


def method(attach: Attach, known: dict[str, Range], **more: Any) -> Method:
    """Make a method of a cache that hooks the transformer.

    Args:
        attach: Puts the hooks on.
        known: Its options.
        more: Other fields of the method.

    Returns:
        The method, on any of the solvers.
    """
    apply = partial(_applied, attach=attach, known=known)
    return Method(check=partial(checked, known=known), apply=apply, **more)


@contextmanager
def _applied(pipe: Any, options: Values, attach: Attach, known: dict[str, Range]) -> Iterator[Arm]:
    values = checked(options, known)
    with ExitStack() as stack:
        call = stack.enter_context(scheduler.solver(pipe, options))
        stack.enter_context(restored(pipe.transformer))
        timestep = stack.enter_context(current_timestep(pipe))
        attach(pipe, values, timestep, stack)
        stack.enter_context(cache_context(pipe.transformer))
        yield Arm(call=call)


def _space(name: str, **dimensions: Dimension) -> Any:
    """What is searched: these dimensions, on each of the solvers."""
    return one_space(name, lambda baseline: {"solver": solvers(baseline)} | dimensions)


# From the published range of timesteps to all of them.
_PAB_RANGE = Among({"published": {}, "all": {"from_timestep": 1000, "to_timestep": 0}})

PAB = method(pab, PAB_OPTIONS, spaces=_space("pab", interval=Whole(2, 6), range=_PAB_RANGE))
TAYLORSEER = method(
    taylorseer,
    TAYLORSEER_OPTIONS,
    spaces=_space("taylorseer", interval=Whole(2, 7), order=Whole(1, 3), computed_first=Whole(1, 6)),
)
FORA = method(taylorseer, FORA_OPTIONS, spaces=_space("fora", interval=Whole(2, 6)))
FIRST_BLOCK = method(
    first_block,
    FIRST_BLOCK_OPTIONS,
    by_data=always,
    gap=first_block_gap,
    spaces=_space("first_block", threshold=Real(0.03, 0.4)),
)
FASTERCACHE = method(
    fastercache,
    FASTERCACHE_OPTIONS,
    gap=fastercache_gap,
    spaces=_space(
        "fastercache",
        attention_interval=Whole(2, 5),
        unconditional_interval=Whole(1, 6),
        from_timestep=Whole(500, 1000),
    ),
)
