"""What is demanded of DQAR on one transformer: right in every bit, or refused in one line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

import dqar
from bench.studies.families.configuration import Configuration
from bench.studies.families.demands import DEMANDS, TWO_CALLS, Demand
from bench.studies.families.denoising import (
    Loop,
    Run,
    call_outside,
    distance,
    generate,
    identical,
    pipeline_of,
)

RIGHT, REFUSED, WRONG, CRASHED, NOT_APPLICABLE = "right", "refused", "wrong", "crashed", "-"
_CLOSE = 1e-5  # relative distance: an output less a difference and plus it again is rounded twice


@dataclass(frozen=True)
class Outcome:
    """What came of one demand, and why it is not right."""

    verdict: str
    why: str = ""

    @property
    def allowed(self) -> bool:
        """Whether a user may meet this."""
        return self.verdict not in (WRONG, CRASHED)


class Examination:
    """One configuration's model under every demand.

    Args:
        configuration: the class under test with its options.
    """

    def __init__(self, configuration: Configuration) -> None:
        self.configuration = configuration
        self._untouched: dict[Loop, Run] = {}
        self.model = pipeline_of(configuration.build())  # which DQAR never sees

    @cached_property
    def pipe(self) -> Any:
        """The model in the least that is a pipeline, called once: diffusers makes its own hooks then."""
        pipe = pipeline_of(self.configuration.build())
        generate(pipe, self.configuration, TWO_CALLS, steps=1)
        return pipe

    @cached_property
    def before(self) -> dict[str, tuple[Any, ...]]:
        """What the pipeline consists of before DQAR has ever been enabled on it."""
        return state_of(self.pipe)

    def _rebuild(self) -> None:
        """Make the model again where it is needed next."""
        del self.pipe, self.before

    def untouched(self, loop: Loop) -> Run:
        """Generate without DQAR, once for each loop.

        Args:
            loop: the steps and calls.

        Returns:
            What the calls returned.
        """
        if loop not in self._untouched:
            # Where every step is the same, one will do.
            steps = 1 if loop.constant else loop.steps
            run = generate(self.model, self.configuration, loop, steps)
            self._untouched[loop] = run.repeated(loop.steps // steps)
        return self._untouched[loop]

    def outcome(self, name: str) -> Outcome:
        """Enable DQAR as the demand states, generate, disable, and judge all of it.

        Args:
            name: the name of a demand.

        Returns:
            The verdict; an allowed one turns wrong where something is left behind.
        """
        demand = DEMANDS[name]
        if demand.loop.halves and not self.configuration.halves:
            return Outcome(NOT_APPLICABLE, "its batch holds one sample")
        plain = self.untouched(demand.loop)
        before = self.before
        judged = self._judge(demand, plain)
        left = self._restored(before, demand, plain)
        return Outcome(WRONG, left) if left and judged.allowed else judged

    def _judge(self, demand: Demand, plain: Run) -> Outcome:
        try:
            dqar.enable(self.pipe, demand.config)
        except ValueError as error:
            return refusal(str(error))
        except Exception as error:
            return Outcome(CRASHED, f"enable: {line_of(error)}")
        try:
            run = generate(self.pipe, self.configuration, demand.loop)
            summary = dqar.summary(self.pipe)
            strayed = self._strayed() if demand.outside else ""
        except Exception as error:
            return failure(error)
        layers = self.configuration.layers or len(run.work)
        miscounted = f"{summary.layers} layers for {layers}" if summary.layers != layers else ""
        faults = [strayed, miscounted, *(check(demand, run, plain, summary) for check in CHECKS)]
        return next((Outcome(WRONG, text) for text in faults if text), Outcome(RIGHT))

    def _strayed(self) -> str:
        """Two calls at a timestep that is not the schedule's: no steps, computed as they stand."""
        for latents in (5, 6):
            ours, theirs = (
                call_outside(pipe, self.configuration, latents) for pipe in (self.pipe, self.model)
            )
            if not identical(ours, theirs):
                return f"a call outside of the schedule is off by {distance(ours, theirs):.1e}"
        return ""

    def _restored(self, before: Any, demand: Demand, plain: Run) -> str:
        """What `disable` left behind, as one line; the model is then built again."""
        try:
            dqar.disable(self.pipe)
            left = left_behind(before, state_of(self.pipe))
            same = not demand.again or self._untouched_again(demand.loop, plain)
        except Exception as error:
            self._rebuild()
            return f"disable: {line_of(error)}"
        if left or not same:
            self._rebuild()
        return left or ("" if same else "after disable the outputs are not the untouched model's")

    def _untouched_again(self, loop: Loop, plain: Run) -> bool:
        """Whether the pipeline generates as if untouched; what reuses would show it at the second step."""
        steps = 2
        again = generate(self.pipe, self.configuration, loop, steps)
        work = [count * steps // loop.steps for count in plain.work]  # every step is the same
        return all(map(identical, again.outputs, plain.outputs)) and again.work == work


def refusal(text: str) -> Outcome:
    """Judge the text of a refusal: it is one line that states what is allowed instead.

    Args:
        text: the error's message.

    Returns:
        Refused, or wrong.
    """
    if "\n" in text or "allowed" not in text:
        return Outcome(WRONG, f"refused without a word on what is allowed: {text.splitlines()[0]}")
    return Outcome(REFUSED, text)


def failure(error: Exception) -> Outcome:
    """Judge a generation that raised.

    Args:
        error: what it raised.

    Returns:
        Refused late, where only the call shows it, or crashed.
    """
    late = refusal(str(error)) if isinstance(error, ValueError) else None
    if late and late.verdict == REFUSED:
        return Outcome(REFUSED, f"at the first call: {late.why}")
    return Outcome(CRASHED, f"generation: {line_of(error)}")


def _outputs(demand: Demand, run: Run, plain: Run, summary: Any) -> str:
    branches = demand.loop.branches
    for index, (ours, theirs) in enumerate(zip(run.outputs, plain.outputs, strict=True)):
        step, branch = index // len(branches), branches[index % len(branches)]
        off = 0.0 if identical(ours, theirs) else distance(ours, theirs) or float("inf")
        if demand.stale and step % 2:
            if not 0 < off < 1:
                return f"step {step}, {branch}: reuse changes the output by {off:.1e}"
        elif off > (0.0 if demand.exact else _CLOSE):
            what = "of another form" if off == float("inf") else f"off by {off:.1e}"
            return f"step {step}, {branch}: the output is {what}"
    return ""


def _steps(demand: Demand, run: Run, plain: Run, summary: Any) -> str:
    steps = demand.loop.steps
    return "" if summary.steps == steps else f"the summary has {summary.steps} steps for {steps}"


def _work(demand: Demand, run: Run, plain: Run, summary: Any) -> str:
    more = [
        block for block, (ours, theirs) in enumerate(zip(run.work, plain.work, strict=True)) if ours > theirs
    ]
    if more:
        return f"blocks {more} computed more than untouched"
    spared = [ours < theirs for ours, theirs in zip(run.work, plain.work, strict=True)]
    if demand.reuses and not any(spared):
        return f"nothing was reused; the summary reports {summary.ratio:.2f}"
    if demand.reuses and demand.layers and not all(spared):
        return f"blocks {[i for i, ok in enumerate(spared) if not ok]} of {len(spared)} were never reused"
    return "" if demand.reuses or not any(spared) else "work was spared where nothing may be reused"


def _ratio(demand: Demand, run: Run, plain: Run, summary: Any) -> str:
    if demand.config.guidance_interval > 1 and demand.reuses:
        return ""  # a branch left out is no layer reused
    reported = summary.ratio > 0
    return "" if reported == demand.reuses else f"the summary reports a ratio of {summary.ratio:.2f}"


def _entropy(demand: Demand, run: Run, plain: Run, summary: Any) -> str:
    if not demand.entropy:
        return ""
    # A layer that the model does not call has none.
    measured = int((np.isfinite(summary.entropy) & (summary.entropy > 0)).all(axis=0).sum())
    needed = len(plain.work)
    return "" if measured >= needed else f"entropy was measured in {measured} layers of {needed}"


CHECKS: tuple[Callable[[Demand, Run, Run, Any], str], ...] = (_outputs, _steps, _work, _ratio, _entropy)


def state_of(pipe: Any) -> dict[str, tuple[Any, ...]]:
    """Collect all that DQAR may leave on a pipeline and its modules.

    Args:
        pipe: a pipeline, or what stands for one.

    Returns:
        Attributes, processors, hooks and forwards by the module's path.
    """
    state: dict[str, tuple[Any, ...]] = {"pipe": tuple(vars(pipe))}
    for part in ("transformer", "transformer_2"):
        model = getattr(pipe, part, None)
        for path, module in model.named_modules() if model is not None else ():
            attributes = vars(module)
            functions = [
                getattr(attributes.get(name), "__func__", attributes.get(name))
                for name in ("forward", "processor")
            ]
            hooks = [
                len(value)
                for name, value in attributes.items()
                if "hook" in name and hasattr(value, "__len__")
            ]
            state[f"{part}.{path}"] = (type(module), *attributes, *map(id, functions), *hooks)
    return state


def left_behind(before: dict[str, tuple[Any, ...]], after: dict[str, tuple[Any, ...]]) -> str:
    """Compare two states of a pipeline.

    Args:
        before: as `state_of` returned it.
        after: the same, later.

    Returns:
        The first module that differs, as text; empty where none does.
    """
    changed = [path for path in before.keys() | after.keys() if before.get(path) != after.get(path)]
    return f"disable left something on {min(changed)} ({len(changed)} modules)" if changed else ""


def examine(configuration: Configuration) -> dict[str, Outcome]:
    """Examine one configuration.

    Args:
        configuration: a class with its options.

    Returns:
        The outcome of every demand by its name.
    """
    examination = Examination(configuration)
    return {name: examination.outcome(name) for name in DEMANDS}


def line_of(error: BaseException) -> str:
    """Shorten an error.

    Args:
        error: what was raised.

    Returns:
        Its class and first line, at most 200 characters.
    """
    first = str(error).strip().splitlines()
    return f"{type(error).__name__}: {first[0] if first else ''}"[:200]
