"""HiCache (Feng et al. 2025, arXiv 2508.16984): TaylorSeer's forecast with Hermite polynomials for powers.

Of the finite differences D_k of a module's outputs at the last computed step, x steps later it is
sum_k D_k / k! * s^k H_k(s x), H_k the physicist's Hermite polynomial and s in (0, 1] the contraction, which
scales both the argument and the polynomial. Everything else is TaylorSeer's: see `diffusers_hooks`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from diffusers.hooks.taylorseer_cache import TaylorSeerState
from torch import Tensor

from bench.methods.diffusers_hooks import TAYLORSEER_OPTIONS, Values, method, taylorseer
from bench.methods.hooks import Range
from bench.methods.space import Real, Whole, one_space, solvers

_HOOK = "taylorseer_cache"  # diffusers' name for it
KNOWN = TAYLORSEER_OPTIONS | {"contraction": Range(float, 0.01, 1, 0.5)}


def hermite(order: int, x: float) -> float:
    """Evaluate the physicist's Hermite polynomial: H_{n+1}(x) = 2 x H_n(x) - 2 n H_{n-1}(x).

    Args:
        order: Its degree n, at least 0.
        x: Where.

    Returns:
        H_n(x).
    """
    before, value = 0.0, 1.0
    for n in range(order):
        before, value = value, 2 * x * value - 2 * n * before
    return value


def coefficient(order: int, steps: float, contraction: float) -> float:
    """Weigh the difference of an order in the forecast of so many steps ahead.

    Args:
        order: Of the difference.
        steps: Steps since the modules were computed.
        contraction: The scale s.

    Returns:
        s^k H_k(s x) / k!.
    """
    return contraction**order * hermite(order, contraction * steps) / math.factorial(order)


class State(TaylorSeerState):  # type: ignore[misc]  # diffusers is untyped
    """What diffusers keeps of a module, with another forecast.

    Args:
        contraction: The scale s.
        given: TaylorSeerState's arguments.
    """

    def __init__(self, contraction: float, **given: Any) -> None:
        super().__init__(**given)
        self.contraction = contraction

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def predict(self) -> list[Tensor]:
        """Forecast a module's outputs at the current step.

        Returns:
            A tensor for each output.
        """
        if self.is_inactive or self.last_update_step is None:
            inactive: list[Tensor] = super().predict()
            return inactive
        ahead = self.current_step - self.last_update_step
        outputs = []
        for number, dtype in enumerate(self.module_dtypes):
            differences = self.taylor_factors[number]
            weights = {k: coefficient(k, ahead, self.contraction) for k in differences}
            terms = [weight * differences[k].to(dtype) for k, weight in weights.items()]
            outputs.append(torch.stack(terms).sum(dim=0))
        return outputs


def attach(pipe: Any, values: Values, timestep: Callable[[], int], stack: ExitStack) -> None:
    """Hook a transformer as TaylorSeer does, with states that forecast by Hermite polynomials.

    Args:
        pipe: Its transformer is hooked.
        values: Of KNOWN.
        timestep: Returns that of the call in progress.
        stack: Undoes what the hooks do not.
    """
    taylorseer(pipe, values, timestep, stack)
    for module in pipe.transformer.modules():
        registry = getattr(module, "_diffusers_hook", None)
        hook = registry.get_hook(_HOOK) if registry is not None else None
        if hook is not None:
            manager = hook.state_manager
            given = manager._init_kwargs | {"contraction": values["contraction"]}
            manager._state_cls, manager._init_kwargs = State, given


METHOD = method(
    attach,
    KNOWN,
    spaces=one_space(
        "hicache",
        lambda baseline: {
            "solver": solvers(baseline),
            "interval": Whole(2, 7),
            "order": Whole(1, 3),
            "computed_first": Whole(1, 6),
            "contraction": Real(0.3, 1.0),
        },
    ),
)
