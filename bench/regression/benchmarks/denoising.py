"""A step and a generation: time and memory, and what reuse costs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

import dqar
from bench.measure import paired
from bench.studies.policy.trace import Trajectory, by_hand

from .model import CONFIGURATIONS, generation, session, under


class Step:
    """One guided noise prediction: all layers computed, or all attention read from the cache.

    Parameters: `attention` of the step that is timed, and `bits` of what the cache keeps; 8 is quantised.
    """

    params = (["computed", "reused"], [8, 16])
    param_names = ("attention", "cache_bits")
    number, rounds, repeat, warmup_time = 2, 1, (5, 15, 3.0), 0.2

    def setup(self, attention: str, bits: int) -> None:
        """A trajectory's second step, its first one cached."""
        self.by_hand = by_hand(session().pipe, bits)
        manager = self.by_hand.__enter__()
        self.trajectory = Trajectory(session(), manager, 0)
        self.trajectory.arguments["num_inference_steps"] = 2  # asv calls this before each sample
        self.trajectory.run(self.ask)
        self.reused = range(manager.layers) if attention == "reused" else ()

    def ask(self, step: int, model: Callable[[], Any]) -> Any:
        """Cache the first step, and keep the second one's call."""
        if step == 1:
            self.model = model
        return self.trajectory.predict(model, keep=step == 0)

    def teardown(self, attention: str, bits: int) -> None:
        """The pipeline as it was."""
        self.by_hand.__exit__(None, None, None)

    @torch.no_grad()
    def time_step(self, attention: str, bits: int) -> None:
        """Seconds of the prediction."""
        self.trajectory.predict(self.model, self.reused)


class Made:
    """A generation of two images in ten steps, under a `configuration` as `under` takes it."""

    params = CONFIGURATIONS
    param_names = ("configuration",)
    number, rounds, repeat, warmup_time = 1, 1, (5, 12, 4.0), 0.5

    def setup(self, configuration: str) -> None:
        """The pipeline under that preset."""
        self.pipe = under(configuration)

    def teardown(self, configuration: str) -> None:
        """The pipeline as it was."""
        dqar.disable(self.pipe)

    def time_generation(self, configuration: str) -> None:
        """Seconds of the call, decoder included."""
        generation()

    def peakmem_generation(self, configuration: str) -> None:
        """Peak host memory, the model's included."""
        generation()


class Reused:
    """What a preset of DQAR keeps, computes and changes: a `configuration` as `under` takes it."""

    params = CONFIGURATIONS[1:]
    param_names = ("configuration",)

    def setup(self, configuration: str) -> None:
        """The untouched latents, then a generation under the preset."""
        under("baseline")
        self.untouched = generation().latents
        self.pipe = under(configuration)
        self.latents = generation().latents
        self.summary = dqar.summary(self.pipe)

    def teardown(self, configuration: str) -> None:
        """The pipeline as it was."""
        dqar.disable(self.pipe)

    def track_cache_bytes(self, configuration: str) -> float:
        """The most bytes that the cache held."""
        return self.summary.cache_bytes

    def track_recomputed(self, configuration: str) -> float:
        """Share of the attention calls that were computed."""
        return 1 - self.summary.ratio

    def track_latent_error(self, configuration: str) -> float:
        """Mean relative L2 of the final latents against the untouched ones."""
        return paired.drift(self.latents, self.untouched).mean().item()


Reused.track_cache_bytes.unit = "bytes"  # type: ignore[attr-defined]
Reused.track_recomputed.unit = "share"  # type: ignore[attr-defined]
Reused.track_latent_error.unit = "relative L2"  # type: ignore[attr-defined]
