"""Guidance with one branch: on some steps the conditional branch runs alone, and what guidance adds to it,
the difference between the branches' outputs, is foretold from the last steps that ran both."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

PAST = 2  # differences kept: a line through them foretells the next


class Guidance:
    """The branches of one generation. `half` is the conditional one's place in the batch."""

    def __init__(self, half: int) -> None:
        self.half = half
        self.past: list[tuple[float, Tensor]] = []  # position and difference, newest first

    def halved(self, values: dict[str, Any], batch: int) -> dict[str, Any]:
        """The conditional half of every tensor that has a row for each of `batch`, within dicts too."""
        return {name: self._half(value, batch) for name, value in values.items()}

    def completed(self, output: Any, position: float, alone: bool) -> Any:
        """The model's output for both branches; what it says is noted where both ran."""
        prediction = _prediction(output)
        if alone:
            other = prediction - self._foretold(position)
            both = (prediction, other) if self.half == 0 else (other, prediction)
            return _with_prediction(output, torch.cat(both))
        conditional, unconditional = prediction.chunk(2)[:: 1 if self.half == 0 else -1]
        newest = (position, conditional - unconditional)
        self.past = [newest, *(entry for entry in self.past if entry[0] != position)][:PAST]
        return output

    def _half(self, value: Any, batch: int) -> Any:
        if isinstance(value, dict):
            return self.halved(value, batch)
        if isinstance(value, Tensor) and value.ndim and len(value) == batch:
            return value.chunk(2)[self.half]
        return value

    def _foretold(self, position: float) -> Tensor:
        (at, newest), *rest = self.past
        if not rest:
            return newest
        before, older = rest[0]
        return torch.lerp(older, newest, (position - before) / (at - before))


def _prediction(output: Any) -> Tensor:
    found: Tensor = output[0] if isinstance(output, tuple) else output.sample
    return found


def _with_prediction(output: Any, prediction: Tensor) -> Any:
    if isinstance(output, tuple):
        return (prediction, *output[1:])
    return type(output)(sample=prediction)
