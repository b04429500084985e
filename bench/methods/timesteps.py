"""Timesteps that a search found, in place of a spacing: a solver of several orders takes its steps there."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dqar.utils.foreign import read_json

FILES = Path(__file__).parents[1] / "embedded" / "timesteps"
TIMESTEPS = "timesteps"  # the name of a file that ships, or the timesteps themselves
LAST = 1000  # timesteps lie below it, and of a flow the first may lie on it


def timesteps_of(options: dict[str, Any]) -> tuple[float, ...] | None:
    """The timesteps that options give.

    Args:
        options: A method's, by name.

    Returns:
        From 0 to LAST, falling; None where the options give none.

    Raises:
        ValueError: naming the option, the value and what is allowed.
    """
    given = options.get(TIMESTEPS)
    if given is None:
        return None
    values = _shipped(given) if isinstance(given, str) else given
    numbers = isinstance(values, list | tuple) and all(type(t) in (int, float) for t in values)
    if not numbers or not values or not all(0 <= t <= LAST for t in values):
        raise ValueError(
            f"{TIMESTEPS}: {given!r} is not allowed; allowed: a list of numbers from 0 to {LAST}"
        )
    if any(after >= before for before, after in itertools.pairwise(values)):
        raise ValueError(f"{TIMESTEPS}: {given!r} does not descend; allowed: each below the one before")
    return tuple(values)


def timesteps_file(options: dict[str, Any]) -> dict[str, Path]:
    """The file that options take their timesteps from.

    Args:
        options: A method's, by name.

    Returns:
        Its path by the option's name; empty where they name none.
    """
    name = options.get(TIMESTEPS)
    return {TIMESTEPS: FILES / f"{name}.json"} if isinstance(name, str) else {}


def check_timesteps(options: dict[str, Any], solvers: Sequence[str]) -> None:
    """Check that the timesteps are right and nothing else names where the steps lie.

    Args:
        options: A method's.
        solvers: The schedulers that take timesteps.

    Raises:
        ValueError: Naming the option and what is allowed.
    """
    if timesteps_of(options) is None:
        return
    if options.get("scheduler") not in solvers:
        raise ValueError(f"{TIMESTEPS}: needs a scheduler; allowed: one of {', '.join(solvers)}")
    for other in ("steps", "spacing", "shift"):
        if options.get(other) is not None:
            raise ValueError(f"{TIMESTEPS}: excludes {other}; allowed: one of them")


def _shipped(name: str) -> Any:
    names = sorted(path.stem for path in FILES.glob("*.json"))
    if name not in names:
        raise ValueError(f"{TIMESTEPS}: {name!r} is not known; allowed: {', '.join(names) or 'a list'}")
    return read_json(FILES / f"{name}.json", TIMESTEPS)[TIMESTEPS]


def place(scheduler: Any, timesteps: Sequence[float]) -> None:
    """Make a scheduler of diffusers take its steps there, whatever number of them a pipeline asks for.

    Its sigmas follow: of a flow t / 1000, else sqrt((1 - a) / a) of the cumulative product of alphas, which
    is a table by whole timesteps. A flow's timesteps stay as they are: diffusers cuts them to whole ones.

    Args:
        timesteps: From 0 to LAST, falling.
        scheduler: Of several orders; its `set_timesteps` is replaced for good.
    """
    import torch

    evenly = scheduler.set_timesteps
    flow = bool(getattr(scheduler.config, "use_flow_sigmas", False))

    def set_timesteps(num_inference_steps: int | None = None, device: Any = None, **kwargs: Any) -> None:
        evenly(len(timesteps), device=device)
        sigmas = [t / LAST for t in timesteps] if flow else _variance_preserving(scheduler, timesteps)
        last = float(scheduler.sigmas[-1])
        scheduler.sigmas = torch.tensor([*sigmas, last], dtype=scheduler.sigmas.dtype)
        dtype = torch.float32 if flow else scheduler.timesteps.dtype
        scheduler.timesteps = torch.tensor(timesteps, dtype=dtype, device=device)

    scheduler.set_timesteps = set_timesteps


def _variance_preserving(scheduler: Any, timesteps: Sequence[float]) -> list[float]:
    alphas = scheduler.alphas_cumprod.double().numpy()
    table = np.sqrt((1 - alphas) / alphas)
    return [float(table[min(round(t), len(table) - 1)]) for t in timesteps]
