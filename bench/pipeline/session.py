"""One generation of a batch: timed as a whole, its final latents and images kept."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from bench.errors import NonFinite
from bench.machine.device import device_type
from bench.methods import Arm, get
from bench.methods.compilation import CUDA_GRAPHS, WHOLE, compiled
from bench.pipeline import conditions, models
from bench.record import Reuse
from bench.spec.run_spec import RunSpec
from dqar.integration.adapter import blocks_of, unwrapped

TRACED = 2  # images


@dataclass(frozen=True)
class Generation:
    """What a call of the pipeline made, on the CPU."""

    seconds: float
    latents: Tensor  # float32 [batch, channels, height, width], before the decoder; a video's have frames too
    images: Tensor  # uint8 [batch, 3, height, width]; a video's frames stand side by side


@dataclass
class Session:
    """A loaded pipeline and the configuration under test, with both arms."""

    pipe: Any
    spec: RunSpec
    labels: list[int] = field(default_factory=list)
    reuse: Reuse | None = None  # of the candidate's last generation
    cache_bytes: int = 0

    @classmethod
    def open(cls, spec: RunSpec) -> Session:
        """Load the model that the configuration names, compiled where it asks for that.

        Args:
            spec: The configuration.

        Returns:
            The session, nothing run yet.

        Raises:
            ValueError: CUDA graphs without CUDA.
        """
        if spec.cuda_graphs and device_type() != "cuda":
            raise ValueError("cuda_graphs: true needs a CUDA device")
        pipe = models.load(spec)
        if spec.compile:
            pipe.transformer = compiled(pipe.transformer, CUDA_GRAPHS if spec.cuda_graphs else WHOLE)
        return cls(pipe=pipe, spec=spec, labels=conditions.numbers(spec, pipe))

    def under(self, spec: RunSpec) -> Session:
        """The same pipeline under another configuration of the same model.

        Args:
            spec: The other configuration; it has the same settings.

        Returns:
            A session that shares the pipeline.
        """
        return Session(pipe=self.pipe, spec=spec, labels=self.labels)

    @property
    def short(self) -> dict[str, int]:
        """Overrides for a generation that is neither timed nor looked at: a fifth of the steps.

        Compiled, it takes them all, because each new set of step decisions compiles a variant; so does a plan
        of its own number of steps.
        """
        steps, spec = self.spec.num_inference_steps, self.spec
        whole = spec.compile or get(spec.method).fixed_steps(spec.options)
        return {} if whole else {"num_inference_steps": max(2, steps // 5)}

    def label(self, sample: int) -> int:
        """What an image is of.

        Args:
            sample: The image's number within the run, from 0.

        Returns:
            The number of its class or prompt.
        """
        return self.labels[sample % len(self.labels)]

    def baseline(self, samples: range, **call: Any) -> Generation:
        """Make images by the untouched pipeline.

        Args:
            samples: Numbers of the images within the run, one batch.
            **call: Arguments of the pipeline's call in place of the run's.

        Returns:
            The images.

        Raises:
            NonFinite: A latent or an image is NaN or infinite.
        """
        return generate(self.pipe, self.arguments(samples) | call)

    def candidate(self, samples: range, **call: Any) -> Generation:
        """Make the same images by the method: same labels or prompts, same noise.

        Args:
            samples: Numbers of the images within the run, one batch.
            **call: Arguments of the pipeline's call in place of the run's and the method's.

        Returns:
            The images; `reuse` and `cache_bytes` are then those of this generation.

        Raises:
            NonFinite: A latent or an image is NaN or infinite; the message names the step and layer.
        """
        with get(self.spec.method).apply(self.pipe, self.spec.options | self.resolved) as arm:
            try:
                generation = generate(self.pipe, self.arguments(samples) | arm.call | call)
            except NonFinite as error:
                raise NonFinite(f"{error}; {self._diagnose(samples, arm)}") from error
            self.reuse, self.cache_bytes = arm.reuse(), arm.cache_bytes()
        return generation

    @cached_property
    def resolved(self) -> dict[str, Any]:
        """Options that depend on the model, found by one untimed generation that reuses nothing."""
        return get(self.spec.method).resolve(self.spec.options, self._untimed)

    def traced(self) -> Reuse | None:
        """The last generation's reuse, with entropies.

        Where the timed generations did not measure entropy, an untimed one of few images does; not for
        compiled models, which would compile once more, nor where nothing but whole steps is skipped, whose
        entropies say nothing of what was reused. Where none was timed, it stands for them too.

        Returns:
            None where the method reports no reuse.
        """
        method = get(self.spec.method)
        if not self.spec.timing.asked:
            with self._untimed(self.spec.options | self.resolved) as arm:
                self.reuse = arm.reuse()
        if self.reuse is None:
            return None
        update: dict[str, Any] = {"resolved": self.resolved}
        by_layer = self.reuse.ratio > self.reuse.skipped
        if by_layer and not self.reuse.entropy and not self.spec.compile and method.trace:
            with self._untimed(self.spec.options | self.resolved | method.trace) as arm:
                traced = arm.reuse()
            update["entropy"] = traced and traced.entropy
        return self.reuse.model_copy(update=update)

    @contextmanager
    def _untimed(self, options: dict[str, Any]) -> Iterator[Arm]:
        """The arm after an untimed generation of few images under other options."""
        samples = range(min(TRACED, self.spec.batch_size))
        with get(self.spec.method).apply(self.pipe, options) as arm:
            generate(self.pipe, self.arguments(samples) | arm.call)
            yield arm

    def arguments(self, samples: range) -> dict[str, Any]:
        """The arguments of the pipeline's call for some images.

        Each image has a generator of its own, so that it does not depend on the batch that it is in.

        Args:
            samples: Numbers of the images within the run, one batch.

        Returns:
            By name.
        """
        spec = self.spec
        return {
            **conditions.arguments(spec, self.pipe, [self.label(i) for i in samples]),
            "generator": [torch.Generator("cpu").manual_seed(spec.seed + i) for i in samples],
            "guidance_scale": spec.guidance_scale,
            "num_inference_steps": spec.num_inference_steps,
            "output_type": "pt",
        }

    def _diagnose(self, samples: range, arm: Arm) -> str:
        with first_non_finite(self.pipe.transformer) as places:
            self.pipe(**self.arguments(samples) | arm.call)
        return places[0] if places else "not reproduced by a second generation"


def generate(pipe: Any, arguments: dict[str, Any]) -> Generation:
    """Call the pipeline once, timed as a whole.

    Args:
        pipe: A pipeline of diffusers with a VAE.
        arguments: Of its call, `output_type` "pt" among them.

    Returns:
        What the call made, on the CPU.

    Raises:
        NonFinite: A latent or an image is NaN or infinite.
    """
    with final_latents(pipe) as seen, stopwatch() as seconds:
        output = pipe(**arguments)
    images = images_of(output)
    latents = torch.cat(seen).float().cpu()
    if not torch.isfinite(latents).all():
        raise NonFinite("the final latent is NaN or infinite")
    if not torch.isfinite(images).all():  # as bytes they would be black, and alike
        which = (~torch.isfinite(images)).flatten(1).any(dim=1).nonzero().flatten().tolist()
        raise NonFinite(f"the decoded image is NaN or infinite ({len(which)} of {len(images)} of the batch)")
    return Generation(seconds[0], latents, images.mul(255).round().to("cpu", torch.uint8))


def images_of(output: Any) -> Tensor:
    """The images of a pipeline's output.

    Args:
        output: What its call returned, with `images` or `frames`.

    Returns:
        Float `[batch, 3, height, width]`; of a video its frames side by side, `[batch, 3, height, frames *
        width]`.
    """
    if hasattr(output, "images"):
        return torch.as_tensor(output.images)
    frames = torch.as_tensor(output.frames)  # [batch, frames, 3, height, width]
    return frames.permute(0, 2, 3, 1, 4).flatten(3)


@contextmanager
def final_latents(pipe: Any) -> Iterator[list[Tensor]]:
    """Collect the latents as they enter the decoder, in the scale of the diffusion.

    Args:
        pipe: A pipeline of diffusers with a VAE.

    Yields:
        A list that gets the latents of each decoded batch: of images float `[batch, channels, height,
        width]`, of videos `[batch, channels, frames, height, width]`.
    """
    vae, seen = pipe.vae, []
    decode = vae.decode

    def recorded(z: Tensor, *args: Any, **kwargs: Any) -> Any:
        seen.append(_unscaled(z, vae.config))
        return decode(z, *args, **kwargs)

    vae.decode = recorded
    try:
        yield seen
    finally:
        del vae.decode


def _unscaled(z: Tensor, config: Any) -> Tensor:
    """What the pipeline does to the latents before it decodes them, undone."""
    mean, std = getattr(config, "latents_mean", None), getattr(config, "latents_std", None)
    if mean is not None and std is not None and len(mean) == z.shape[1]:
        shape = (1, -1, *[1] * (z.ndim - 2))
        # As the pipeline does it: in the autoencoder's precision and then by channel.
        each = [
            torch.tensor(list(value), dtype=z.dtype, device=z.device).view(shape) for value in (mean, std)
        ]
        return (z - each[0]) / each[1]
    shift: float = getattr(config, "shift_factor", None) or 0.0
    scale: float = getattr(config, "scaling_factor", None) or 1.0
    return (z - shift) * scale if shift else z * scale


@contextmanager
def stopwatch() -> Iterator[list[float]]:
    """Append the seconds that the body took: CUDA events with a device, else the wall clock.

    The garbage collector is off meanwhile, for it runs at random times.

    Yields:
        A list that holds the seconds once the body has ended without an error.
    """
    seconds: list[float] = []
    gc.collect()
    gc.disable()
    try:
        on_cuda = device_type() == "cuda"
        yield from _cuda_seconds(seconds) if on_cuda else _wall_seconds(seconds)
    finally:
        gc.enable()


def _wall_seconds(seconds: list[float]) -> Iterator[list[float]]:
    start = time.perf_counter()
    yield seconds
    seconds.append(time.perf_counter() - start)


def _cuda_seconds(seconds: list[float]) -> Iterator[list[float]]:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    yield seconds
    end.record()
    torch.cuda.synchronize()
    seconds.append(start.elapsed_time(end) / 1000)


@contextmanager
def first_non_finite(transformer: Any) -> Iterator[list[str]]:
    """Collect where a NaN or an infinity first comes out of a block.

    Args:
        transformer: As the pipeline holds it.

    Yields:
        A list that gets one entry, such as `first at step 7, layer 3`, at the first such output.
    """
    places: list[str] = []
    step = -1

    def enter(*_: Any) -> None:
        nonlocal step
        step += 1

    def leave(layer: int, output: Any) -> None:
        first = output[0] if isinstance(output, (tuple, list)) else output
        if not places and isinstance(first, Tensor) and not torch.isfinite(first).all():
            places.append(f"first at step {step}, layer {layer}")

    hooks = [transformer.register_forward_pre_hook(enter)]
    for i, block in enumerate(blocks_of(unwrapped(transformer))):
        hooks.append(block.register_forward_hook(lambda _, __, out, i=i: leave(i, out)))
    try:
        yield places
    finally:
        for hook in hooks:
            hook.remove()
