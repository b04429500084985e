"""Timesteps by dynamic programming on the converged trajectory, as GITS (Chen et al. 2024, arXiv 2405.11326)
and OptimalSteps (Pei et al. 2025, arXiv 2503.21774) choose them.

Of a trajectory with nodes y at noise levels s the local error of one Euler step from node i to node j is
c(i, j) = |y_i + (s_j - s_i) y'_i - y_j|. The steps whose weighted sum is least follow from
V_1(i) = c(i, N) and V_k(i) = min over j of c(i, j) + weight * V_{k-1}(j). OptimalSteps lets Euler steps start
where the steps before ended, which takes a model evaluation a node and number of steps; this takes none.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.methods.scheduler import solver
from bench.studies.tune.candidate import FINER, Judge, undecoded

WEIGHT = 1.15  # of later errors: those made early are damped on the way
EVERY = 2  # of the solution's steps one is a node

Floats = NDArray[np.float64]


def trajectory(judge: Judge) -> tuple[Floats, Floats, Tensor]:
    """Solve the calibration images on a fine schedule.

    Latents are in the scale in which the noise level is the time: of a flow as they are, else divided by the
    signal's scale.

    Args:
        judge: the loaded model and its calibration images.

    Returns:
        The timesteps `[n]`, noise levels `[n + 1]` and latents `[n + 1, images, ...]`.
    """
    pipe, seen = judge.session.pipe, list[Tensor]()
    options = {"scheduler": "dpm_solver++", "steps": FINER * judge.spec.num_inference_steps}
    with undecoded(pipe), solver(pipe, options) as call:
        step = pipe.scheduler.step

        def recorded(output: Any, timestep: Any, sample: Tensor, *args: Any, **kwargs: Any) -> Any:
            seen.append(sample.float().cpu())
            return step(output, timestep, sample, *args, **kwargs)

        pipe.scheduler.step = recorded
        last = judge.session.baseline(judge.samples, **call).latents
        sigmas = pipe.scheduler.sigmas.double().numpy()
        timesteps = pipe.scheduler.timesteps.double().numpy()
        flow = bool(pipe.scheduler.config.use_flow_sigmas)
    states = torch.stack([*(each[: len(last)] for each in seen), last])
    if not flow:
        scale = torch.tensor(np.sqrt(1 + sigmas**2), dtype=states.dtype)
        states = states * scale.view(-1, *[1] * (states.ndim - 1))
    return timesteps, sigmas, states


def local_errors(sigmas: Floats, states: Tensor, every: int = EVERY) -> Floats:
    """Compute the local errors c(i, j) of Euler steps between nodes.

    Args:
        sigmas: noise levels of the trajectory, `[n + 1]`.
        states: latents of the trajectory, `[n + 1, images, ...]`.
        every: of so many steps of the trajectory one is a node.

    Returns:
        The errors `[nodes, nodes]`, infinite where j is not after i.
    """
    slopes = torch.diff(states, dim=0) / torch.tensor(np.diff(sigmas), dtype=states.dtype).view(
        -1, *[1] * (states.ndim - 1)
    )
    nodes = [*range(0, len(sigmas) - 1, every), len(sigmas) - 1]
    errors = np.full((len(nodes), len(nodes)), np.inf)
    for row, i in enumerate(nodes[:-1]):
        after = nodes[row + 1 :]
        lengths = torch.tensor(sigmas[after] - sigmas[i], dtype=states.dtype)
        moved = states[i] + lengths.view(-1, *[1] * (states.ndim - 1)) * slopes[i]
        errors[row, row + 1 :] = (moved - states[after]).flatten(2).norm(dim=2).mean(dim=1).numpy()
    return errors


def cheapest_path(errors: Floats, steps: int, weight: float = WEIGHT) -> list[int]:
    """Find the steps whose weighted sum of local errors is least.

    Args:
        errors: c(i, j), [nodes, nodes].
        steps: At most one less than there are nodes.
        weight: Of later errors over earlier ones.

    Returns:
        The nodes that the steps start from, the first node first.
    """
    value = errors[:, -1]
    following = []
    for _ in range(steps - 1):
        costs = errors + weight * value[None, :]
        following.append(costs.argmin(axis=1))
        value = costs.min(axis=1)
    path = [0]
    for best in reversed(following):
        path.append(int(best[path[-1]]))
    return path


def programmed(timesteps: Floats, errors: Floats, steps: int, every: int = EVERY) -> tuple[float, ...]:
    """Choose timesteps by dynamic programming.

    Args:
        timesteps: those of the trajectory, `[n]`.
        errors: c(i, j), `[nodes, nodes]`.
        steps: how many to choose.
        every: of so many steps of the trajectory one is a node.

    Returns:
        The timesteps of the cheapest path, descending.
    """
    return tuple(float(timesteps[node * every]) for node in cheapest_path(errors, steps))
