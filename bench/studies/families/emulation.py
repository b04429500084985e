"""Reuse by brute force, without DQAR: what a correct runtime's result must be, branch by branch.

Steps are distinguished by the scheduler's `step`, branches by the order of the calls within a step. Modules
keep what they returned for each branch, and return it, or a forecast from it, at the steps that reuse.
"""

from __future__ import annotations

import functools
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from bench.studies.families.pipeline import TinyPipeline

Forward = Callable[..., Any]


class NothingKept(LookupError):
    """A branch was left out before it had ever run."""


@dataclass
class Clock:
    """Where a generation is: the step, counted from its first, and the call within the step.

    `rows` are the samples that the transformer's first block was given, for each time it ran in each step.
    """

    step: int = 0
    call: int = -1
    calls: list[tuple[int, int]] = field(default_factory=list)  # (step, call within it) of each call so far
    rows: dict[int, list[int]] = field(default_factory=lambda: defaultdict(list))

    def called(self) -> None:
        """Note a call of the transformer."""
        self.call += 1
        self.calls.append((self.step, self.call))

    def stepped(self) -> None:
        """Note the end of a step."""
        self.step, self.call = self.step + 1, -1

    def ran(self, samples: int) -> None:
        """Note that the blocks run on so many samples.

        Args:
            samples: rows of the batch that the blocks run on.
        """
        self.rows[self.step].append(samples)

    def reset(self) -> None:
        """Begin another generation."""
        self.step, self.call, self.calls = 0, -1, []
        self.rows.clear()


@dataclass
class Kept:
    """What a module returned for a branch at the last two steps that computed it."""

    step: int
    output: Any
    before: Kept | None = None

    def held(self, step: int) -> Any:
        """Hold the last output.

        Args:
            step: not used: the other forecast needs it.

        Returns:
            The output.
        """
        return self.output

    def line(self, step: int) -> Any:
        """Draw a line through the last two outputs, over the step's number.

        Args:
            step: the step at which the forecast is read.

        Returns:
            The forecast, of the output's form; the last output where there is only one.
        """
        before = self.before
        if before is None:
            return self.output
        share = (step - self.step) / (self.step - before.step)
        return merged(lambda new, old: new + (new - old) * share, self.output, before.output)


def merged(combine: Callable[..., Tensor], *outputs: Any) -> Any:
    """Combine the tensors of outputs of one form.

    Args:
        combine: takes one tensor of each.
        *outputs: at least one.

    Returns:
        An output of that form.
    """
    first = outputs[0]
    if isinstance(first, Tensor):
        return combine(*outputs)
    if isinstance(first, Mapping):
        return type(first)(**{key: merged(combine, *[each[key] for each in outputs]) for key in first})
    if isinstance(first, (list, tuple)):
        return type(first)([merged(combine, *each) for each in zip(*outputs, strict=True)])
    return first


def watched(tiny: TinyPipeline, change: Callable[[Any], Any] | None = None) -> tuple[Any, Clock]:
    """Build a fresh pipeline, and a clock that its scheduler and its transformers' calls move.

    Args:
        tiny: the pipeline's description.
        change: is done to the pipeline first; None: nothing.

    Returns:
        The pipeline and the clock.
    """
    pipe, clock = tiny.build(), Clock()
    if change is not None:
        change(pipe)
    advance = pipe.scheduler.step

    @functools.wraps(advance)  # pipelines ask for its parameters
    def step(*args: Any, **kwargs: Any) -> Any:
        clock.stepped()
        return advance(*args, **kwargs)

    pipe.scheduler.step = step
    for model in tiny.transformers(pipe):
        model.register_forward_pre_hook(lambda module, args: clock.called())
        tiny.blocks(model)[0].register_forward_pre_hook(
            lambda module, args, kwargs: clock.ran(_samples(args, kwargs)), with_kwargs=True
        )
    return pipe, clock


def _samples(args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    return len(next(value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)))


def plain(tiny: TinyPipeline) -> tuple[Tensor, Clock]:
    """Generate without any reuse.

    Args:
        tiny: the pipeline's description.

    Returns:
        The result, and the calls that made it.
    """
    pipe, clock = watched(tiny)
    return tiny.generate(pipe), clock


def reusing(
    tiny: TinyPipeline,
    names: Sequence[str],
    forecast: bool = False,
    change: Callable[[Any], Any] | None = None,
) -> Tensor:
    """Generate with modules that are computed at every second step.

    Args:
        tiny: the pipeline's description.
        names: names of the modules within each block.
        forecast: whether the steps between draw a line through the last two outputs, else hold the last.
        change: is done to the pipeline first; None: nothing.

    Returns:
        The result.
    """
    pipe, clock = watched(tiny, change)
    for model in tiny.transformers(pipe):
        for block in tiny.blocks(model):
            for name in names:
                if getattr(block, name, None) is not None:
                    _reuse(getattr(block, name), clock, forecast)
    return tiny.generate(pipe)


def _reuse(module: nn.Module, clock: Clock, forecast: bool) -> None:
    compute, kept = module.forward, dict[tuple[int, int], Kept]()
    times: Counter[tuple[int, int]] = Counter()  # that a call has used the module: some do so for each stream

    def forward(*args: Any, **kwargs: Any) -> Any:
        now = (clock.step, clock.call)
        place = (clock.call, times[now])
        times[now] += 1
        last = kept.get(place)
        if last is not None and clock.step % 2 and last.step == clock.step - 1:
            return (last.line if forecast else last.held)(clock.step)
        kept[place] = Kept(clock.step, compute(*args, **kwargs), last)
        return kept[place].output

    module.forward = forward


def skipping(tiny: TinyPipeline, ran: Sequence[bool]) -> Tensor:
    """Generate with calls of the transformer skipped: they repeat their branch's last output.

    Args:
        tiny: the pipeline's description.
        ran: whether each call ran, in order.

    Returns:
        The result.
    """
    pipe, clock = watched(tiny)

    def replace(compute: Forward) -> Forward:
        kept: dict[int, Any] = {}  # of each branch; each transformer's own

        def forward(*args: Any, **kwargs: Any) -> Any:
            if ran[len(clock.calls) - 1]:
                kept[clock.call] = compute(*args, **kwargs)
            if clock.call not in kept:
                raise NothingKept(f"step {clock.step}, call {clock.call} was skipped before it had ever run")
            return kept[clock.call]

        return forward

    for model in tiny.transformers(pipe):
        model.forward = replace(model.forward)
    return tiny.generate(pipe)


def guiding(tiny: TinyPipeline, ran: Sequence[bool]) -> Tensor:
    """Generate with the unconditional branch skipped: it is the conditional one less the last difference
    of both, whether it is a call of its own or a half of the batch.

    Args:
        tiny: the pipeline's description.
        ran: whether the unconditional branch ran at each call, in order.

    Returns:
        The result.
    """
    pipe, clock = watched(tiny)
    outputs: dict[int, Any] = {}  # of a step's calls
    difference: list[Any] = [None]

    def two_calls(compute: Forward) -> Forward:
        def forward(*args: Any, **kwargs: Any) -> Any:
            if clock.call == tiny.conditional or ran[len(clock.calls) - 1]:
                outputs[clock.call] = compute(*args, **kwargs)
            if clock.call == tiny.conditional:
                return outputs[clock.call]
            conditional = outputs.get(tiny.conditional or 0)
            if ran[len(clock.calls) - 1]:
                difference[0] = merged(Tensor.sub, conditional, outputs[clock.call])
                return outputs[clock.call]
            if difference[0] is None:
                raise NothingKept(
                    f"step {clock.step}: the unconditional branch was left out before it had ever run"
                )
            return merged(Tensor.sub, conditional, difference[0])

        return forward

    def halves(compute: Forward) -> Forward:
        def forward(*args: Any, **kwargs: Any) -> Any:
            output = compute(*args, **kwargs)
            if clock.call:  # not the guided batch, but skip-layer guidance's own call
                return output
            rows = torch.stack(output[0]) if isinstance(output[0], list) else output[0]
            rows = _completed(rows, tiny.conditional or 0, ran[len(clock.calls) - 1], difference)
            result = list(rows) if isinstance(output[0], list) else rows
            return type(output)(sample=result) if hasattr(output, "sample") else (result, *output[1:])

        return forward

    for model in tiny.transformers(pipe):
        model.forward = (two_calls if tiny.calls == 2 else halves)(model.forward)
    return tiny.generate(pipe)


def _completed(rows: Tensor, conditional: int, run: bool, difference: list[Any]) -> Tensor:
    """A batch of two halves, the unconditional one replaced where it did not run."""
    parts = list(rows.chunk(2))
    if run:
        difference[0] = parts[conditional] - parts[1 - conditional]
    else:
        parts[1 - conditional] = parts[conditional] - difference[0]
    return torch.cat(parts)
