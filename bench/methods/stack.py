"""What users have already (precision, quantised weights, attention kernels, compilation, offload), with or
without reuse.

The untouched pipeline stays the baseline: the method swaps in copies of its models. They are kept for the
next generation under the same options, because compiling takes minutes, and freed before others are made.
"""

from __future__ import annotations

import copy
import gc
import importlib.util
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from bench.machine.device import device_type
from bench.methods import COPIES, models_of
from bench.methods import dqar as reuse
from bench.methods.base import Arm, Method, only
from bench.methods.compilation import MAX_AUTOTUNE, REGIONAL, WHOLE, compiled
from dqar.integration.adapter import Adapter

REUSE = COPIES["stack"]  # the option that holds DQAR's own
KNOWN: dict[str, tuple[Any, ...]] = {
    "dtype": ("bf16", "fp16"),
    "weights": ("int8", "fp8"),  # of the transformer's linear layers
    "attention": ("math", "flash", "efficient", "cudnn"),  # kernels of scaled_dot_product_attention
    "compile": (WHOLE, REGIONAL, MAX_AUTOTUNE),
    "offload": (True, False),  # each model is on the device only while it computes
}
ON_CPU = ("math", "flash")  # kernels that torch has there
FP8 = (8, 9)  # compute capability from which a device multiplies fp8
BACKENDS = {
    "math": SDPBackend.MATH,
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
}
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}

# By pipeline: its last options, and the copies of its models that they ask for.
_copies_of: WeakKeyDictionary[Any, tuple[str, dict[str, nn.Module]]] = WeakKeyDictionary()


def check(options: dict[str, Any]) -> None:
    """Check options: one of KNOWN at least, and `dqar` with those of that method.

    Args:
        options: As a suite has them.

    Raises:
        ValueError: Naming the option, its value and what is allowed.
    """
    only(options, (*KNOWN, REUSE))
    for name, allowed in KNOWN.items():
        if options.get(name, allowed[0]) not in allowed:
            listed = ", ".join(map(str, allowed))
            raise ValueError(f"{name}: {options[name]!r} is not allowed; allowed: {listed}")
    if not any(options.get(name) for name in KNOWN):
        raise ValueError(f"none of {', '.join(KNOWN)} is given; one must be (reuse alone is method dqar)")
    if options.get("compile") and options.get("offload"):
        kind = options["compile"]
        raise ValueError(f"compile: {kind} and offload: true exclude each other: a compiled model stays put")
    _check_reuse(options.get(REUSE, {}))


def _check_reuse(options: dict[str, Any]) -> None:
    if not isinstance(options, dict):
        raise ValueError(f"{REUSE}: {options!r} is not allowed; allowed: options of the method dqar")
    reuse.check(options)
    named = [*reuse.named_files(options), *(name for name in (reuse.QUANTILE,) if name in options)]
    if named:
        raise ValueError(f"{REUSE}: {named[0]} is not allowed within a stack; allowed: the other options")


def lacks(options: dict[str, Any]) -> str | None:
    """What this machine lacks for the options.

    Args:
        options: As `check` lets them through.

    Returns:
        One clause that names the option and what it needs; None where it runs.
    """
    cuda = device_type() == "cuda"
    weights, attention = options.get("weights"), options.get("attention")
    if weights and importlib.util.find_spec("torchao") is None:
        return f"weights: {weights} needs the package torchao (pip install torchao)"
    if weights == "fp8" and not (cuda and torch.cuda.get_device_capability() >= FP8):
        return "weights: fp8 needs a CUDA device of compute capability 8.9 or above"
    if attention and not cuda and attention not in ON_CPU:
        return f"attention: {attention} needs a CUDA device; a CPU has {' and '.join(ON_CPU)}"
    if options.get("offload") and not cuda:
        return "offload: true needs a CUDA device: a CPU computes where the weights are"
    if options.get("offload") and importlib.util.find_spec("accelerate") is None:
        return "offload: true needs the package accelerate (pip install accelerate)"
    return None


@contextmanager
def apply(pipe: Any, options: dict[str, Any]) -> Iterator[Arm]:
    """Swap in the models that the options ask for, and enable reuse on them where `dqar` is given.

    Args:
        pipe: A pipeline of diffusers, not compiled.
        options: As `check` lets them through.

    Yields:
        The pipeline with other models.

    Raises:
        ValueError: The pipeline is compiled, or this machine lacks what an option needs.
    """
    check(options)
    if Adapter(pipe.transformer).compiled:
        raise ValueError("compile: the suite's own setting must be false: a stack compiles by its option")
    if why := lacks(options):
        raise ValueError(why)
    own = {name: value for name, value in options.items() if name != REUSE}
    with ExitStack() as stack:
        stack.enter_context(_swapped(pipe, _copies(pipe, own)))
        if "attention" in own:
            stack.enter_context(sdpa_kernel(BACKENDS[own["attention"]]))
        if own.get("offload"):
            stack.enter_context(offloaded(pipe, device_type()))
        yield stack.enter_context(reuse.apply(pipe, options[REUSE])) if REUSE in options else Arm()


@contextmanager
def _swapped(pipe: Any, models: dict[str, nn.Module]) -> Iterator[None]:
    before = {name: getattr(pipe, name) for name in models}
    try:
        for name, model in models.items():
            setattr(pipe, name, model)
        yield
    finally:
        for name, model in before.items():
            setattr(pipe, name, model)


def _copies(pipe: Any, options: dict[str, Any]) -> dict[str, nn.Module]:
    """The pipeline's models under the options; those of other options are freed first."""
    key = models_of("stack", options)
    if pipe not in _copies_of or _copies_of[pipe][0] != key:
        if _copies_of.pop(pipe, None):
            gc.collect()  # hooks and compiled calls refer back to their modules
        _copies_of[pipe] = key, _copied(pipe, options)
    return _copies_of[pipe][1]


def _copied(pipe: Any, options: dict[str, Any]) -> dict[str, nn.Module]:
    """Copies of what the options change: all models where all have another dtype or move, else the
    transformer."""
    dtype = DTYPES.get(options.get("dtype", ""))
    names = [name for name, part in pipe.components.items() if isinstance(part, nn.Module)]
    chosen = names if dtype or options.get("offload") else ["transformer"]
    models = {name: copy.deepcopy(getattr(pipe, name)) for name in chosen}
    if dtype:
        models = {name: model.to(dtype) for name, model in models.items()}
    if "weights" in options:
        _quantise(models["transformer"], options["weights"])
    if options.get("compile"):
        models["transformer"] = compiled(models["transformer"], options["compile"])
    return models


def _quantise(transformer: nn.Module, kind: str) -> None:
    """Quantise the weights of all linear layers in place: int8 a channel; fp8 with inputs too, a row."""
    from torchao import quantization

    configs = {
        "int8": quantization.Int8WeightOnlyConfig,
        "fp8": quantization.Float8DynamicActivationFloat8WeightConfig,
    }
    quantization.quantize_(transformer, configs[kind]())


@contextmanager
def offloaded(pipe: Any, device: str) -> Iterator[None]:
    """Keep each model in host memory but while it computes, as diffusers does it.

    Args:
        pipe: A pipeline of diffusers; its models move, and get hooks while the body runs.
        device: Where they compute.

    Yields:
        Nothing; afterwards the pipeline knows of no offload.
    """
    before = dict(vars(pipe))
    pipe.enable_model_cpu_offload(device=device)
    try:
        yield
    finally:
        pipe.remove_all_hooks()
        vars(pipe).clear()
        vars(pipe).update(before)


def by_data(options: dict[str, Any]) -> bool:
    """Whether what is reused depends on what the model computes.

    Args:
        options: As a suite has them.

    Returns:
        As the method dqar declares of its own; False without reuse.
    """
    return REUSE in options and reuse.by_data(options[REUSE])


def compiles(options: dict[str, Any]) -> bool:
    """Whether no generation may be shorter: another plan would compile other variants.

    Args:
        options: As a suite has them.

    Returns:
        True where the transformer is compiled.
    """
    return bool(options.get("compile"))


METHOD = Method(check=check, apply=apply, by_data=by_data, fixed_steps=compiles, lacks=lacks)
