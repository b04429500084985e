"""SpeCa (Liu et al. 2025, arXiv 2509.11628): features are forecast, and forecasts are verified.

The draft is TaylorSeer's: of the outputs F of each attention and MLP at the last computed step, k steps later
they are sum_i D^i F / i! * (k / N)^i, where D^i are finite differences of computed steps N apart. To verify,
the last block is run in full on the forecast input, and its output compared with the forecast one:

    e = |F_forecast - F_computed|_2 / |F_computed|_2  <=  threshold * decay^((T - t) / T)

where (T - t) / T is how much of the schedule is done. A rejected forecast is discarded, with those that would
follow, and the step is computed in full; in the authors' code it is kept, and the next step is computed in
full (`rejected: kept`). Theirs also bounds how many forecasts follow each other, and leaves the first of them
unverified. The error is that of the whole batch: with one image a batch, computation adapts to the image.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum, auto
from functools import partial, wraps
from typing import Any

from torch import Tensor, nn

from bench.methods.base import Arm, Method, always
from bench.methods.diffusers_hooks import MODULES
from bench.methods.hooks import ON_OUTPUTS, Choice, Progress, Range, checked, progress, restored, tried
from bench.methods.scheduler import solver
from bench.methods.space import Among, Baseline, Real, Space, Whole, one_space, solvers
from dqar.integration.adapter import blocks_of, unwrapped

RECOMPUTED, KEPT = "recomputed", "kept"
KNOWN: dict[str, Range | Choice] = {
    "threshold": Range(float, 0, 10, 0.3),
    "decay": Range(float, 0, 1, 0.05),
    "order": Range(int, 0, 4, 2),
    "computed_first": Range(int, 1, 50, 3),
    "unverified": Range(int, 0, 50, 0),  # forecasts after a computed step
    "longest": Range(int, 1, 50, 8),  # forecasts between computed steps
    "rejected": Choice((RECOMPUTED, KEPT)),
}


class Mode(Enum):
    """What modules do in a call."""

    COMPUTED = auto()  # they run, and what they return is kept
    FORECAST = auto()
    VERIFIED = auto()  # they run, and nothing is kept


class Taylor:
    """The outputs of a module, and their finite differences at the computed steps.

    Args:
        order: Of the highest difference.
    """

    def __init__(self, order: int) -> None:
        self.order = order
        self.step: int | None = None  # the last computed
        self.differences: list[tuple[Tensor, ...]] = []  # by order, one tensor an output
        self.several = False  # whether the module returns a tuple

    def update(self, step: int, output: Any) -> None:
        """Keep what the module returned.

        Args:
            step: Number of the step; one that is not after the last begins a generation.
            output: A tensor or a tuple of them.
        """
        self.several = not isinstance(output, Tensor)
        before = [] if self.step is None or step <= self.step else self.differences
        differences = [tuple(output) if self.several else (output,)]
        for earlier in before[: self.order]:
            apart = step - (self.step or 0)
            pairs = zip(differences[-1], earlier, strict=True)
            differences.append(tuple((now - then) / apart for now, then in pairs))
        self.step, self.differences = step, differences

    def forecast(self, step: int) -> Any:
        """Forecast what the module would return.

        Args:
            step: Number of the step, after the last computed one.

        Returns:
            As the module does: a tensor or a tuple.
        """
        ahead = step - (self.step or 0)
        outputs = list(self.differences[0])
        for order, differences in enumerate(self.differences[1:], 1):
            weight = ahead**order / math.factorial(order)
            outputs = [value + weight * each for value, each in zip(outputs, differences, strict=True)]
        return tuple(outputs) if self.several else outputs[0]

    @property
    def bytes(self) -> int:
        """What the kept tensors take."""
        return sum(each.nbytes for differences in self.differences for each in differences)


class Decisions:
    """Which steps are computed, and which forecasts are verified and accepted.

    Args:
        values: Of KNOWN.
    """

    def __init__(self, values: dict[str, Any]) -> None:
        self.values = values
        self.forecasts = 0  # since the last computed step
        self.failed = False  # whether a rejected forecast was kept at the last step

    def computes(self, step: int) -> bool:
        """Decide a step before it runs.

        Args:
            step: Its number, from 0.

        Returns:
            Whether it is computed in full.
        """
        if step < self.values["computed_first"] or self.failed or self.forecasts >= self.values["longest"]:
            self.computed()
            return True
        self.forecasts += 1
        return False

    def computed(self) -> None:
        """Note that a step is computed in full."""
        self.forecasts, self.failed = 0, False

    @property
    def verifies(self) -> bool:
        """Whether the forecast in progress is verified."""
        return bool(self.forecasts > self.values["unverified"])

    def threshold(self, done: float) -> float:
        """The greatest error of an accepted forecast.

        Args:
            done: Share of the schedule that is done, 0 to 1.

        Returns:
            threshold * decay^done.
        """
        return float(self.values["threshold"] * self.values["decay"] ** done)


class Speculation:
    """A transformer whose steps are computed, or forecast and verified.

    Args:
        transformer: Its attentions and MLPs are forecast; the last of its blocks verifies.
        values: Of KNOWN.
        at: Where the generation is.
    """

    def __init__(self, transformer: nn.Module, values: dict[str, Any], at: Progress) -> None:
        self.decisions, self.at = Decisions(values), at
        self.keeps_rejected = values["rejected"] == KEPT
        self.mode, self.error = Mode.COMPUTED, 0.0
        self.modules: list[Taylor] = []
        for name, module in transformer.named_modules():
            if re.fullmatch(MODULES, name):
                self.modules.append(Taylor(values["order"]))
                module.forward = self._module(module.forward, self.modules[-1])
        verifier: Any = blocks_of(transformer)[-1]
        verifier.forward = self._verifier(verifier.forward)
        run: Any = transformer.forward
        transformer.forward = self._step(run)

    def _module(self, run: Callable[..., Any], taylor: Taylor) -> Callable[..., Any]:
        @wraps(run)
        def forward(*args: Any, **kwargs: Any) -> Any:
            if self.mode is Mode.FORECAST:
                return taylor.forecast(self.at.step)
            output = run(*args, **kwargs)
            if self.mode is Mode.COMPUTED:
                taylor.update(self.at.step, output)
            return output

        return forward

    def _verifier(self, run: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(run)
        def forward(*args: Any, **kwargs: Any) -> Any:
            output = run(*args, **kwargs)
            if self.mode is Mode.FORECAST and self.decisions.verifies:
                self.mode = Mode.VERIFIED
                self.error = relative_error(_image(output), _image(run(*args, **kwargs)))
                self.mode = Mode.FORECAST
            return output

        return forward

    def _step(self, run: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(run)
        def forward(*args: Any, **kwargs: Any) -> Any:
            self.error = 0.0
            self.mode = Mode.COMPUTED if self.decisions.computes(self.at.step) else Mode.FORECAST
            output = run(*args, **kwargs)
            if self.mode is Mode.FORECAST and self._rejected():
                if self.keeps_rejected:
                    self.decisions.failed = True
                    return output
                self.decisions.computed()
                self.mode = Mode.COMPUTED
                output = run(*args, **kwargs)
            return output

        return forward

    def _rejected(self) -> bool:
        return self.error > self.decisions.threshold(self.at.step / self.at.steps)


def relative_error(forecast: Tensor, computed: Tensor) -> float:
    """How far a forecast is from what was computed.

    Args:
        forecast: Any shape.
        computed: The same shape.

    Returns:
        The L2 norm of the difference over that of what was computed; read from the device.
    """
    return float((forecast - computed).norm() / computed.norm())


def _image(output: Any) -> Tensor:
    """The image's tokens of what a block returns: the last, behind the prompt's."""
    image: Tensor = output if isinstance(output, Tensor) else output[-1]
    return image


@contextmanager
def apply(pipe: Any, options: dict[str, Any]) -> Iterator[Arm]:
    """Forecast and verify.

    Args:
        pipe: A pipeline that calls its transformer once a step.
        options: As `checked` lets them through.

    Yields:
        The pipeline with the cache on.
    """
    values = checked(options, KNOWN)
    with solver(pipe, options) as call, restored(pipe.transformer), progress(pipe) as at:
        speculation = Speculation(unwrapped(pipe.transformer), values, at)
        yield Arm(call=call, cache_bytes=lambda: sum(taylor.bytes for taylor in speculation.modules))


def space(baseline: Baseline) -> Space:
    """What is searched: all options, on each of the solvers.

    Args:
        baseline: The run that is to be made faster.

    Returns:
        One space's dimensions by name.
    """
    return {
        "solver": solvers(baseline),
        "threshold": Real(0.01, 1.0),
        "decay": Real(0.05, 1.0),
        "order": Whole(1, 3),
        "computed_first": Whole(1, 6),
        "unverified": Whole(0, 3),
        "longest": Whole(2, 8),
        "rejected": Among({name: {"rejected": name} for name in (RECOMPUTED, KEPT)}),
    }


METHOD = Method(
    check=lambda options: checked(options, KNOWN),
    apply=apply,
    by_data=always,
    gap=partial(tried, on=ON_OUTPUTS),
    spaces=one_space("speca", space),
)
