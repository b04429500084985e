"""A transformer under hooks of others: informed where the denoising loop is, and restored exactly.

diffusers' caches expect a pipeline that sets a cache context, knows its current timestep, and resets
their state between runs. `DiTPipeline` does none of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

from bench.methods.base import only
from bench.methods.scheduler import OPTIONS
from bench.methods.scheduler import check as check_solver


class Range(NamedTuple):
    """What an option may be."""

    kind: type  # int or float
    low: float
    high: float
    default: float


class Choice(NamedTuple):
    """What an option of words may be; the first is its default."""

    names: tuple[str, ...]

    @property
    def default(self) -> str:
        """What it is where nothing is given."""
        return self.names[0]


def checked(options: dict[str, Any], known: Mapping[str, Range | Choice]) -> dict[str, Any]:
    """Check options and fill in their defaults; a solver's are checked as such and left out.

    Args:
        options: As a suite has them.
        known: The method's own options.

    Returns:
        A value for each of `known`.

    Raises:
        ValueError: Naming the option, its value and what is allowed.
    """
    only(options, (*known, *OPTIONS))
    check_solver(options)
    for name, allowed in known.items():
        value = options.get(name, allowed.default)
        if isinstance(allowed, Choice):
            if value not in allowed.names:
                raise ValueError(f"{name}: {value!r} is not allowed; allowed: {', '.join(allowed.names)}")
            continue
        number = type(value) is int or (allowed.kind is float and type(value) is float)
        if not number or not allowed.low <= value <= allowed.high:
            kind = "a whole number" if allowed.kind is int else "a number"
            bounds = f"{allowed.low:g} to {allowed.high:g}"
            raise ValueError(f"{name}: {value!r} is not allowed; allowed: {kind} from {bounds}")
    return {name: options.get(name, allowed.default) for name, allowed in known.items()}


# Pipelines that call their transformer once a step, guidance included, on which caches of our own were tried.
TRIED = ("DiTPipeline", "StableDiffusion3Pipeline")
ON_OUTPUTS = (*TRIED, "FluxPipeline", "PixArtSigmaPipeline")  # caches that need no list of like blocks


def tried(pipeline: str, options: dict[str, Any], on: Sequence[str] = TRIED) -> str | None:
    """Why a cache that was tried on some pipelines alone does not run on another.

    Args:
        pipeline: The name of its class in diffusers.
        options: Not looked at.
        on: The names of those that it was tried on.

    Returns:
        A clause for reports; None where it runs.
    """
    if pipeline in on:
        return None
    return f"it was tried on {', '.join(on[:-1])} and {on[-1]} alone, which call the transformer once a step"


@contextmanager
def cache_context(transformer: Any) -> Iterator[None]:
    """A cache context as pipelines of other models set it; state begins again within.

    Args:
        transformer: Of diffusers, with hooks that keep state by context.
    """
    from diffusers.models.cache_utils import CacheMixin

    with CacheMixin.cache_context(transformer, "bench"):
        yield


@dataclass
class Progress:
    """Where a generation is, without reading the device."""

    schedule: Sequence[int] = ()  # its timesteps
    step: int = -1  # of the call in progress

    @property
    def steps(self) -> int:
        """How many there are."""
        return len(self.schedule)

    @property
    def timestep(self) -> int:
        """The timestep of the call in progress."""
        return self.schedule[self.step]


@contextmanager
def progress(pipe: Any) -> Iterator[Progress]:
    """Follow the pipeline's generation, for pipelines that call their transformer once a step.

    Args:
        pipe: A pipeline of diffusers.

    Yields:
        Where the generation is, updated at each call.
    """
    at = Progress()
    seen: Any = None

    def enter(*_: Any) -> None:
        nonlocal seen
        if pipe.scheduler.timesteps is not seen:
            seen = pipe.scheduler.timesteps
            at.schedule, at.step = [int(t) for t in seen], -1
        at.step += 1

    hook = pipe.transformer.register_forward_pre_hook(enter)
    try:
        yield at
    finally:
        hook.remove()


@contextmanager
def current_timestep(pipe: Any) -> Iterator[Callable[[], int]]:
    """Follow the pipeline's timesteps.

    Where the pipeline knows the current one, its own answer, as its users ask for it; else without reading
    the device.

    Args:
        pipe: A pipeline of diffusers.

    Yields:
        A function that returns the timestep of the call in progress.
    """
    if hasattr(type(pipe), "current_timestep"):
        yield lambda: int(pipe.current_timestep)
        return
    with progress(pipe) as at:
        yield lambda: at.timestep


@contextmanager
def restored(transformer: Any) -> Iterator[None]:
    """Take off whatever others' caches put on the transformer and its modules, to the order of these.

    Args:
        transformer: As the pipeline holds it; attributes and submodules of its modules are put back.
    """
    for module in transformer.modules():
        # What a pipeline's own cache contexts left: a list of the modules that had hooks then, out of date.
        registry = getattr(module, "_diffusers_hook", None)
        if registry is not None and not registry.hooks:
            del module._diffusers_hook
    before = [(m, dict(m.__dict__), dict(m._modules)) for m in transformer.modules()]
    try:
        yield
    finally:
        for module, attributes, children in before:
            module.__dict__.clear()
            module.__dict__.update(attributes)
            module._modules.clear()
            module._modules.update(children)
