"""A bare transformer driven as a pipeline drives it: a real scheduler, and a call for each branch."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import Tensor, nn

from bench.studies.families.configuration import Configuration, Draw

_T = 700.0  # the timestep of constant inputs
_PROMPTS = {"cond": 1, "uncond": 2}  # a branch's name in diffusers -> the seed of its prompt
_WEIGHTED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True, kw_only=True)
class Loop:
    """How a generation calls the transformer.

    With `constant` every step has the same latents and timestep, so whatever is reused is what would be
    computed. `branches` are the calls of a step. With `halves` guidance comes as two halves of a batch.
    """

    steps: int = 3
    constant: bool = True
    branches: tuple[str, ...] = ("cond",)
    halves: bool = False
    as_dict: bool = False  # return_dict


@dataclass(frozen=True)
class Run:
    """What a generation's calls returned, in order, and the numbers that each block's weights were given."""

    outputs: list[Any]
    work: list[int]  # of each block

    def repeated(self, times: int) -> Run:
        """Repeat a generation.

        Args:
            times: how often it is repeated.

        Returns:
            What so many generations of the same inputs would be as one.
        """
        return Run(self.outputs * times, [each * times for each in self.work])


def pipeline_of(model: nn.Module) -> SimpleNamespace:
    """Make the least that a pipeline is: a transformer and a scheduler.

    Args:
        model: the transformer.

    Returns:
        What stands for the pipeline.
    """
    return SimpleNamespace(transformer=model, scheduler=FlowMatchEulerDiscreteScheduler())


@torch.no_grad()
def generate(pipe: Any, configuration: Configuration, loop: Loop, steps: int | None = None) -> Run:
    """Run a loop, and advance the scheduler after each step, as pipelines do.

    Args:
        pipe: a pipeline, or what stands for one.
        configuration: the class under test, which makes the inputs.
        loop: its steps and the calls of each.
        steps: how many of them to run; None: all.

    Returns:
        What the calls returned.
    """
    scheduler, model = pipe.scheduler, pipe.transformer
    begin(scheduler, loop)
    outputs = []
    # Flex attention compiles even its mask otherwise, for seconds.
    with torch.compiler.set_stance("force_eager"), counted(configuration.block_modules(model)) as work:
        for step, t in enumerate(scheduler.timesteps[:steps]):
            for branch in loop.branches:
                draw = Draw(
                    batch=configuration.batch,
                    latents=0 if loop.constant else step,
                    prompt=_PROMPTS[branch],
                    t=t,
                    halves=loop.halves,
                )
                with _branch(model, branch if len(loop.branches) > 1 else None):
                    outputs.append(model(**configuration.inputs(draw), **_return_dict(model, loop.as_dict)))
            scheduler.step(torch.zeros(1), t, torch.zeros(1))
    return Run(outputs, work)


@torch.no_grad()
def call_outside(pipe: Any, configuration: Configuration, latents: int) -> Any:
    """Call the transformer once at a timestep that no schedule here has.

    Args:
        pipe: a pipeline, or what stands for one.
        configuration: the class under test, which makes the inputs.
        latents: random seed of the latents.

    Returns:
        The output.
    """
    draw = Draw(batch=configuration.batch, latents=latents, t=torch.tensor(123.25))
    with torch.compiler.set_stance("force_eager"):
        return pipe.transformer(**configuration.inputs(draw))


def begin(scheduler: Any, loop: Loop) -> None:
    """Set the schedule: sigmas that fall, and timesteps that fall with them or stay.

    Args:
        scheduler: the pipeline's scheduler.
        loop: the loop whose steps are set.
    """
    sigmas = [1 - (step + 0.5) / (loop.steps + 1) for step in range(loop.steps)]
    scheduler.set_timesteps(sigmas=sigmas, timesteps=[_T] * loop.steps if loop.constant else None)
    scheduler.set_begin_index(0)


def _branch(model: Any, name: str | None) -> contextlib.AbstractContextManager[Any]:
    """diffusers' name of a branch, where the class takes one; else only the scheduler distinguishes."""
    if name is None or not hasattr(model, "cache_context"):
        return contextlib.nullcontext()
    context: contextlib.AbstractContextManager[Any] = model.cache_context(name)
    return context


def _return_dict(model: nn.Module, as_dict: bool) -> dict[str, bool]:
    return {"return_dict": as_dict} if _takes_return_dict(type(model).forward) else {}


@functools.cache
def _takes_return_dict(forward: Callable[..., Any]) -> bool:
    return "return_dict" in inspect.signature(forward).parameters


@contextlib.contextmanager
def counted(blocks: Sequence[nn.Module]) -> Iterator[list[int]]:
    """Count the numbers that the weights within each block are given while this is open.

    Args:
        blocks: the blocks of a model.

    Yields:
        The counts so far, one a block.
    """
    work = [0] * len(blocks)
    hooks = []

    def count(index: int) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
            work[index] += sum(tensor.numel() for tensor in args)

        return hook

    for index, block in enumerate(blocks):
        for module in block.modules():
            if isinstance(module, _WEIGHTED):
                hooks.append(module.register_forward_pre_hook(count(index)))
    try:
        yield work
    finally:
        for hook in hooks:
            hook.remove()


def leaves(output: Any) -> list[Any]:
    """Flatten an output.

    Args:
        output: containers, tensors and Nones, nested.

    Returns:
        The types and keys of its containers, its tensors, its Nones, in order.
    """
    if isinstance(output, Mapping):
        return [type(output), *[leaf for key, value in output.items() for leaf in (key, *leaves(value))]]
    if isinstance(output, (list, tuple)):
        return [type(output), *[leaf for value in output for leaf in leaves(value)]]
    return [output]


def identical(one: Any, other: Any) -> bool:
    """Whether two outputs have the same form and the same bits.

    Args:
        one: an output of the transformer.
        other: another output.

    Returns:
        True for the same form and bits; a nan is equal to none.
    """
    a, b = leaves(one), leaves(other)
    return len(a) == len(b) and all(
        torch.equal(x, y) if isinstance(x, Tensor) and isinstance(y, Tensor) else _same_object(x, y)
        for x, y in zip(a, b, strict=True)
    )


def distance(one: Any, other: Any) -> float:
    """Measure how far two outputs are apart.

    Args:
        one: an output of the transformer.
        other: the one that distances are relative to.

    Returns:
        The largest relative L2 distance of their tensors; infinite where their forms differ.
    """
    a, b = leaves(one), leaves(other)
    if len(a) != len(b):
        return float("inf")
    far = 0.0
    for x, y in zip(a, b, strict=True):
        if isinstance(x, Tensor) and isinstance(y, Tensor) and x.shape == y.shape:
            far = max(far, float((x.double() - y.double()).norm() / y.double().norm().clamp_min(1e-12)))
        elif isinstance(x, Tensor) or isinstance(y, Tensor) or not _same_object(x, y):
            return float("inf")
    return far


def _same_object(x: Any, y: Any) -> bool:
    return not isinstance(x, Tensor) and not isinstance(y, Tensor) and x == y
