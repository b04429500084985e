"""Forecasts of the model's output. At some steps only the conditional branch runs, and what guidance adds to
it, the difference between the branches' outputs, is forecast from the last steps that ran both; at others
nothing runs, and both are forecast. At the next step that runs, the fresh output shows the forecasts' error,
and part of the accumulated error is given back to the solver (as the corrector of a predictor-corrector
method does: Zhao et al. 2023, UniPC, arXiv 2302.04867; here without touching the solver).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dqar.cache.divided_differences import Forecast, InterpolationNodes
from dqar.core.quantization import KVQuantizer
from dqar.integration.tree import LEAF, Template, flatten, unflatten
from dqar.plan import BOTH, NONE

EXACT = KVQuantizer(bits=16)  # an output is small compared with the layers': it is kept as computed
# A step that hardly moves the latent any more would need a correction beyond the range of fp16.
MAX_CORRECTION = 30.0
# Arguments that are the same for all samples, and those whose batch is not the first dimension.
SHARED = re.compile(r"rotary|rope|img_ids|txt_ids")
BATCH_DIMS = {"encoder_hidden_states_llama3": 1}

Tensors = Sequence[Tensor]


class StepPosition(NamedTuple):
    """Where a step is."""

    position: float  # the coordinate of forecasts
    sensitivity: float  # what the final latent gains for each unit of the output there


class Extrapolator:
    """The last values of some tensors along the trajectory, and the polynomial through them.

    Args:
        order: Order of the polynomial; 0 = the last value is repeated.
        correction: Share of a forecast's error that is given back, 0 to 1.
    """

    def __init__(self, order: int, correction: float) -> None:
        self.nodes = InterpolationNodes(1, order)
        self.entries: list[Forecast] = []
        self.correction = correction
        self.skipped: list[StepPosition] = []  # the steps forecast since the last value

    def correction_at(self, step: StepPosition) -> float:
        """The factor by which the forecast's error at a step is amplified.

        With it the solver ends where it would had the steps forecast before been off in proportion, from 0 at
        the last value on.

        Args:
            step: Where the step is.

        Returns:
            0 without steps forecast before, or where the factor would reach MAX_CORRECTION.
        """
        if not self.skipped or step.sensitivity == 0:
            return 0.0
        last = self.nodes.past[0][0]
        accumulated = sum(s.sensitivity * (s.position - last) for s in self.skipped)
        share = self.correction * accumulated / ((step.position - last) or math.inf) / step.sensitivity
        return share if abs(share) < MAX_CORRECTION else 0.0

    def corrected(self, values: Tensors, step: StepPosition) -> Tensors:
        """Correct values for the steps forecast before.

        Args:
            values: The fresh values at the step.
            step: Where the step is.

        Returns:
            The values for the solver; `values` itself without steps forecast before.
        """
        share = self.correction_at(step)
        if not share:
            return values
        pairs = zip(self.at(step.position), values, strict=True)
        return [torch.lerp(forecast, value, 1 + share) for forecast, value in pairs]

    def add(self, position: float, values: Tensors) -> None:
        """Note the values at a position.

        Args:
            position: The step's coordinate.
            values: In memory that nothing else writes; they are kept.
        """
        self.skipped = []
        rates = self.nodes.row(0, position, reused=False)
        if self.entries and rates:
            pairs = zip(self.entries, values, strict=True)
            self.entries = [entry.advanced(value, rates, EXACT) for entry, value in pairs]
        else:
            self.entries = [Forecast(value) for value in values]
        self.nodes.computed(0, position)

    def at(self, position: float) -> list[Tensor]:
        """Forecast the values at a position.

        Args:
            position: The step's coordinate.

        Returns:
            One tensor for each of those added, of its shape.

        Raises:
            RuntimeError: Where there is nothing to forecast from.
        """
        if not self.entries:
            raise RuntimeError("nothing to forecast from: no step of this generation has run")
        row = self.nodes.row(0, position, reused=True)
        return [entry.at(row, EXACT) for entry in self.entries]

    def forecast(self, step: StepPosition) -> list[Tensor]:
        """The same for the solver to use, and noted as such.

        Args:
            step: Where the step is.

        Returns:
            One tensor for each of those added, of its shape.

        Raises:
            RuntimeError: There is nothing to forecast from.
        """
        self.skipped.append(step)
        return self.at(step.position)

    @property
    def newest(self) -> list[Tensor]:
        """The last values that were added."""
        return [entry.value for entry in self.entries]

    @property
    def extrapolates(self) -> bool:
        """Whether there are two values, so that a forecast is more than a repetition."""
        return bool(self.entries) and len(self.nodes.past[0]) > 1

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors held."""
        return sum(entry.nbytes for entry in self.entries)


class OutputForecaster:
    """The outputs of one generation.

    Args:
        conditional: Index of the conditional branch's half in the batch; None where a call runs one branch.
        order: Order of the polynomials over the positions of the steps.
        correction: Share of the forecasts' error that is given back.
    """

    def __init__(self, conditional: int | None, order: int, correction: float = 0.0) -> None:
        self.conditional = conditional
        self.main, self.added = Extrapolator(order, correction), Extrapolator(order, correction)
        self.template: Template = LEAF
        self.given: Tensors = ()  # the conditional output as the solver was given it at this step

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors held."""
        return self.main.nbytes + self.added.nbytes

    def halved(self, values: dict[str, Any], batch: int) -> dict[str, Any]:
        """The conditional half of every tensor that has a row for each sample, within containers too.

        Args:
            values: The transformer's arguments by name.
            batch: Samples of both halves together.

        Returns:
            The arguments by name; what all samples share is passed on as it is.
        """
        return {name: self._half(name, value, batch) for name, value in values.items()}

    def completed(self, output: Any, step: StepPosition, branches: int) -> Any:
        """Complete the output of a call that ran, and correct it for the steps forecast before.

        The fresh output is noted, as a copy: a CUDA graph writes its output to the same memory each time.

        Args:
            output: What the transformer returned, any tree of tensors.
            step: Where the step is.
            branches: Guidance branches that ran in the call, CONDITIONAL or BOTH.

        Returns:
            The output for all branches as the solver is given it; `output` itself where nothing changes.
        """
        fresh, self.template = flatten(output)
        if self.conditional is None:
            self.given = self._noted(self.main, [t.clone() for t in fresh], step)
            return unflatten(self.template, self.given)
        if branches != BOTH:
            conditional = self._noted(self.main, [t.clone() for t in fresh], step)
            return self._joined(conditional, self.added.forecast(step))
        halves = [t.chunk(2)[:: 1 if self.conditional == 0 else -1] for t in fresh]
        kept, added = [one.clone() for one, _ in halves], [one - other for one, other in halves]
        conditional = self._noted(self.main, kept, step)
        corrected = self._noted(self.added, added, step)
        if conditional is kept and corrected is added:
            return output
        return self._joined(conditional, corrected)

    def forecast(self, step: StepPosition) -> Any:
        """Forecast the output at a step where no branch runs.

        Args:
            step: Where the step is.

        Returns:
            The output for all branches, a tree as the transformer returns it.

        Raises:
            RuntimeError: No step of this generation has run.
        """
        self.given = self.main.forecast(step)
        if self.conditional is None:
            return unflatten(self.template, self.given)
        return self._joined(self.given, self.added.forecast(step))

    def unconditional(self, output: Any, step: StepPosition, ran: bool) -> Any:
        """The unconditional branch's own call, after the conditional one's of the same step.

        Where it did not run, its output is the conditional one less the forecast difference.

        Args:
            output: What the unconditional branch's call returned; not used where it did not run.
            step: Where the step is.
            ran: Whether it ran.

        Returns:
            The unconditional branch's output as the solver is given it.
        """
        if not ran:
            added: Tensors = self.added.forecast(step)
            return unflatten(self.template, [c - a for c, a in zip(self.given, added, strict=True)])
        fresh, _ = flatten(output)
        difference = [c - u for c, u in zip(self.main.newest, fresh, strict=True)]
        corrected = self._noted(self.added, difference, step)
        if corrected is difference and all(a is b for a, b in zip(self.given, self.main.newest, strict=True)):
            return output
        return unflatten(self.template, [c - a for c, a in zip(self.given, corrected, strict=True)])

    def deviation(self, output: Any, position: float, branches: int) -> Tensor | None:
        """How far the forecast of this step was from the fresh output, ||forecast - fresh|| / ||fresh||.

        Args:
            output: What the transformer returned, before it is noted.
            position: The step's coordinate.
            branches: Guidance branches that ran in the call.

        Returns:
            A scalar tensor on the device; None where nothing ran, or fewer than two values are known.
        """
        if branches == NONE or not self.main.extrapolates:
            return None
        fresh = flatten(output)[0][0]
        if self.conditional is not None and branches == BOTH:
            fresh = fresh.chunk(2)[self.conditional]
        error: Tensor = (self.main.at(position)[0] - fresh).float().norm()
        relative: Tensor = error / fresh.float().norm()
        return relative

    def _noted(self, past: Extrapolator, values: Tensors, step: StepPosition) -> Tensors:
        corrected = past.corrected(values, step)
        past.add(step.position, values)
        return corrected

    def _joined(self, conditional: Tensors, added: Tensors) -> Any:
        pairs = [(c, c - a) for c, a in zip(conditional, added, strict=True)]
        return unflatten(self.template, [torch.cat(p if self.conditional == 0 else p[::-1]) for p in pairs])

    def _half(self, name: str, value: Any, batch: int) -> Any:
        if isinstance(value, dict):
            return self.halved(value, batch)
        if isinstance(value, (tuple, list)):
            nested = all(isinstance(item, (tuple, list, dict)) for item in value)
            if len(value) == batch and nested and not SHARED.search(name):
                return _chosen(value, self.conditional or 0)
            return type(value)([self._half(name, item, batch) for item in value])
        if not isinstance(value, Tensor) or _is_shared(name, value):
            return value
        dim = BATCH_DIMS.get(name, 0)
        if value.ndim > dim and value.shape[dim] == batch:
            return value.chunk(2, dim)[self.conditional or 0]
        return value


def _is_shared(name: str, value: Tensor) -> bool:
    """Positions are the same for all samples, and may by chance have as many rows as the batch."""
    return ("indices" in name and value.ndim == 1) or (value.ndim <= 2 and bool(SHARED.search(name)))


def _chosen(values: Any, conditional: int) -> Any:
    middle = len(values) // 2
    return values[middle:] if conditional else values[:middle]
