"""The trajectory of the calibration images on a fine schedule: what searches of timesteps measure against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.methods.scheduler import solver
from bench.methods.timesteps import LAST
from bench.studies.tune.candidate import Judge, undecoded

Floats = NDArray[np.float64]
FINER = 4  # a trajectory to place steps on: DPM-Solver++ at so many times the baseline's steps


@dataclass(frozen=True)
class Trajectory:
    """A solution of the calibration images, step by step."""

    timesteps: Floats  # [n]
    sigmas: Floats  # [n + 1]: noise over signal, of a flow the time
    latents: Tensor  # [n + 1, images, ...]: as the model takes them, the solution last
    flow: bool

    @classmethod
    def solved(cls, judge: Judge) -> Trajectory:
        """Solve the calibration images on a fine schedule.

        Args:
            judge: the loaded model and its calibration images.

        Returns:
            The trajectory.
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
            timesteps, flow = fractional(pipe.scheduler), bool(pipe.scheduler.config.use_flow_sigmas)
        return cls(timesteps, sigmas, torch.stack([*(each[: len(last)] for each in seen), last]), flow)

    def by_noise_level(self) -> Tensor:
        """Scale the latents so that the noise level is the time.

        Returns:
            The latents, of a flow as they are, else divided by the signal's scale.
        """
        if self.flow:
            return self.latents
        scale = torch.tensor(np.sqrt(1 + self.sigmas**2), dtype=self.latents.dtype)
        return self.latents * scale.view(-1, *[1] * (self.latents.ndim - 1))


def fractional(scheduler: Any) -> Floats:
    """The timesteps that a scheduler was set to, as `place` takes them to give the same noise levels.

    Args:
        scheduler: Of several orders, from diffusers, which cuts a flow's timesteps to whole numbers.

    Returns:
        The timesteps, of a flow those of its noise levels.
    """
    if scheduler.config.use_flow_sigmas:
        levels: Floats = scheduler.sigmas[:-1].double().numpy()
        return levels * LAST
    timesteps: Floats = scheduler.timesteps.double().numpy()
    return timesteps
