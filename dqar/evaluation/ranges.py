"""Named ranges around the parts of a generation, for torch's profiler to see while it looks."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn
from torch.profiler import record_function

from dqar.cache.divided_differences import Forecast
from dqar.cache.kv_cache import LayerWiseKVCache
from dqar.core.quantization import KVQuantizer
from dqar.integration.layer_store import Measurements
from dqar.integration.manager import DQARManager
from dqar.integration.output_forecast import OutputForecaster

PREFIX = "dqar::"  # of a range's name, which ends with its group
REST = "rest"
WHOLE = "transformer"  # a compiled one: what is inside runs no hooks
# The first pattern that a module's name matches names its group; of ranges within each other the
# innermost counts. A block's own share is what is in no module: modulation, gates and residuals.
MODULES = {
    "attention": re.compile(r"transformer_blocks\.\d+\.attn\d*$"),
    "mlp": re.compile(r"transformer_blocks\.\d+\.ff(_context)?$"),
    "norm": re.compile(r"(^|\.)norm[^.]*$|transformer_blocks\.\d+$"),
    "embeddings": re.compile(r"(^|\.)[^.]*emb(ed(der)?)?$"),
}
# What is no module: the methods of the runtime, the same for every pipeline.
RUNTIME: dict[str, list[tuple[type, str]]] = {
    "gate": [
        (DQARManager, "begin_step"),
        *((Measurements, name) for name in ("measure_entropy", "measure_change")),
    ],
    "forecast": [
        *((Forecast, name) for name in ("at", "advanced")),
        *((OutputForecaster, name) for name in ("completed", "forecast", "unconditional")),
    ],
    "cache": [
        *((LayerWiseKVCache, name) for name in ("store", "extend", "load")),
        *((KVQuantizer, name) for name in ("quantize", "dequantize")),
    ],
}
GROUPS = (*MODULES, *RUNTIME, "scheduler", "vae", REST)


@contextmanager
def ranges(pipe: Any) -> Iterator[None]:
    """Put ranges on all parts of `pipe`, within one for the rest; they are gone afterwards.

    Args:
        pipe: A diffusers pipeline with a transformer and a scheduler; its VAE is optional.
    """
    with ExitStack() as stack:
        stack.enter_context(record_function(PREFIX + REST))
        for module, group in _modules(pipe):
            stack.enter_context(_hooked(module, group))
        for owner, name, group in _functions(pipe):
            stack.enter_context(_patched(owner, name, group))
        yield


def is_compiled(pipe: Any) -> bool:
    """Whether a pipeline's transformer is a compiled one.

    Args:
        pipe: A diffusers pipeline with a transformer.

    Returns:
        True for what `torch.compile` wrapped; `module.compile()` does not count.
    """
    return hasattr(pipe.transformer, "_orig_mod")


def _modules(pipe: Any) -> list[tuple[nn.Module, str]]:
    if is_compiled(pipe):
        return [(pipe.transformer, WHOLE)]
    named = pipe.transformer.named_modules()
    grouped = [
        (module, next((g for g in MODULES if MODULES[g].search(name)), None)) for name, module in named
    ]
    return [(module, group) for module, group in grouped if group]


def _functions(pipe: Any) -> list[tuple[Any, str, str]]:
    """Owner, name and group of what is called besides the modules."""
    functions: list[tuple[Any, str, str]] = [(pipe.scheduler, "step", "scheduler")]
    if getattr(pipe, "vae", None) is not None:
        functions.append((pipe.vae, "decode", "vae"))
    runtime = [(owner, name, group) for group, methods in RUNTIME.items() for owner, name in methods]
    # Within a compiled graph a range would be traced, and break it.
    return functions + [called for called in runtime if called[1] == "begin_step" or not is_compiled(pipe)]


@contextmanager
def _hooked(module: nn.Module, group: str) -> Iterator[None]:
    open_ranges: list[Any] = []

    def enter(*_: Any) -> None:
        open_ranges.append(record_function(PREFIX + group))
        open_ranges[-1].__enter__()

    def leave(*_: Any) -> None:
        open_ranges.pop().__exit__(None, None, None)

    hooks = [module.register_forward_pre_hook(enter), module.register_forward_hook(leave, always_call=True)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _patched(owner: Any, name: str, group: str) -> Iterator[None]:
    """Have a class's or an object's method run within a range."""
    own, inner = vars(owner).get(name), getattr(owner, name)

    @functools.wraps(inner)
    def ranged(*args: Any, **kwargs: Any) -> Any:
        with record_function(PREFIX + group):
            return inner(*args, **kwargs)

    setattr(owner, name, ranged)
    try:
        yield
    finally:
        if own is None:
            delattr(owner, name)
        else:
            setattr(owner, name, own)
