"""Traces of a model: what the gate would see for each layer and step, and the error of reuse there."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from scipy.stats import spearmanr
from torch import Tensor
from tqdm import tqdm

from bench.errors import BadInput
from bench.measure import paired
from bench.methods.dqar import shape_of
from bench.methods.hooks import restored
from bench.pipeline import models
from bench.pipeline.session import Session, final_latents
from bench.spec.run_spec import shown_model
from bench.studies.policy.session import subjects
from dqar import DQARConfig
from dqar.core.snr import schedule_snr
from dqar.integration.adapter import Adapter
from dqar.integration.manual import ManualReuse
from dqar.training.traces import Trace

FINALS = 16  # single reuses a trajectory that are followed to the final latent

# At a step: its number, and the model, which computes the output at each call -> the output to go on with.
Ask = Callable[[int, Callable[[], Any]], Any]


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
        pipe: a pipeline of diffusers with a `transformer`.
        bits: width of a cached value, 8 or 16.

    Yields:
        The handle that decides.
    """
    config = DQARConfig.preset("maximum", quantization_bits=bits, trace_entropy=True, **shape_of(pipe))
    with ManualReuse(pipe.transformer, config) as manual:
        yield manual


class Trajectory:
    """One image's denoising by its own pipeline, whose model may be asked several times at a step.

    Args:
        session: the loaded model, its steps and guidance, and what its images are of.
        manual: decides what is reused, on the same pipeline.
        sample: number of the image, which sets its seed and its class or prompt.
    """

    def __init__(self, session: Session, manual: ManualReuse, sample: int) -> None:
        self.pipe, self.manual, self.layers = session.pipe, manual, manual.layers
        self.arguments = session.arguments(range(sample, sample + 1))
        self.generator = self.arguments["generator"][0].get_state()
        self.guidance, self.steps = session.spec.guidance_scale, session.spec.num_inference_steps
        self.adapter = Adapter(session.pipe.transformer)
        self.latent = torch.empty(0)  # what the model is given at the current step, both branches of guidance

    def __len__(self) -> int:
        return self.steps

    def run(self, ask: Ask) -> Tensor:
        """Denoise the image.

        Args:
            ask: called at each step with its number and the model, which computes the step's output at each
                call; returns the output that the pipeline goes on with.

        Returns:
            The final latent, `[1, ...]`.

        Raises:
            BadInput: the pipeline calls its model more than once a step.
        """
        transformer, calls = self.pipe.transformer, itertools.count()
        forward = transformer.forward

        def asked(*args: Any, **kwargs: Any) -> Any:
            step = next(calls)
            if step >= self.steps:
                raise BadInput(f"policy: {type(self.pipe).__name__} calls its model more than once a step")
            self.latent = self.adapter.call(args, kwargs).latent
            return ask(step, lambda: forward(*args, **kwargs))

        self.arguments["generator"][0].set_state(self.generator)
        with restored(transformer), final_latents(self.pipe) as seen:
            transformer.forward = asked
            self.pipe(**self.arguments)
        return torch.cat(seen)

    def predict(self, model: Callable[[], Any], reused: Collection[int] = (), keep: bool = False) -> Any:
        """Compute a step's output.

        Args:
            model: computes it.
            reused: numbers of layers that reuse.
            keep: whether every layer's output is kept and measured.

        Returns:
            The output, as the pipeline takes it.
        """
        self.manual.decide(reused, keep)
        return model()

    def guided(self, output: Any) -> Tensor:
        """Combine the branches of guidance.

        Args:
            output: of the model at the current step.

        Returns:
            The prediction that the solver is given, `[1, ...]`.

        Raises:
            BadInput: the model's branches do not stand one after the other.
        """
        prediction: Tensor = output[0][:, : self.latent.shape[1]]  # without a variance
        if len(prediction) == 1:  # no guidance, or distilled into the model
            return prediction
        halves = prediction.chunk(2)
        conditional = self.adapter.conditional
        if conditional is None:
            raise BadInput(f"policy: the guided batch of {self.adapter.name} cannot be split")
        return halves[1 - conditional] + self.guidance * (halves[conditional] - halves[1 - conditional])

    def features(self, step: int) -> Tensor:
        """Compute what the gate sees before a step.

        Args:
            step: the current step.

        Returns:
            Features `[layers, 4]`; entropy is of the last kept output.
        """
        scheduler = self.pipe.scheduler
        log_snr = math.log(max(schedule_snr(scheduler)[step], 1e-12))
        norm = float(self.latent.float().flatten(1).norm(dim=1).mean())
        time = float(scheduler.timesteps[step]) / scheduler.config.num_train_timesteps
        return torch.tensor([[float(entropy), log_snr, norm, time] for entropy in self.manual.entropy])

    def reusing(self, outputs: Sequence[Any], at: int, layer: int) -> Tensor:
        """Denoise with a single reuse.

        Args:
            outputs: of the model at each step, everything computed.
            at: the step at which a layer reuses what it kept at the one before.
            layer: its number.

        Returns:
            The final latent.
        """

        def ask(step: int, model: Callable[[], Any]) -> Any:
            if step < at - 1:
                return outputs[step]
            return self.predict(model, (layer,) if step == at else (), keep=step == at - 1)

        return self.run(ask)


def follow(trajectory: Trajectory, name: int, finals: int) -> dict[str, Tensor]:
    """Follow one trajectory.

    Args:
        trajectory: an image's.
        name: its number, which names its rows and seeds the draw of `finals`.
        finals: reuses that are followed to the final latent.

    Returns:
        The columns, `[(steps - 1) * layers, ...]` each.
    """
    rows: list[tuple[Tensor, Tensor]] = []
    outputs: list[Any] = []

    def ask(step: int, model: Callable[[], Any]) -> Any:
        layers = range(trajectory.layers) if step else ()
        features = trajectory.features(step) if step else None
        reused = [trajectory.guided(trajectory.predict(model, (layer,))) for layer in layers]
        outputs.append(trajectory.predict(model, keep=True))
        if features is not None:
            full = trajectory.guided(outputs[-1]).expand_as(torch.cat(reused))
            rows.append((features, paired.drift(torch.cat(reused), full)))
        return outputs[-1]

    final = trajectory.run(ask)
    ends = {
        (step - 1) * trajectory.layers + layer: trajectory.reusing(outputs, step, layer)
        for step, layer in _sample(trajectory, finals, seed=name)
    }
    return _columns(rows, ends, final, name)


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


def _sample(trajectory: Trajectory, finals: int, seed: int) -> list[tuple[int, int]]:
    """Steps and layers whose single reuse is followed to the end, so many in all."""
    cells = [(step, layer) for step in range(1, len(trajectory)) for layer in range(trajectory.layers)]
    return random.Random(seed).sample(cells, min(finals, len(cells)))


def _metadata(session: Session, trajectories: int) -> dict[str, Any]:
    spec = session.spec
    return {
        "model": shown_model(spec.model),
        "fingerprint": models.fingerprint(spec),
        "layers": shape_of(session.pipe)["num_layers"],
        "scheduler": type(session.pipe.scheduler).__name__,
        "steps": spec.num_inference_steps,
        "guidance": spec.guidance_scale,
        "seeds": [spec.seed, spec.seed + trajectories],  # the last one excluded
        **subjects(session),
    }
