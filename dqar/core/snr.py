"""How much signal a latent holds: from the noise schedule alone, or from a predicted clean latent."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


def compute_latent_snr(latent: Tensor, predicted: Tensor, eps: float = 1e-8) -> Tensor:
    """SNR of each latent against its predicted clean latent, ||x_0||^2 / (||x_t - x_0||^2 + eps).

    `latent` and `predicted` are x_t and x_0, `[batch, ...]` of one shape; returns `[batch]`, float32.
    Raises `ValueError` when the shapes differ.
    """
    if latent.shape != predicted.shape:
        raise ValueError(
            f"predicted has shape {tuple(predicted.shape)}; allowed: x_t's, {tuple(latent.shape)}"
        )
    x_t, x_0 = latent.flatten(1).float(), predicted.flatten(1).float()
    return x_0.square().sum(1) / ((x_t - x_0).square().sum(1) + eps)


def schedule_snr(scheduler: Any) -> npt.NDArray[np.float64]:
    """SNR at each of a diffusers scheduler's `timesteps`, `[steps]`, read on the host.

    Variance-preserving schedules: alpha_bar_t / (1 - alpha_bar_t). Flow matching has no alpha_bar
    but x = (1 - sigma) x_0 + sigma noise, so ((1 - sigma) / sigma)^2. A timestep between two training
    steps takes the nearer one's. Raises `ValueError` for a scheduler with neither.
    """
    timesteps = _host(scheduler.timesteps)
    alpha_bar = getattr(scheduler, "alphas_cumprod", None)
    if alpha_bar is not None:
        table = _host(alpha_bar)
        signal = table[np.clip(np.rint(timesteps), 0, len(table) - 1).astype(np.int64)]
    elif _is_flow(scheduler):
        signal, noise = _flow_power(scheduler, len(timesteps))
        return signal / np.maximum(noise, 1e-12)
    else:
        raise ValueError(
            f"scheduler = {type(scheduler).__name__} has no alphas_cumprod; "
            "allowed: a diffusers scheduler with alphas_cumprod, or one for flow matching"
        )
    return signal / np.maximum(1.0 - signal, 1e-12)


def _host(values: Any) -> npt.NDArray[np.float64]:
    return np.asarray(torch.as_tensor(values).detach().cpu(), dtype=np.float64)


def _is_flow(scheduler: Any) -> bool:
    return "FlowMatch" in type(scheduler).__name__ and hasattr(scheduler, "sigmas")


def _flow_power(scheduler: Any, steps: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    sigma = _host(scheduler.sigmas)[:steps]
    return (1.0 - sigma) ** 2, sigma**2
