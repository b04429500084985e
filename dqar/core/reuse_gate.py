"""The decision, once a step and for all layers: which may be served from the cache, and why not."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from dqar.config import GateConfig

if TYPE_CHECKING:
    from dqar.policy.layer_scheduler import AdaptiveLayerScheduler
    from dqar.policy.mlp_policy import ReusePolicy

__all__ = ["Decision", "GateConfig", "Reason", "ReuseGate", "Signals", "entropy_thresholds"]

Reasons = npt.NDArray[np.int8]  # [..., layers] of Reason
FloatArray = npt.NDArray[np.float64]


class Reason(IntEnum):
    """Why a layer was reused or computed; where several rules forbid a reuse, the first of them."""

    REUSED = 0
    WARMUP = 1
    SNR = 2
    SCHEDULE = 3
    DEEP_SNR = 4
    PROBE = 5
    NO_ENTRY = 6
    AGE = 7
    CHANGE = 8
    ENTROPY = 9
    POLICY = 10
    BRANCH = 11
    PLAN = 12
    FORETOLD = 13  # the whole step: the model does not run
    DEVIATION = 14

    @property
    def label(self) -> str:
        """The name in words, for tables."""
        return self.name.lower().replace("_", " ")


def served(reasons: Reasons) -> npt.NDArray[np.bool_]:
    """Where nothing is computed, of reasons of any shape: reused, or the whole step foretold."""
    return np.isin(reasons, (Reason.REUSED, Reason.FORETOLD))


class Decision(NamedTuple):
    """One layer's decision at one step."""

    reuse: bool
    reason: Reason


@dataclass(frozen=True)
class Signals:
    """What is known from the data when a step is decided; nan = not known, which forbids a reuse."""

    entropy: FloatArray  # [layers], nats, of each layer's last computation
    snr: float
    time: float = 0.0  # t / training steps, 1 = pure noise
    latent_norm: float = math.nan  # mean L2 norm of the batch's latents; only a policy asks for it
    deviation: float = math.nan  # relative error of the last forecast of an output, over what is expected


class ReuseGate:
    """Walks one trajectory: decides each step's row from the rules, the entries' ages and the data.

    `policy` decides in place of the thresholds in policy mode; `adaptive` forbids layers whose
    observed change is too large. Raises `ValueError` when `entropy_scales` has another length.
    """

    def __init__(
        self,
        config: GateConfig,
        num_layers: int = 1,
        prompt_length: int | None = None,
        policy: ReusePolicy | None = None,
        adaptive: AdaptiveLayerScheduler | None = None,
    ) -> None:
        self.config = config
        self.thresholds = entropy_thresholds(config, num_layers, prompt_length)
        self.policy = policy
        self.adaptive = adaptive
        self.age = np.zeros(num_layers)  # steps that each entry has served
        self.has_entry = np.zeros(num_layers, dtype=np.bool_)

    def decide(self, blocked: Reasons, signals: Signals | None = None) -> Reasons:
        """The step's reasons, `[layers]`: `blocked` (the rules' row), and what age and data add.

        Without `signals` the data is taken to allow everything, which makes a plan. A step that is foretold
        as a whole takes no entry and makes none.
        """
        row = blocked.copy()
        if (row == Reason.FORETOLD).all():
            if signals is None or not signals.deviation > self.config.deviation_tolerance:
                return row
            row[:] = Reason.DEVIATION
        if signals is not None:
            for reason, forbidden in self._by_data(signals):
                row[(row == Reason.REUSED) & forbidden] = reason
        if self.config.max_age is not None and self.config.plan_path is None:
            row[(row == Reason.REUSED) & (self.age >= self.config.max_age)] = Reason.AGE
        row[(row == Reason.REUSED) & ~self.has_entry] = Reason.NO_ENTRY
        self.age = np.where(row == Reason.REUSED, self.age + 1, 0)
        self.has_entry[:] = True
        return row

    def forbids(self, entropy: FloatArray) -> npt.NDArray[np.bool_]:
        """Layers that known entropies forbid, `[layers]`, until they are measured anew."""
        if not self.config.entropy_gate or self.adaptive is not None:  # changes are seen on what is kept
            return np.zeros(len(entropy), dtype=np.bool_)
        return ~(entropy < self.thresholds)

    def should_reuse(self, entropy: float, snr: float, step: int, steps: int) -> Decision:
        """Decide a single layer that has a cache entry, with the reason."""
        reason = blocked_step(self.config, step, steps, snr)
        if reason is Reason.REUSED:
            for why, forbidden in self._by_data(Signals(np.array([entropy]), snr)):
                reason = why if forbidden[0] else reason
        return Decision(reason is Reason.REUSED, reason)

    def _by_data(self, signals: Signals) -> list[tuple[Reason, npt.NDArray[np.bool_]]]:
        rules: list[tuple[Reason, npt.NDArray[np.bool_]]] = []
        if self.adaptive is not None:
            rules.append((Reason.CHANGE, ~self.adaptive.tolerates(self.age + 1)))
        if self.policy is not None:
            limit = self.config.reuse_threshold
            limit = self.policy.threshold if limit is None else limit
            rules.append((Reason.POLICY, ~(_probabilities(self.policy, signals) >= limit)))
        elif self.config.entropy_gate:
            rules.append((Reason.ENTROPY, ~(signals.entropy < self.thresholds)))
        return rules


@torch.no_grad()
def _probabilities(policy: ReusePolicy, signals: Signals) -> FloatArray:
    """The policy's p_reuse of each layer, `[layers]`, computed on the host; nan where entropy is."""
    rest = [math.log(max(signals.snr, 1e-12)), signals.latent_norm, signals.time]
    features = [[entropy, *rest] for entropy in signals.entropy]
    return policy(torch.tensor(features, dtype=torch.float32)).double().numpy()


def blocked_step(config: GateConfig, step: int, steps: int, snr: float) -> Reason:
    """What warm-up and SNR window say of a step (from 0), for every layer and branch alike."""
    if step < config.warmup_steps or progress(step, steps) < config.warmup_fraction:
        return Reason.WARMUP
    if not config.use_learned_policy and not config.snr_low <= snr <= config.snr_high:
        return Reason.SNR
    return Reason.REUSED


def progress(step: int, steps: int) -> float:
    """How far a step (from 0) is along the trajectory, 0 to 1."""
    return step / (steps - 1) if steps > 1 else 0.0


def entropy_thresholds(
    config: GateConfig, num_layers: int, prompt_length: int | None = None
) -> npt.NDArray[np.float64]:
    """tau of each layer in nats, `[num_layers]`: base * sqrt(prompt_length / base length) * scale.

    Raises `ValueError` when `entropy_scales` has another length.
    """
    scales = np.ones(num_layers)
    if config.entropy_scales is not None:
        if len(config.entropy_scales) != num_layers:
            raise ValueError(
                f"entropy_scales has {len(config.entropy_scales)} entries; "
                f"allowed: one for each of the {num_layers} layers"
            )
        scales = np.asarray(config.entropy_scales, dtype=np.float64)
    length = config.prompt_length or prompt_length or config.base_prompt_length
    if config.adaptive_entropy:
        scales = scales * math.sqrt(length / config.base_prompt_length)
    return config.entropy_threshold * scales
