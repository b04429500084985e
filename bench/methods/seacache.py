"""SeaCache (arXiv 2602.18993), by diffusers' hook: the blocks' residual is held, or drawn out along a line,
while the latent has changed little in the frequencies that are clean at the current noise level.

For models without an adapter of its own the hook asks for the latents, and for the place of the denoising
loop at each call; both are given here. It wants both streams back from the last block. That of Stable
Diffusion 3 returns no text because nothing reads it afterwards: here it returns the text that it was given.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from diffusers import SeaCacheConfig
from diffusers.hooks.sea_cache import apply_sea_cache
from diffusers.models.cache_utils import CacheMixin
from torch import Tensor

from bench.methods.base import Arm, Method, always
from bench.methods.hooks import Progress, Range, checked, progress, restored
from bench.methods.scheduler import solver
from bench.methods.space import Baseline, Dimension, Real, Space, Whole, solvers

KNOWN = {
    "threshold": Range(float, 0, 10, 0.25),
    "residual_order": Range(int, 0, 1, 1),
    "max_consecutive_cached": Range(int, 0, 50, 2),  # 0: no limit
}
PIPELINE = "StableDiffusion3Pipeline"


def check(options: dict[str, Any]) -> None:
    """Check options against KNOWN and the solver's.

    Args:
        options: As a suite has them.

    Raises:
        ValueError: Naming the option, its value and what is allowed.
    """
    checked(options, KNOWN)


def gap(pipeline: str, options: dict[str, Any]) -> str | None:
    """Why it does not run on a pipeline.

    Args:
        pipeline: The name of its class in diffusers.
        options: Not looked at.

    Returns:
        A clause for reports; None where it runs.
    """
    if pipeline == PIPELINE:
        return None
    return "diffusers' hook takes latents of frames and a flow's sigma, which this transformer is not given"


@contextmanager
def apply(pipe: Any, options: dict[str, Any]) -> Iterator[Arm]:
    """Enable it, give it the place of the loop, and take it off again.

    Args:
        pipe: A pipeline that `gap` names no reason against.
        options: As `check` lets them through.

    Yields:
        The pipeline with the cache on.
    """
    values = checked(options, KNOWN)
    with ExitStack() as stack:
        call = stack.enter_context(solver(pipe, options))
        stack.enter_context(restored(pipe.transformer))
        at = stack.enter_context(progress(pipe))
        _returns_text(pipe.transformer.transformer_blocks[-1])
        apply_sea_cache(pipe.transformer, SeaCacheConfig(raw_vision_callback=_latents, **values))
        stack.enter_context(_informed(pipe, at))
        yield Arm(call=call)


def _returns_text(block: Any) -> None:
    """Let a block that returns no text return the text that it was given."""
    run = block.forward

    def forward(hidden_states: Tensor, encoder_hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        text, image = run(hidden_states, encoder_hidden_states, *args, **kwargs)
        return encoder_hidden_states if text is None else text, image

    block.forward = forward


def _latents(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
    """Each latent of the batch as a video of one frame, `[channels, 1, height, width]`."""
    given: Tensor = args[0] if args else kwargs["hidden_states"]
    return list(given.unsqueeze(2).unbind(0))


@contextmanager
def _informed(pipe: Any, at: Progress) -> Iterator[None]:
    """A cache context around each call of the transformer, with the step and its sigma."""
    contexts: list[Any] = []

    def enter(*_: Any) -> None:
        sigma = float(pipe.scheduler.sigmas[at.step])
        where = {"step_index": at.step, "sigma": sigma, "num_inference_steps": at.steps}
        contexts.append(CacheMixin.cache_context(pipe.transformer, "bench", **where))
        contexts[-1].__enter__()

    def leave(*_: Any) -> None:
        contexts.pop().__exit__(None, None, None)

    hooks = [
        pipe.transformer.register_forward_pre_hook(enter),
        pipe.transformer.register_forward_hook(leave, always_call=True),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def spaces(baseline: Baseline) -> Mapping[str, Space]:
    """Declare what `tune --method` searches, on flows: all options, on each of the solvers.

    Args:
        baseline: The run that is to be made faster.

    Returns:
        The space; none for a model that is no flow.
    """
    space: dict[str, Dimension] = {
        "solver": solvers(baseline),
        "threshold": Real(0.05, 1.0),
        "residual_order": Whole(0, 1),
        "max_consecutive_cached": Whole(0, 4),
    }
    return {"seacache": space} if baseline.flow else {}


METHOD = Method(check=check, apply=apply, by_data=always, gap=gap, spaces=spaces)
