"""The model's output, foretold: on some steps the conditional branch runs alone and what guidance adds to it,
the difference between the branches' outputs, is foretold from the last steps that ran both; on others
nothing runs, and both are foretold. At the next step that runs, the fresh output shows how far the forecasts
were off, and part of that is given back to the solver (as the corrector of a predictor-corrector method does:
Zhao et al. 2023, UniPC, arXiv 2302.04867; here without a hand in the solver).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dqar.cache.forecast import Forecast, Nodes
from dqar.core.quantization import KVQuantizer
from dqar.plan import BOTH, NONE

EXACT = KVQuantizer(bits=16)  # an output is small beside the layers': it is kept as computed
# A step that hardly moves the latent any more would have to shout, in fp16 beyond its range.
MOST_AMENDS = 30.0


class Place(NamedTuple):
    """Where a step is."""

    position: float  # what forecasts are over
    response: float  # what the final latent gains for each unit of the output there


class Past:
    """A tensor's last values along the trajectory, and the polynomial of `order` through them; `correction`
    is the share of a forecast's error that is made up for."""

    def __init__(self, order: int, correction: float) -> None:
        self.nodes = Nodes(1, order)
        self.entry: Forecast | None = None
        self.correction = correction
        self.guessed: list[Place] = []  # the steps foretold since the last value

    def amends(self, place: Place) -> float:
        """How often a value there must be exaggerated by what its forecast is off, so that the solver ends
        where it would had the steps foretold before been off in proportion, from 0 at the last value on."""
        if not self.guessed or place.response == 0:
            return 0.0
        last = self.nodes.past[0][0]
        owed = sum(p.response * (p.position - last) for p in self.guessed)
        share = self.correction * owed / ((place.position - last) or math.inf) / place.response
        return share if abs(share) < MOST_AMENDS else 0.0

    def corrected(self, value: Tensor, place: Place) -> Tensor:
        """The value for the solver, with amends for the steps foretold before; itself without such."""
        share = self.amends(place)
        return torch.lerp(self.at(place.position), value, 1 + share) if share else value

    def add(self, position: float, value: Tensor) -> None:
        """Note the value at a position, in memory that nobody writes."""
        self.guessed = []
        rates = self.nodes.row(0, position, reused=False)
        self.entry = self.entry.advanced(value, rates, EXACT) if self.entry and rates else Forecast(value)
        self.nodes.computed(0, position)

    def at(self, position: float) -> Tensor:
        """The value foretold there. Raises `RuntimeError` where there is none to foretell from."""
        if self.entry is None:
            raise RuntimeError("nothing to foretell from: no step of this generation has run")
        return self.entry.at(self.nodes.row(0, position, reused=True), EXACT)

    def foretold(self, place: Place) -> Tensor:
        """The same for the solver to use, and noted as such."""
        self.guessed.append(place)
        return self.at(place.position)

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
    generation has one branch; forecasts are polynomials of `order` over the positions of the steps, and
    amends are made for the share `correction` of their errors."""

    def __init__(self, half: int | None, order: int, correction: float = 0.0) -> None:
        self.half = half
        self.main, self.added = Past(order, correction), Past(order, correction)
        self.like: Callable[[Tensor], Any] = lambda prediction: prediction

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors held."""
        return self.main.nbytes + self.added.nbytes

    def halved(self, values: dict[str, Any], batch: int) -> dict[str, Any]:
        """The conditional half of every tensor that has a row for each of `batch`, within dicts too."""
        return {name: self._half(value, batch) for name, value in values.items()}

    def completed(self, output: Any, place: Place, branches: int) -> Any:
        """The output for all branches as the solver is given it, after `branches` of them ran; what the model
        said is noted, as a copy: a CUDA graph writes its output to the same memory each time."""
        prediction, self.like = _opened(output)
        if self.half is None:
            return self.like(self._noted(self.main, prediction.clone(), place))
        if branches != BOTH:
            conditional = self._noted(self.main, prediction.clone(), place)
            return self.like(self._joined(conditional, self.added.foretold(place)))
        fresh, other = prediction.chunk(2)[:: 1 if self.half == 0 else -1]
        kept, added = fresh.clone(), fresh - other
        conditional = self._noted(self.main, kept, place)
        corrected = self._noted(self.added, added, place)
        if conditional is kept and corrected is added:
            return output
        return self.like(self._joined(conditional, corrected))

    def foretold(self, place: Place) -> Any:
        """The output for all branches at a step where none runs."""
        prediction = self.main.foretold(place)
        if self.half is None:
            return self.like(prediction)
        return self.like(self._joined(prediction, self.added.foretold(place)))

    def _noted(self, past: Past, value: Tensor, place: Place) -> Tensor:
        corrected = past.corrected(value, place)
        past.add(place.position, value)
        return corrected

    def deviation(self, output: Any, position: float, branches: int) -> Tensor | None:
        """How far the forecast of this step was from `output`, relative, a scalar; before it is noted."""
        if branches == NONE or not self.main.foretells:
            return None
        prediction, _ = _opened(output)
        fresh = prediction if self.half is None or branches != BOTH else prediction.chunk(2)[self.half]
        return (self.main.at(position) - fresh).float().norm() / fresh.float().norm()

    def _joined(self, conditional: Tensor, added: Tensor) -> Tensor:
        other = conditional - added
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
