"""The model's output, foretold: on some steps the conditional branch runs alone and what guidance adds to it,
the difference between the branches' outputs, is foretold from the last steps that ran both; on others
nothing runs, and both are foretold."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from dqar.cache.forecast import Forecast, Nodes
from dqar.core.quantization import KVQuantizer
from dqar.plan import BOTH, NONE

EXACT = KVQuantizer(bits=16)  # an output is small beside the layers': it is kept as computed


class Past:
    """A tensor's last values along the trajectory, and the polynomial of `order` through them."""

    def __init__(self, order: int) -> None:
        self.nodes = Nodes(1, order)
        self.entry: Forecast | None = None

    def add(self, position: float, value: Tensor) -> None:
        """Note the value at a position."""
        rates = self.nodes.row(0, position, reused=False)
        self.entry = self.entry.advanced(value, rates, EXACT) if self.entry and rates else Forecast(value)
        self.nodes.computed(0, position)

    def at(self, position: float) -> Tensor:
        """The value foretold there. Raises `RuntimeError` where there is none to foretell from."""
        if self.entry is None:
            raise RuntimeError("nothing to foretell from: no step of this generation has run")
        return self.entry.at(self.nodes.row(0, position, reused=True), EXACT)

    @property
    def foretells(self) -> bool:
        """Whether there are two values, so that a forecast is more than a repetition."""
        return self.entry is not None and len(self.nodes.past[0]) > 1

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors held."""
        return self.entry.nbytes if self.entry else 0


class Outputs:
    """The outputs of one generation. `half` is the conditional branch's place in the batch, None where the
    generation has one branch; forecasts are polynomials of `order` over the positions of the steps."""

    def __init__(self, half: int | None, order: int) -> None:
        self.half = half
        self.main, self.added = Past(order), Past(order)
        self.like: Callable[[Tensor], Any] = lambda prediction: prediction

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors held."""
        return self.main.nbytes + self.added.nbytes

    def halved(self, values: dict[str, Any], batch: int) -> dict[str, Any]:
        """The conditional half of every tensor that has a row for each of `batch`, within dicts too."""
        return {name: self._half(value, batch) for name, value in values.items()}

    def completed(self, output: Any, position: float, branches: int) -> Any:
        """The model's output for all branches, after `branches` of them ran; what it says is noted."""
        prediction, self.like = _opened(output)
        if self.half is None or branches != BOTH:
            self.main.add(position, prediction)
            return output if self.half is None else self.like(self._joined(prediction, position))
        conditional, other = prediction.chunk(2)[:: 1 if self.half == 0 else -1]
        self.main.add(position, conditional)
        self.added.add(position, conditional - other)
        return output

    def foretold(self, position: float) -> Any:
        """The output for all branches at a step where none runs."""
        prediction = self.main.at(position)
        return self.like(prediction if self.half is None else self._joined(prediction, position))

    def deviation(self, output: Any, position: float, branches: int) -> Tensor | None:
        """How far the forecast of this step was from `output`, relative, a scalar; before it is noted."""
        if branches == NONE or not self.main.foretells:
            return None
        prediction, _ = _opened(output)
        fresh = prediction if self.half is None or branches != BOTH else prediction.chunk(2)[self.half]
        return (self.main.at(position) - fresh).float().norm() / fresh.float().norm()

    def _joined(self, conditional: Tensor, position: float) -> Tensor:
        other = conditional - self.added.at(position)
        return torch.cat((conditional, other) if self.half == 0 else (other, conditional))

    def _half(self, value: Any, batch: int) -> Any:
        if isinstance(value, dict):
            return self.halved(value, batch)
        if isinstance(value, Tensor) and value.ndim and len(value) == batch:
            return value.chunk(2)[self.half or 0]
        return value


def _opened(output: Any) -> tuple[Tensor, Callable[[Tensor], Any]]:
    """A transformer's prediction, and how to make an output like it of another."""
    if isinstance(output, tuple):
        return output[0], lambda prediction: (prediction, *output[1:])
    return output.sample, lambda prediction: type(output)(sample=prediction)
