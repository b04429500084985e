"""Candidates compared at equal reuse, on the same images."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from tqdm import tqdm

import dqar
from bench.measure import paired
from bench.methods.dqar import shape_of
from bench.pipeline.session import Session, final_latents
from dqar import DQARConfig
from dqar.core.reuse_gate import Reason, ReuseGate, Signals
from dqar.plan import rules
from dqar.policy.mlp_policy import ReusePolicy

POLICY = "learned policy"
OPEN: dict[str, Any] = {  # all rules off: each candidate adds its own
    "warmup_steps": 0,
    "warmup_fraction": 0.0,
    "use_layer_scheduling": False,
    "entropy_threshold": math.inf,
    "snr_low": 0.0,
    "snr_high": math.inf,
    "forecast_order": 0,  # what the traces that the policy learned from measured
}

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Candidate:
    """A way to choose what is reused, and the parameter that sets how much: a field and its two ends."""

    name: str
    parameter: str
    no_reuse: float
    most_reuse: float
    fields: dict[str, Any] = field(default_factory=dict)
    policy: Callable[[int], Any] | None = None  # image -> what decides in policy mode


class Measured(NamedTuple):
    """One candidate at one value of its parameter: reuse ratio and drift of each image, `[n]`."""

    parameter: float
    ratio: Floats
    drift: Floats


class RandomMask:
    """Stands in for a policy: each layer and step draws its probability.

    Args:
        seed: random seed of the draws.
    """

    threshold = 0.5

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, features: Tensor) -> Tensor:
        """Uniform draws, `[layers]`, whatever the features."""
        return torch.rand(len(features), generator=self.generator)


class Recorder:
    """Stands in for a policy: notes what the gate shows it, and allows what another policy allows, or
    nothing.

    Args:
        policy: the other policy, from features `[layers, 4]` to probabilities `[layers]`; None: nothing is
            allowed.
    """

    threshold = 0.5

    def __init__(self, policy: Callable[[Tensor], Tensor] | None = None) -> None:
        self.policy = policy
        self.rows: list[Tensor] = []  # one a step, [layers, 4]

    def __call__(self, features: Tensor) -> Tensor:
        """The policy's probabilities, `[layers]`; without one no layer is safe."""
        self.rows.append(features)
        return torch.zeros(len(features)) if self.policy is None else self.policy(features)


def candidates(policy: ReusePolicy, directory: Path, entropy: float) -> list[Candidate]:
    """List what is compared.

    Args:
        policy: the learned policy.
        directory: the directory that the policy was read from.
        entropy: the highest seen, in nats: the end of the threshold's range.

    Returns:
        The candidates, the policy first.
    """
    learned = {"use_learned_policy": True, "policy_path": str(directory)}
    window = {"snr_low": 0.1, "snr_high": 10.0}  # the original specification's
    linear = {"use_layer_scheduling": True, "schedule_type": "linear"}
    return [
        Candidate(POLICY, "reuse_threshold", 1.0, 0.0, learned, lambda sample: policy),
        Candidate("SNR + entropy", "entropy_threshold", 0.0, 1.1 * entropy, window),
        Candidate("schedule alone", "warmup_fraction", 0.999, 0.0, linear),
        Candidate("random mask", "reuse_threshold", 1.0, 0.0, learned, RandomMask),
    ]


class EqualReuse:
    """Images `0` to `n - 1` of a session: by the untouched pipeline, and under each candidate.

    `control` is the drift of runs that measure but reuse nothing: 0, or the comparison is invalid.

    Args:
        session: a session over images that the policy was not trained on.
        directory: the directory of the policy.
        n: number of images, at least 1.
        max_age: number of steps that an entry may be reused for, at least 1.
        progress: whether to show a bar.
    """

    def __init__(
        self, session: Session, directory: Path, n: int, max_age: int, progress: bool = True
    ) -> None:
        self.session, self.pipe, self.samples = session, session.pipe, range(n)
        self.base = OPEN | shape_of(session.pipe) | {"max_age": max_age}
        self.bar = tqdm(desc="eval", unit="image", disable=not progress)
        self.reference = [self._latent(i) for i in self.samples]
        learned = {"use_learned_policy": True, "policy_path": str(directory)}
        recorder = Candidate("recorder", "reuse_threshold", 1.0, 0.0, learned)
        self.features: list[Tensor] = []  # an image's, [steps, layers, 4]
        self.control = max(self._record(recorder, i) for i in self.samples)

    def config(self, candidate: Candidate, parameter: float, bits: int = 16) -> DQARConfig:
        """Make the configuration of a candidate.

        Args:
            candidate: one of the ways to choose what is reused.
            parameter: the value of the candidate's parameter.
            bits: width of a cached value, 8 or 16.

        Returns:
            The configuration.
        """
        return DQARConfig(
            **self.base | candidate.fields | {candidate.parameter: parameter, "quantization_bits": bits}
        )

    def highest_entropy(self) -> float:
        """Find the highest entropy over all images, steps and layers.

        Returns:
            The entropy, in nats.
        """
        return max(float(rows[..., 0].nan_to_num().max()) for rows in self.features)

    def measure(self, candidate: Candidate, parameter: float, bits: int = 16) -> Measured:
        """Make every image with a candidate's reuse.

        Args:
            candidate: one of the ways to choose what is reused.
            parameter: the value of the candidate's parameter.
            bits: width of a cached value, 8 or 16.

        Returns:
            Ratio and drift of each image.
        """
        measured = [self._measure(candidate, parameter, bits, i) for i in self.samples]
        ratio, drift = (np.array(column) for column in zip(*measured, strict=True))
        return Measured(parameter, ratio, drift)

    def replay(self, candidate: Candidate, parameter: float) -> float:
        """Replay the gate on the features seen without any reuse.

        Args:
            candidate: one of the ways to choose what is reused.
            parameter: the value of the candidate's parameter.

        Returns:
            The mean reuse ratio that it would choose, in [0, 1].
        """
        config = self.config(candidate, parameter)
        return float(np.mean([self._replay(config, candidate, i) for i in self.samples]))

    def _latent(self, sample: int) -> Tensor:
        with final_latents(self.pipe) as seen:
            self.pipe(**self.session.arguments(range(sample, sample + 1)))
        self.bar.update()
        return torch.cat(seen).float().cpu()

    def _drift(self, sample: int) -> float:
        return float(paired.drift(self._latent(sample), self.reference[sample])[0])

    def _measure(self, candidate: Candidate, parameter: float, bits: int, sample: int) -> tuple[float, float]:
        with enabled(
            self.pipe, self.config(candidate, parameter, bits), candidate.policy and candidate.policy(sample)
        ):
            drift = self._drift(sample)
            return dqar.summary(self.pipe).ratio, drift

    def _record(self, candidate: Candidate, sample: int) -> float:
        recorder = Recorder()
        with enabled(self.pipe, self.config(candidate, candidate.no_reuse), recorder):
            drift = self._drift(sample)
        self.features.append(torch.stack(recorder.rows))
        return drift

    def _replay(self, config: DQARConfig, candidate: Candidate, sample: int) -> float:
        rows = self.features[sample].double().numpy()
        entropy, (log_snr, norm, time) = rows[..., 0], rows[:, 0, 1:].T
        snr, layers = np.exp(log_snr), rows.shape[1]
        gate = ReuseGate(config, layers, policy=candidate.policy and candidate.policy(sample))
        known, reused = entropy[0], np.zeros((len(rows), layers), dtype=np.bool_)
        for step, blocked in enumerate(rules(config, snr, layers).blocked):
            known = np.where(reused[step - 1], known, entropy[step])  # of the last computation
            signals = Signals(known, snr[step], time[step], norm[step])
            reused[step] = gate.decide(blocked, signals) == Reason.REUSED
        return float(reused.mean())


@contextmanager
def enabled(pipe: Any, config: DQARConfig, policy: Any = None) -> Iterator[None]:
    """Enable DQAR on a pipeline, and disable it afterwards.

    Args:
        pipe: a pipeline of diffusers.
        config: the configuration.
        policy: it decides in place of the one that `config` names; None: that one.
    """
    dqar.enable(pipe, config, policy)
    try:
        yield
    finally:
        dqar.disable(pipe)
