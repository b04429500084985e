"""Timesteps by dynamic programming on the converged trajectory, as GITS (Chen et al. 2024, arXiv 2405.11326)
chooses them.

Of a trajectory with nodes y at noise levels s the local error of one Euler step from node i to node j is
c(i, j) = |y_i + (s_j - s_i) y'_i - y_j|. The steps whose weighted sum is least follow from
V_1(i) = c(i, N) and V_k(i) = min over j of c(i, j) + weight * V_{k-1}(j). No step starts where another ended:
that is `optimal_steps`, which takes a model evaluation for each node and number of steps; this takes none.

The weight of later errors over earlier ones is a parameter of the publication, set for each model and number
of steps. Much depends on it, so a search judges each of `WEIGHTS`.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from bench.studies.timesteps.trajectory import Floats

WEIGHTS = (1.0, 1.02, 1.05, 1.08, 1.1, 1.15)  # above 1 where errors made early are damped on the way
EVERY = 2  # of the solution's steps one is a node


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


def cheapest_path(errors: Floats, steps: int, weight: float) -> list[int]:
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


def programmed(
    timesteps: Floats, errors: Floats, steps: int, weight: float, every: int = EVERY
) -> tuple[float, ...]:
    """Choose timesteps by dynamic programming.

    Args:
        timesteps: those of the trajectory, `[n]`.
        errors: c(i, j), `[nodes, nodes]`.
        steps: how many to choose.
        weight: of later errors over earlier ones.
        every: of so many steps of the trajectory one is a node.

    Returns:
        The timesteps of the cheapest path, descending.
    """
    return tuple(float(timesteps[node * every]) for node in cheapest_path(errors, steps, weight))
