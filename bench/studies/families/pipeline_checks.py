"""What is demanded of DQAR on a pipeline: the result that brute force gives, or a refusal in one line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

import dqar
from bench.studies.families import emulation
from bench.studies.families.checks import (
    CRASHED,
    NOT_APPLICABLE,
    RIGHT,
    WRONG,
    Outcome,
    failure,
    left_behind,
    line_of,
    refusal,
    state_of,
)
from bench.studies.families.demands import REUSE, no_layer
from bench.studies.families.emulation import Clock
from bench.studies.families.pipeline import TinyPipeline
from dqar import DQARConfig

# Where the arithmetic differs in its last bits (a forecast, a batch of another size): of what reuse changes,
# or of the latents themselves.
_CLOSE, _ROUNDING = 1e-3, 1e-6
_HELD = {"output_order": 0, "output_correction": 0.0}
CONFIGS: dict[str, DQARConfig] = {
    "off": REUSE.replace(warmup_steps=1000, forecast_order=1),
    "attention": REUSE,
    "mlp": REUSE.replace(targets="mlp"),
    "forecast": REUSE.replace(forecast_order=1, forecast_over="step"),
    "steps": no_layer(step_interval=2, **_HELD),
    "guidance": no_layer(guidance_interval=2, **_HELD),
}


@dataclass(frozen=True)
class Generation:
    """A result under DQAR: latents, summary, and the share of each call's batch that reached the blocks."""

    latents: Tensor
    summary: Any
    rows: list[float]

    @property
    def whole(self) -> list[bool]:
        """Of each call, whether the whole batch ran."""
        return [share == 1 for share in self.rows]


class PipelineExamination:
    """One pipeline under every configuration.

    Args:
        tiny: how to build and call the pipeline.
    """

    def __init__(self, tiny: TinyPipeline) -> None:
        self.tiny = tiny

    @cached_property
    def watched(self) -> tuple[Any, Clock]:
        """The pipeline that DQAR is enabled on, called once: diffusers makes its own hooks then."""
        pipe, clock = emulation.watched(self.tiny)
        self.tiny.generate(pipe)
        return pipe, clock

    @property
    def pipe(self) -> Any:
        """The pipeline that DQAR is enabled on."""
        return self.watched[0]

    @cached_property
    def untouched(self) -> tuple[Tensor, Clock]:
        """The result without reuse, and the calls that made it."""
        return emulation.plain(self.tiny)

    @property
    def steps(self) -> int:
        """The steps of a generation."""
        return self.untouched[1].step

    @property
    def calls(self) -> float:
        """Calls of the transformer for each step."""
        return len(self.untouched[1].calls) / self.steps

    def outcomes(self) -> dict[str, Outcome]:
        """Examine the pipeline under every configuration.

        Returns:
            The outcomes by the configuration's name.
        """
        return {name: self.outcome(name) for name in CONFIGS}

    def outcome(self, name: str) -> Outcome:
        """Enable DQAR, generate, disable, and judge all of it.

        Args:
            name: a key of CONFIGS.

        Returns:
            The verdict; an allowed one turns wrong where something is left behind.
        """
        before = state_of(self.pipe)
        judged = self._judge(name)
        try:
            dqar.disable(self.pipe)
            left = left_behind(before, state_of(self.pipe))
            off = _distance(self.tiny.generate(self.pipe), self.untouched[0])
        except Exception as error:
            del self.watched
            return Outcome(WRONG, f"disable: {line_of(error)}")
        if (left or off) and judged.allowed:
            del self.watched
            return Outcome(WRONG, left or f"after disable the result is off by {off:.1e}")
        return judged

    def _judge(self, name: str) -> Outcome:
        try:
            dqar.enable(self.pipe, CONFIGS[name])
        except ValueError as error:
            return refusal(str(error))
        except Exception as error:
            return Outcome(CRASHED, f"enable: {line_of(error)}")
        try:
            generation = self._generation()
        except Exception as error:
            return failure(error)
        if generation.summary.steps != self.steps:
            return Outcome(WRONG, f"the summary has {generation.summary.steps} steps for {self.steps}")
        check: Callable[[Generation], Outcome] = getattr(self, f"_check_{name}")
        try:
            return check(generation)
        except emulation.NothingKept as error:
            return Outcome(WRONG, str(error))

    def _generation(self) -> Generation:
        pipe, clock = self.watched
        clock.reset()
        latents = self.tiny.generate(pipe)
        return Generation(latents, dqar.summary(pipe), self._shares(clock))

    def _shares(self, clock: Clock) -> list[float]:
        """For each call of the untouched generation, which share of its samples the blocks were given."""
        shares: list[float] = []
        for step in range(self.steps):
            full, ran = self.untouched[1].rows[step], clock.rows[step]
            if len(ran) == 1 and len(full) == 2:  # a branch that is left out is the unconditional one
                ran = [*ran, 0] if self.tiny.conditional != 1 else [0, *ran]
            ran = ran or [0] * len(full)
            shares += [given / samples for given, samples in zip(ran, full, strict=True)]
        return shares

    def _check_off(self, generation: Generation) -> Outcome:
        return self._unchanged(generation.latents)

    def _check_attention(self, generation: Generation) -> Outcome:
        return self._layers(generation, (self.tiny.attention,))

    def _check_mlp(self, generation: Generation) -> Outcome:
        return self._layers(generation, self.tiny.mlp)

    def _check_forecast(self, generation: Generation) -> Outcome:
        return self._layers(generation, (self.tiny.attention,), forecast=True)

    def _layers(self, generation: Generation, names: tuple[str, ...], forecast: bool = False) -> Outcome:
        expected = emulation.reusing(self.tiny, names, forecast)
        judged = self._same(generation.latents, expected, exact=not forecast)
        share = (self.steps // 2) / self.steps
        # Skip-layer guidance has calls that leave out layers: there no ratio is the only right one.
        if judged.verdict == RIGHT and self.calls % 1 == 0 and abs(generation.summary.ratio - share) > 1e-6:
            return Outcome(
                WRONG, f"the summary reports {generation.summary.ratio:.3f}, reused was {share:.3f}"
            )
        return judged

    def _check_steps(self, generation: Generation) -> Outcome:
        if all(generation.rows):
            return Outcome(WRONG, "no step was skipped")
        if any(0 < share < 1 for share in generation.rows):
            return Outcome(WRONG, "a branch was left out where whole steps were to be")
        return self._same(generation.latents, emulation.skipping(self.tiny, generation.whole), exact=False)

    def _check_guidance(self, generation: Generation) -> Outcome:
        if self.tiny.conditional is None:
            same = self._unchanged(generation.latents)
            return Outcome(NOT_APPLICABLE, "no guidance") if same.verdict == RIGHT else same
        if all(generation.whole):
            return Outcome(WRONG, "the unconditional branch was never left out")
        ran = self.untouched[1].calls
        conditional = [
            row for row, (_, call) in zip(generation.rows, ran, strict=True) if call == self.tiny.conditional
        ]
        if self.tiny.calls == 2 and not all(conditional):
            return Outcome(WRONG, "the conditional branch was left out")
        return self._same(generation.latents, emulation.guiding(self.tiny, generation.whole), exact=False)

    def _same(self, latents: Tensor, expected: Tensor, exact: bool = True) -> Outcome:
        off, change = _distance(latents, expected), _distance(expected, self.untouched[0])
        if not change:
            return Outcome(WRONG, "reuse by brute force changes nothing here: the comparison is blind")
        if off <= (0.0 if exact else max(_CLOSE * change, _ROUNDING)):
            return Outcome(RIGHT)
        return Outcome(WRONG, f"the latents are off by {off:.1e}, where reuse changes them by {change:.1e}")

    def _unchanged(self, latents: Tensor) -> Outcome:
        off = _distance(latents, self.untouched[0])
        return Outcome(WRONG, f"the latents are off by {off:.1e}") if off else Outcome(RIGHT)


def _distance(one: Tensor, other: Tensor) -> float:
    """Relative L2 distance; 0 only where every bit agrees."""
    if torch.equal(one, other):
        return 0.0
    return float((one.double() - other.double()).norm() / other.double().norm()) or float("inf")
