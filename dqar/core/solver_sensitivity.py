"""How sensitive a solver's final latent is to the model's output at each step."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dqar.core.snr import as_array

FloatArray = npt.NDArray[np.float64]

UNIT = 1e-3  # of an output: so small that nothing is clipped
REMEMBERED = 16  # schedules remembered
_known: dict[tuple[Any, ...], FloatArray] = {}


def solver_sensitivity(scheduler: Any, begin: int = 0) -> FloatArray:
    """How far the final latent moves for each unit of the model's output at each timestep.

    Solvers are linear in the model's outputs, whatever these are of (noise, velocity, the clean latent), so
    one run of a copy of the scheduler on scalars gives it, and is remembered.

    Args:
        scheduler: With its timesteps set and no step of it made; it is not changed.
        begin: First step of the trajectory, from 0; image-to-image starts later.

    Returns:
        `[steps]`; 0 before step `begin`.
    """
    timesteps = as_array(scheduler.timesteps)
    key = (type(scheduler), str(dict(scheduler.config)), timesteps.tobytes(), begin)
    if key not in _known:
        if len(_known) == REMEMBERED:
            _known.pop(next(iter(_known)))
        steps = len(timesteps)
        # Without the second run the noise of a stochastic solver would count as sensitivity.
        gained = _final(scheduler, UNIT * torch.eye(steps, dtype=torch.float64), begin)
        gained -= _final(scheduler, torch.zeros(steps, steps, dtype=torch.float64), begin)
        _known[key] = np.asarray(gained / UNIT)
    return _known[key]


def _final(scheduler: Any, outputs: Tensor, begin: int) -> Tensor:
    """The latents that the scheduler ends with, `[n]`, given the model outputs `outputs`, `[steps, n]`."""
    solver = copy.deepcopy(scheduler)
    solver.timesteps = solver.timesteps.cpu()
    takes_noise = "generator" in inspect.signature(solver.step).parameters
    noise = {"generator": torch.Generator().manual_seed(0)} if takes_noise else {}
    latent = torch.zeros(outputs.shape[1], 1, 1, 1, dtype=outputs.dtype)
    for timestep, output in zip(solver.timesteps[begin:], outputs[begin:], strict=True):
        if hasattr(solver, "scale_model_input"):
            solver.scale_model_input(latent, timestep)
        latent = solver.step(output.view_as(latent), timestep, latent, **noise, return_dict=False)[0]
    return latent.flatten().double()
