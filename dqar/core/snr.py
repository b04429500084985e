"""How much signal a latent holds: from the noise schedule alone, or from a predicted clean latent."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dqar.core.noise_kind import noise_kind

FloatArray = npt.NDArray[np.float64]

PREDICTION_TYPES = ("epsilon", "v_prediction", "sample")


def compute_latent_snr(latent: Tensor, predicted: Tensor, eps: float = 1e-8) -> Tensor:
    """SNR of each latent against its predicted clean latent, ||x_0||^2 / (||x_t - x_0||^2 + eps).

    Args:
        latent: x_t, `[batch, ...]`.
        predicted: x_0, of the same shape.
        eps: Added to the power of the noise, so that a noiseless latent has a finite SNR.

    Returns:
        A power ratio for each, `[batch]`, float32.

    Raises:
        ValueError: The shapes differ.
    """
    if latent.shape != predicted.shape:
        raise ValueError(
            f"predicted has shape {tuple(predicted.shape)}; allowed: x_t's, {tuple(latent.shape)}"
        )
    x_t, x_0 = latent.flatten(1).float(), predicted.flatten(1).float()
    return x_0.square().sum(1) / ((x_t - x_0).square().sum(1) + eps)


def schedule_snr(scheduler: Any) -> FloatArray:
    """SNR at each of a diffusers scheduler's `timesteps`, read on the host.

    In this order, as the scheduler describes itself (Karras et al. 2022, appendix B; Lipman et al. 2023):

    - flow matching, x = (1 - sigma) x_0 + sigma noise: ((1 - sigma) / sigma)^2, also where a solver runs
      with `use_flow_sigmas`, whose `alphas_cumprod` is then unused;
    - EDM and Karras's spacing, x = x_0 + sigma noise up to scale: 1 / sigma^2;
    - TrigFlow, x = cos(t) x_0 + sin(t) noise: 1 / tan(t)^2;
    - variance preserving: alpha_bar_t / (1 - alpha_bar_t), at a timestep between two training steps the
      nearer one's.

    Args:
        scheduler: A diffusers scheduler whose timesteps are set; only read.

    Returns:
        A power ratio for each timestep, `[steps]`, float64.

    Raises:
        ValueError: For a scheduler of none of these kinds, or whose timesteps are not set.
    """
    kind = noise_kind(scheduler)
    if scheduler.timesteps is None:
        raise ValueError(
            f"scheduler = {type(scheduler).__name__} has no timesteps; allowed: one with set_timesteps called"
        )
    timesteps = as_array(scheduler.timesteps)
    if kind == "flow":
        sigma = as_array(scheduler.sigmas)[: len(timesteps)]
        return (1.0 - sigma) ** 2 / np.maximum(sigma**2, 1e-12)
    if kind == "sigma":
        return 1.0 / np.maximum(as_array(scheduler.sigmas)[: len(timesteps)] ** 2, 1e-12)
    if kind == "angle":
        return np.asarray(1.0 / np.maximum(np.tan(timesteps) ** 2, 1e-12))
    table = as_array(scheduler.alphas_cumprod)
    signal = table[np.clip(np.rint(timesteps), 0, len(table) - 1).astype(np.int64)]
    return signal / np.maximum(1.0 - signal, 1e-12)


class SNRComputer:
    """SNR of a diffusers scheduler's noise schedule, and of what a model predicts under it.

    For variance-preserving schedulers (DDIM, DPM-Solver, ...).

    Args:
        scheduler: A diffusers scheduler with `alphas_cumprod`; only read.

    Raises:
        ValueError: The scheduler has no `alphas_cumprod`, or its `prediction_type` is none of epsilon,
            v_prediction and sample.
    """

    def __init__(self, scheduler: Any) -> None:
        if getattr(scheduler, "alphas_cumprod", None) is None:
            raise ValueError(
                f"scheduler = {type(scheduler).__name__} has no alphas_cumprod; allowed: one that has"
            )
        self.prediction_type = scheduler.config.get("prediction_type", "epsilon")
        if self.prediction_type not in PREDICTION_TYPES:
            raise ValueError(
                f"prediction_type = {self.prediction_type!r} is not allowed; "
                f"allowed: {', '.join(PREDICTION_TYPES)}"
            )
        self.scheduler = scheduler

    def schedule(self) -> FloatArray:
        """SNR at each of the scheduler's timesteps now set.

        Returns:
            A power ratio for each timestep, `[steps]`, float64.
        """
        return schedule_snr(self.scheduler)

    def at(self, timestep: int) -> float:
        """The schedule's SNR at a training timestep, alpha_bar / (1 - alpha_bar).

        Args:
            timestep: From 0 to one below the scheduler's number of training steps.

        Returns:
            A power ratio.
        """
        alpha_bar = float(self.scheduler.alphas_cumprod[int(timestep)])
        return alpha_bar / max(1.0 - alpha_bar, 1e-12)

    def predicted_latent(self, latent: Tensor, model_output: Tensor, timestep: int) -> Tensor:
        """The clean latent x_0 that a model's output for x_t means, unclipped.

        With a^2 = alpha_bar_t and s^2 = 1 - a^2: epsilon, (x_t - s eps) / a (Song et al. 2021, DDIM, eq. 12);
        v_prediction, a x_t - s v (Salimans & Ho 2022, appendix D); sample, the output itself.

        Args:
            latent: x_t, `[batch, channels, ...]`.
            model_output: Of the scheduler's prediction type, `[batch, channels or more, ...]`; channels
                beyond the latent's (a learned variance) are not used.
            timestep: The training timestep t of x_t.

        Returns:
            x_0, in the latent's shape.
        """
        output = model_output[:, : latent.shape[1]]
        alpha_bar = float(self.scheduler.alphas_cumprod[int(timestep)])
        a, s = alpha_bar**0.5, (1.0 - alpha_bar) ** 0.5
        if self.prediction_type == "epsilon":
            clean: Tensor = (latent - s * output) / a
            return clean
        return a * latent - s * output if self.prediction_type == "v_prediction" else output

    def from_prediction(self, latent: Tensor, model_output: Tensor, timestep: int) -> Tensor:
        """SNR of each latent against the x_0 predicted for it.

        This is not the schedule's SNR: for x_t = a x_0 + s eps with x_0 of unit power it is 1 / ((1 - a)^2 +
        s^2), equal to a^2 / s^2 only as noise vanishes, and never below 1/2.

        Args:
            latent: x_t, `[batch, channels, ...]`.
            model_output: As `predicted_latent` takes it.
            timestep: The training timestep t of x_t.

        Returns:
            A power ratio for each, `[batch]`, float32.
        """
        return compute_latent_snr(latent, self.predicted_latent(latent, model_output, timestep))


def as_array(values: Any) -> FloatArray:
    """Copy numbers to the host.

    Args:
        values: Numbers, an array or a tensor, of any shape and device.

    Returns:
        The same shape in float64.
    """
    return np.asarray(torch.as_tensor(values).detach().cpu(), dtype=np.float64)
