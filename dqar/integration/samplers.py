"""Samplers: the loop of diffusers' `DiTPipeline` up to the final latents, with reuse on or off."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor, nn
from tqdm import tqdm

from dqar.errors import invalid_value
from dqar.integration.dit_wrapper import DQARDiTWrapper


@dataclass(frozen=True, kw_only=True)
class SamplerConfig:
    """How latents are sampled. Raises `ValueError` with the field, the value and what is allowed."""

    num_inference_steps: int = 50
    """Denoising steps."""
    guidance_scale: float = 4.0
    """Weight of classifier-free guidance; 1 = none, and then half the work."""
    eta: float = 0.0
    """Share of DDPM's noise that DDIM adds at each step, 0 to 1 (Song et al. 2021, eq. 16)."""
    enable_dqar: bool = True
    """Reuse attention; false = the model as it was before it was wrapped."""
    return_trajectory: bool = False
    """Return the latents of all steps too."""

    def __post_init__(self) -> None:
        for name, (allows, allowed) in RULES.items():
            value = getattr(self, name)
            if not allows(value):
                raise invalid_value(name, value, allowed)


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "num_inference_steps": (lambda v: type(v) is int and v >= 1, "a whole number, at least 1"),
    "guidance_scale": (lambda v: _is_number(v) and 0 <= v < float("inf"), "a number from 0 up"),
    "eta": (lambda v: _is_number(v) and 0 <= v <= 1, "a number from 0 to 1"),
    "enable_dqar": (_is_flag, "true or false"),
    "return_trajectory": (_is_flag, "true or false"),
}


class DQARSampler:
    """Samples latents of a `DQARDiTWrapper`, or of a plain transformer with `enable_dqar=False`.

    With reuse off the latents are bit-identical to those that `DiTPipeline` decodes.

    Args:
        model: The wrapper or the transformer.
        scheduler: One of another kind is replaced by one of `scheduler_class` with its configuration.
        config: Steps, guidance and noise; None = the defaults of `SamplerConfig`.

    Raises:
        ValueError: The configuration does not fit the model or the solver.
    """

    scheduler_class: Any

    def __init__(self, model: nn.Module, scheduler: Any, config: SamplerConfig | None = None) -> None:
        self.config = config or SamplerConfig()
        if self.config.enable_dqar and not isinstance(model, DQARDiTWrapper):
            raise invalid_value("enable_dqar", True, "False for a plain model; DQARDiTWrapper reuses")
        self.model: Any = model
        fits = isinstance(scheduler, self.scheduler_class)
        self.scheduler = scheduler if fits else self.scheduler_class.from_config(scheduler.config)

    @torch.no_grad()
    def sample(
        self,
        batch_size: int,
        class_labels: Tensor | Sequence[int],
        generator: torch.Generator | None = None,
        latents: Tensor | None = None,
        progress_bar: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Sample final latents in the model's space; the VAE decodes them divided by its `scaling_factor`.

        Args:
            batch_size: Images.
            class_labels: One per image, `[batch]`.
            generator: Draws the noise to start from and the solver's; None = torch's default.
            latents: The noise to start from, `[batch, channels, height, width]`; None = drawn.
            progress_bar: Show one on stderr.

        Returns:
            The latents, `[batch, channels, height, width]`; with `return_trajectory` a pair of these and the
            trajectory `[steps + 1, batch, ...]` from the noise on.

        Raises:
            ValueError: Labels or latents do not fit `batch_size`.
        """
        labels = self.labels(batch_size, class_labels)
        x = self.noise(batch_size, generator, latents)
        trajectory = [x]
        steps = self.trajectory(x, labels, None, generator)
        for x in tqdm(steps, total=self.config.num_inference_steps, disable=not progress_bar):
            if self.config.return_trajectory:
                trajectory.append(x[:batch_size])
        final = x[:batch_size]
        return (final, torch.stack(trajectory)) if self.config.return_trajectory else final

    def trajectory(
        self, x: Tensor, labels: Tensor, there: Tensor | None, generator: torch.Generator | None
    ) -> Iterator[Tensor]:
        """Denoise step by step.

        Args:
            x: The noise to start from, `[batch, channels, height, width]`.
            labels: As `labels` makes them.
            there: The schedule's timesteps on the model's device; None = they are brought over.
            generator: Draws the solver's noise; None = torch's default.

        Yields:
            The latents after each step; with guidance twice, `[2 * batch, channels, height, width]`.
        """
        with self._reuse():
            self.scheduler.set_timesteps(self.config.num_inference_steps)
            timesteps = self.scheduler.timesteps
            # The model's are brought over at once: one by one, each would make the host wait for the device.
            there = timesteps.to(x.device) if there is None else there
            for t, same in zip(timesteps, there, strict=True):
                x = self._step(x, t, same, labels, generator)
                yield x

    @property
    def guided(self) -> bool:
        """Whether each step also runs the unconditional branch."""
        return self.config.guidance_scale > 1

    def _step(
        self, x: Tensor, t: Tensor, there: Tensor, labels: Tensor, generator: torch.Generator | None
    ) -> Tensor:
        """The next latents; `there` is the timestep `t` on the model's device."""
        # As the pipeline does, guidance carries the latents twice: the noise of a stochastic solver
        # is drawn for both halves, and the second is then replaced by the first.
        x = torch.cat([x[: len(labels) // 2]] * 2) if self.guided else x
        x = self.scheduler.scale_model_input(x, t)
        output = self.model(x, timestep=there.expand(len(x)), class_labels=labels).sample
        output = self._without_variance(self._guide(output))
        following: Tensor = self.scheduler.step(output, t, x, **self._step_options(generator)).prev_sample
        return following

    def _guide(self, output: Tensor) -> Tensor:
        if not self.guided:
            return output
        channels = self.model.config.in_channels
        conditional, unconditional = output[:, :channels].chunk(2)
        guided = unconditional + self.config.guidance_scale * (conditional - unconditional)
        return torch.cat([torch.cat([guided, guided]), output[:, channels:]], dim=1)

    def _without_variance(self, output: Tensor) -> Tensor:
        """Leave out the channels in which a model with a learned variance predicts it."""
        shape = self.model.config
        return output[:, : shape.in_channels] if shape.out_channels // 2 == shape.in_channels else output

    def _step_options(self, generator: torch.Generator | None) -> dict[str, Any]:
        return {"generator": generator}

    def labels(self, batch_size: int, class_labels: Tensor | Sequence[int]) -> Tensor:
        """The labels of the model's calls.

        Args:
            batch_size: Images.
            class_labels: One per image, `[batch]`.

        Returns:
            `[batch]` on the model's device; with guidance `[2 * batch]`, the null class behind.

        Raises:
            ValueError: Labels do not fit `batch_size`.
        """
        labels = torch.as_tensor(class_labels, device=self.model.device).reshape(-1)
        if len(labels) != batch_size:
            raise ValueError(f"class_labels has {len(labels)} entries; allowed: batch_size = {batch_size}")
        null = torch.full_like(labels, self.model.config.num_embeds_ada_norm)
        return torch.cat([labels, null]) if self.guided else labels

    def noise(self, batch_size: int, generator: torch.Generator | None, latents: Tensor | None) -> Tensor:
        """The noise that a generation starts from.

        Args:
            batch_size: Images.
            generator: Draws it; None = torch's default.
            latents: The noise itself; None = drawn.

        Returns:
            `[batch, channels, height, width]` on the model's device in its dtype.

        Raises:
            ValueError: `latents` has another shape.
        """
        model, size = self.model, self.model.config.sample_size
        shape = (batch_size, model.config.in_channels, size, size)
        if latents is None:
            noise: Tensor = randn_tensor(shape, generator, model.device, model.dtype)
            return noise
        if tuple(latents.shape) != shape:
            raise ValueError(f"latents has shape {tuple(latents.shape)}; allowed: {shape}")
        return latents.to(model.device, model.dtype)

    def _reuse(self) -> AbstractContextManager[None]:
        """The context of a generation: reuse on along this scheduler, or off."""
        if not isinstance(self.model, DQARDiTWrapper):
            return nullcontext()
        self.model.scheduler = self.scheduler
        return nullcontext() if self.config.enable_dqar else self.model.disabled()


class DQARDDIMSampler(DQARSampler):
    """DDIM (Song et al. 2021), with `eta` of DDPM's noise."""

    scheduler_class = DDIMScheduler

    def _step_options(self, generator: torch.Generator | None) -> dict[str, Any]:
        return {"eta": self.config.eta, "generator": generator}


class DQARDPMSolverSampler(DQARSampler):
    """DPM-Solver++ (Lu et al. 2022), or the variant that `scheduler` is configured for; `eta` is 0.

    Args:
        model: The wrapper or the transformer.
        scheduler: As `DQARSampler` takes it.
        config: As `DQARSampler` takes it, with `eta` 0.

    Raises:
        InvalidValue: `eta` is not 0.
    """

    scheduler_class = DPMSolverMultistepScheduler

    def __init__(self, model: nn.Module, scheduler: Any, config: SamplerConfig | None = None) -> None:
        super().__init__(model, scheduler, config)
        if self.config.eta:
            raise invalid_value("eta", self.config.eta, "0 with DPM-Solver")
