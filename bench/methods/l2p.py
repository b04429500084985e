"""L2P (Shen et al. 2026, arXiv 2604.26365): the model's output is forecast by weights learned for each step.

With F_j the transformer's output at step j, and at skipped steps its forecast, the forecast of step t is

    F_t = sum over j < t of W[t, j] * F_j

W begins as W[t, t - 1] = 1, which holds the last output, and is fitted to generations in which every step
runs: Adam at rate 0.01, 200 epochs, on the mean squared error of all steps, each forecast from outputs that
are the model's own. The authors fit to generations of prompts apart; here, as of the other fitted caches, it
is the run's own first images. Their description names a decomposition into frequencies, which the forecast in
their code does not read.

Which steps run they chose by hand for 50 steps of FLUX (0, 1, 2, 4, 9, 17, 26, 35, 43 is one of six lists):
`computed` takes such a list. Without it, as no rule is published, the first steps of a budget run, and the
others at equal distances behind them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial, wraps
from typing import Any

import torch
from torch import Tensor

from bench.methods.base import Arm, Method, always, by_one_generation
from bench.methods.hooks import ON_OUTPUTS, Progress, Range, checked, progress, restored, tried
from bench.methods.scheduler import solver
from bench.methods.space import Baseline, Space, Whole, evaluations, one_space, solvers
from bench.methods.step_mask import COMPUTED, check_length, computed_steps, evenly

WEIGHTS = "weights"  # by step t, W[t, 0] to W[t, t - 1]; without them a generation is measured to fit them
KNOWN = {
    "budget": Range(int, 1, 1000, 14),  # steps that run
    "computed_first": Range(int, 1, 50, 3),
    "epochs": Range(int, 0, 10000, 200),  # 0: the last output is held
}
RATE = 0.01  # Adam's, the authors'

Weights = list[list[float]]


def fit(outputs: Tensor, epochs: int, rate: float = RATE) -> Weights:
    """Fit the weights to what the model returned where every step ran.

    The error is a quadratic form in the weights whose matrix are the outputs' products, which are summed up
    once: an epoch costs the same however many images there are.

    Args:
        outputs: `[steps, ...]`, of all images.
        epochs: Steps of Adam.
        rate: Of Adam.

    Returns:
        By step t the weights of the t outputs before it.
    """
    steps, flat = len(outputs), outputs.reshape(len(outputs), -1).double().cpu()
    products = flat @ flat.T / flat.shape[1]
    causal = torch.ones(steps, steps, dtype=torch.double).tril(-1)
    with torch.enable_grad():
        weights = torch.diag(torch.ones(steps - 1, dtype=torch.double), -1).requires_grad_()
        optimizer = torch.optim.Adam([weights], lr=rate)
        for _ in range(epochs):
            optimizer.zero_grad()
            squared_error(weights * causal, products).backward()
            optimizer.step()
    return [row[:step] for step, row in enumerate(weights.detach().tolist())]


def squared_error(weights: Tensor, products: Tensor) -> Tensor:
    """Compute the mean squared error of the forecasts of all steps but the first.

    Args:
        weights: `[steps, steps]`, zero but below the diagonal.
        products: Mean products of the outputs of two steps, `[steps, steps]`.

    Returns:
        A scalar.
    """
    forecast = (weights @ products * weights).sum(1) - 2 * (weights * products).sum(1) + products.diagonal()
    return forecast[1:].mean()


class Forecaster:
    """A transformer whose output is forecast where it does not run.

    Args:
        run: The transformer's forward.
        at: Where the generation is.
        computes: From the number of steps to those that run.
        weights: By step; None: every step runs, and `history` is what it returned.
    """

    def __init__(
        self,
        run: Callable[..., Any],
        at: Progress,
        computes: Callable[[int], Sequence[int]],
        weights: Weights | None,
    ) -> None:
        self.run, self.at, self.computes, self.weights = run, at, computes, weights
        self.computed: set[int] = set()
        self.history = torch.empty(0)  # float32 [steps, ...]: outputs and forecasts
        self.dtype = torch.float32
        self.returned: Callable[[Tensor], Any] = lambda output: output

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the transformer, or return the forecast as it would."""
        step = self.at.step
        if step == 0:
            self._begin()
        if step not in self.computed:
            self.history[step] = self._forecast(step)
            return self.returned(self.history[step].to(self.dtype))
        result = self.run(*args, **kwargs)
        several = isinstance(result, tuple)
        output = result[0] if several else result.sample
        if step == 0:
            kind = type(result)
            self.returned = (lambda one: (one,)) if several else (lambda one: kind(sample=one))
            self.dtype = output.dtype
            self.history = torch.empty(self.at.steps, *output.shape, device=output.device)
        self.history[step] = output
        return result

    def _begin(self) -> None:
        steps = self.at.steps
        if self.weights is None:
            self.computed = set(range(steps))
            return
        if len(self.weights) != steps:
            raise ValueError(f"l2p: {WEIGHTS} of {len(self.weights)} steps; allowed: of {steps}")
        self.computed = set(self.computes(steps))
        check_length("l2p", self.computed, steps)

    def _forecast(self, step: int) -> Tensor:
        assert self.weights is not None  # or every step runs
        row = torch.tensor(self.weights[step], device=self.history.device)
        forecast: Tensor = torch.tensordot(row, self.history[:step], dims=1)
        return forecast


def check(options: dict[str, Any]) -> None:
    """Check options against KNOWN and the solver's.

    Args:
        options: As a suite has them.

    Raises:
        ValueError: Naming the option, its value and what is allowed.
    """
    _values(options)


def _values(options: dict[str, Any]) -> dict[str, Any]:
    """A value for each of KNOWN and for COMPUTED."""
    computed = computed_steps(options, ("budget", "computed_first"))
    values = checked({name: value for name, value in options.items() if name != COMPUTED}, KNOWN)
    if values["computed_first"] > values["budget"]:
        first, most = values["computed_first"], values["budget"]
        raise ValueError(f"computed_first: {first} is not allowed; allowed: at most the budget, {most}")
    return values | {COMPUTED: computed}


@contextmanager
def apply(pipe: Any, options: dict[str, Any]) -> Iterator[Arm]:
    """Forecast by the weights given, or run every step where none are; the arm then reports the fit.

    Args:
        pipe: A pipeline that calls its transformer once a step.
        options: As `check` lets them through, and `weights` as `resolve` found them.

    Yields:
        The pipeline with the cache on.
    """
    given = {name: value for name, value in options.items() if name != WEIGHTS}
    values = _values(given)

    def computes(steps: int) -> Sequence[int]:
        listed: tuple[int, ...] | None = values[COMPUTED]
        return listed or evenly(steps, values["budget"], values["computed_first"])

    with solver(pipe, given) as call, restored(pipe.transformer), progress(pipe) as at:
        run = pipe.transformer.forward
        forecaster = Forecaster(run, at, computes, options.get(WEIGHTS))

        @wraps(run)
        def forward(*args: Any, **kwargs: Any) -> Any:
            return forecaster(*args, **kwargs)

        pipe.transformer.forward = forward
        yield Arm(
            call=call,
            calibrated=lambda: {WEIGHTS: fit(forecaster.history, values["epochs"])},
            cache_bytes=lambda: forecaster.history.nbytes,
        )


def space(baseline: Baseline) -> Space:
    """What is searched: how many steps run, and how many of them first, on each of the solvers.

    Args:
        baseline: The run that is to be made faster.

    Returns:
        One space's dimensions by name.
    """
    return {
        "solver": solvers(baseline),
        "budget": evaluations(baseline),
        "computed_first": Whole(1, 6),
    }


METHOD = Method(
    check=check,
    apply=apply,
    resolve=by_one_generation,
    by_data=always,
    fixed_steps=always,
    gap=partial(tried, on=ON_OUTPUTS),
    spaces=one_space("l2p", space),
)
