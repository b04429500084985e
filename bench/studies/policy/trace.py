"""Traces of a model: what the gate would see for each layer and step, and the error of reuse there."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from scipy.stats import spearmanr
from torch import Tensor
from tqdm import tqdm

from bench.embedded.classes import NULL_CLASS
from bench.measure import paired
from bench.methods.dqar import shape_of
from bench.pipeline import models
from bench.pipeline.session import Session
from bench.spec.run_spec import shown_model
from dqar import DQARConfig
from dqar.core.snr import schedule_snr
from dqar.integration.manual import ManualReuse
from dqar.training.traces import Trace

FINALS = 16  # single reuses a trajectory that are followed to the final latent


def trace(session: Session, trajectories: int, finals: int = FINALS, progress: bool = True) -> Trace:
    """Trace images of a session, one trajectory each.

    The reuse error is the relative L2 change of the guided noise prediction when a single layer reuses its
    output of the step before.

    Args:
        session: a session over images of the training side.
        trajectories: number of images, at least 2.
        finals: reuses of each trajectory that are also followed to the final latent.
        progress: whether to show a bar.

    Returns:
        A row for each trajectory, step but the first, and layer.
    """
    with by_hand(session.pipe) as manual, torch.no_grad():
        samples = tqdm(range(trajectories), desc="trace", unit="trajectory", disable=not progress)
        parts = [follow(Trajectory(session, manual, i), i, finals) for i in samples]
    columns = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    return Trace(**columns, metadata=_metadata(session, trajectories))


def rank_correlation(rows: Trace) -> tuple[float, int]:
    """Correlate a step's reuse error with the final one, by Spearman's rank correlation.

    Args:
        rows: the rows of a trace.

    Returns:
        The correlation (nan of two rows or fewer), and over how many rows.
    """
    known = rows.final_reuse_error.isfinite()
    n = int(known.sum())
    return float(
        spearmanr(rows.reuse_error[known], rows.final_reuse_error[known]).statistic
    ) if n > 2 else math.nan, n


@contextmanager
def by_hand(pipe: Any, bits: int = 16) -> Iterator[ManualReuse]:
    """Hook DQAR to the pipeline's transformer; the caller decides what is reused.

    Args:
        pipe: a pipeline that takes class labels.
        bits: width of a cached value, 8 or 16.

    Yields:
        The handle that decides.
    """
    config = DQARConfig.preset("maximum", quantization_bits=bits, trace_entropy=True, **shape_of(pipe))
    with ManualReuse(pipe.transformer, config) as manual:
        yield manual


@dataclass(frozen=True)
class Step:
    """The state of a trajectory before a step: all that is needed to continue."""

    number: int
    latent: Tensor  # [1, channels, height, width]
    scheduler: Any


class Trajectory:
    """One image's denoising as `DiTPipeline` does it, a prediction at a time.

    Args:
        session: the loaded model, its steps and guidance.
        manual: decides what is reused, on the same pipeline.
        sample: number of the image, which sets its seed and class.
    """

    def __init__(self, session: Session, manual: ManualReuse, sample: int) -> None:
        spec = session.spec
        self.transformer, self.manual, self.layers = session.pipe.transformer, manual, manual.layers
        self.guidance = spec.guidance_scale
        self.labels = torch.tensor([session.label(sample), NULL_CLASS], device=self.transformer.device)
        scheduler = copy.deepcopy(session.pipe.scheduler)
        scheduler.set_timesteps(spec.num_inference_steps, device=self.transformer.device)
        self.start = Step(0, self._noise(spec.seed + sample), scheduler)
        self.snr = schedule_snr(scheduler)
        self.time = scheduler.timesteps.double().tolist()
        self.training_steps = scheduler.config.num_train_timesteps

    def __len__(self) -> int:
        return len(self.snr)

    def predict(self, step: Step, reused: Collection[int] = (), keep: bool = False) -> Tensor:
        """Predict the guided noise of a step.

        Args:
            step: the step; it stays as it is.
            reused: numbers of layers that reuse.
            keep: whether every layer's output is kept and measured.

        Returns:
            The prediction, `[1, ...]`.
        """
        self.manual.decide(reused, keep)
        timestep = step.scheduler.timesteps[step.number].expand(2)
        output = self.transformer(self._inputs(step), timestep=timestep, class_labels=self.labels).sample
        conditional, unconditional = output[:, : step.latent.shape[1]].chunk(2)
        guided: Tensor = unconditional + self.guidance * (conditional - unconditional)
        return guided

    def features(self, step: Step) -> Tensor:
        """Compute what the gate sees before a step.

        Args:
            step: the step that is asked about.

        Returns:
            Features `[layers, 4]`; entropy is of the last kept prediction.
        """
        norm = float(self._inputs(step).float().flatten(1).norm(dim=1).mean())
        log_snr = math.log(max(self.snr[step.number], 1e-12))
        rest = [log_snr, norm, self.time[step.number] / self.training_steps]
        return torch.tensor([[float(entropy), *rest] for entropy in self.manual.entropy])

    def advance(self, step: Step, prediction: Tensor) -> Step:
        """Take a step of the solver, on a scheduler of its own.

        Args:
            step: the step; it stays as it is.
            prediction: the guided noise of the step.

        Returns:
            The step after.
        """
        scheduler = copy.deepcopy(step.scheduler)  # a multistep solver keeps earlier predictions
        t = scheduler.timesteps[step.number]
        return Step(step.number + 1, scheduler.step(prediction, t, step.latent).prev_sample, scheduler)

    def finish(self, step: Step) -> Tensor:
        """Denoise to the end, all computed.

        Args:
            step: the step to start from.

        Returns:
            The final latent.
        """
        while step.number < len(self):
            step = self.advance(step, self.predict(step))
        return step.latent

    def _noise(self, seed: int) -> Tensor:
        model = self.transformer
        shape = (1, model.config.in_channels, model.config.sample_size, model.config.sample_size)
        generator = torch.Generator("cpu").manual_seed(seed)
        return torch.randn(shape, generator=generator, dtype=model.dtype).to(model.device)

    def _inputs(self, step: Step) -> Tensor:
        """What the transformer is given: both guidance branches, `[2, ...]`."""
        pair = torch.cat([step.latent, step.latent])
        inputs: Tensor = step.scheduler.scale_model_input(pair, step.scheduler.timesteps[step.number])
        return inputs


def follow(trajectory: Trajectory, name: int, finals: int) -> dict[str, Tensor]:
    """Follow one trajectory.

    Args:
        trajectory: a trajectory at its start.
        name: its number, which names its rows and seeds the draw of `finals`.
        finals: reuses that are followed to the final latent.

    Returns:
        The columns, `[(steps - 1) * layers, ...]` each.
    """
    chosen = _sample(trajectory, finals, seed=name)
    rows: list[tuple[Tensor, Tensor]] = []
    ends: dict[int, Tensor] = {}
    step = trajectory.advance(trajectory.start, trajectory.predict(trajectory.start, keep=True))
    while step.number < len(trajectory):
        features = trajectory.features(step)
        predictions = [trajectory.predict(step, reused=(layer,)) for layer in range(trajectory.layers)]
        for layer in chosen.get(step.number, ()):
            ends[len(rows) * trajectory.layers + layer] = trajectory.finish(
                trajectory.advance(step, predictions[layer])
            )
        full = trajectory.predict(step, keep=True)
        rows.append((features, paired.drift(torch.cat(predictions), full.expand_as(torch.cat(predictions)))))
        step = trajectory.advance(step, full)
    return _columns(rows, ends, step.latent, name)


def _columns(
    rows: list[tuple[Tensor, Tensor]], ends: dict[int, Tensor], final: Tensor, name: int
) -> dict[str, Tensor]:
    features, reuse_error = (torch.cat(column) for column in zip(*rows, strict=True))
    final_reuse_error = torch.full_like(reuse_error, torch.nan)
    for row, latent in ends.items():
        final_reuse_error[row] = paired.drift(latent, final)[0]
    return {
        "features": features,
        "layer": torch.arange(len(reuse_error)) % len(rows[0][1]),
        "trajectory": torch.full_like(reuse_error, name),
        "reuse_error": reuse_error,
        "final_reuse_error": final_reuse_error,
    }


def _sample(trajectory: Trajectory, finals: int, seed: int) -> dict[int, list[int]]:
    """Step -> layers: where a single reuse is followed to the end, so many in all."""
    cells = [(step, layer) for step in range(1, len(trajectory)) for layer in range(trajectory.layers)]
    by_step: dict[int, list[int]] = {}
    for step, layer in random.Random(seed).sample(cells, min(finals, len(cells))):
        by_step.setdefault(step, []).append(layer)
    return by_step


def _metadata(session: Session, trajectories: int) -> dict[str, Any]:
    spec = session.spec
    return {
        "model": shown_model(spec.model),
        "fingerprint": models.fingerprint(spec),
        "layers": session.pipe.transformer.config.num_layers,
        "scheduler": type(session.pipe.scheduler).__name__,
        "steps": spec.num_inference_steps,
        "guidance": spec.guidance_scale,
        "seeds": [spec.seed, spec.seed + trajectories],  # the last one excluded
        "classes": session.labels,
    }
