"""The decision, once a step and for all layers: which are reused, and why the others are not."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dqar.core.gate_config import GateConfig
from dqar.core.reasons import Reason, Reasons, progress
from dqar.errors import InvalidValue

if TYPE_CHECKING:
    from dqar.policy.layer_scheduler import AdaptiveLayerScheduler
    from dqar.policy.mlp_policy import ReusePolicy

__all__ = [
    "Decision",
    "GateConfig",
    "Reason",
    "Reasons",
    "ReuseGate",
    "Signals",
    "entropy_thresholds",
]

FloatArray = npt.NDArray[np.float64]


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
    """Follows one trajectory: decides each step for all layers, by rules, the entries' ages and the data.

    Args:
        config: Thresholds and bounds.
        num_layers: Layers that are decided.
        prompt_length: Prompt tokens of the model's input, where it has a prompt.
        policy: Decides in place of the thresholds.
        adaptive: Forbids layers whose observed change is too large.

    Raises:
        InvalidValue: `entropy_scales` has another length than there are layers.
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
        self.age = np.zeros(num_layers)  # steps for which each entry was reused
        self.has_entry = np.zeros(num_layers, dtype=np.bool_)

    def decide(self, blocked: Reasons, signals: Signals | None = None) -> Reasons:
        """Decide a step. A step that is skipped as a whole uses no entry and makes none.

        Args:
            blocked: What the rules that depend on no data forbid, `[layers]`.
            signals: The data; None = they allow everything, which makes a plan.

        Returns:
            The step's reasons, `[layers]`: `blocked`, and what age and data add.
        """
        row = blocked.copy()
        if (row == Reason.SKIPPED).all():
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
        """Layers that known entropies forbid until they are measured again.

        Args:
            entropy: Of each layer's last computation, `[layers]`, nats; nan forbids.

        Returns:
            `[layers]`; false everywhere where the gate is off, or observed changes decide instead.
        """
        if not self.config.entropy_gate or self.adaptive is not None:  # changes are measured on what is kept
            return np.zeros(len(entropy), dtype=np.bool_)
        return ~(entropy < self.thresholds)

    def should_reuse(self, entropy: float, snr: float, step: int, steps: int) -> Decision:
        """Decide a single layer that has a cache entry.

        Args:
            entropy: Attention entropy in nats.
            snr: Signal-to-noise ratio of the step.
            step: Number of the step, from 0.
            steps: Steps of the trajectory.

        Returns:
            The decision and its reason; neither ages nor cache entries are looked at.
        """
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
    probabilities: Tensor = policy(torch.tensor(features, dtype=torch.float32))
    return np.asarray(probabilities, dtype=np.float64)


def blocked_step(config: GateConfig, step: int, steps: int, snr: float) -> Reason:
    """Whether warm-up or SNR window forbid reuse at a step, for every layer and branch alike.

    Args:
        config: Warm-ups and SNR window; with a learned policy the window does not apply.
        step: Number of the step, from 0.
        steps: Steps of the trajectory.
        snr: Signal-to-noise ratio of the step, a power ratio.

    Returns:
        `WARMUP`, `SNR`, or `REUSED` where neither forbids it.
    """
    if step < config.warmup_steps or progress(step, steps) < config.warmup_fraction:
        return Reason.WARMUP
    if not config.use_learned_policy and not config.snr_low <= snr <= config.snr_high:
        return Reason.SNR
    return Reason.REUSED


def entropy_thresholds(
    config: GateConfig, num_layers: int, prompt_length: int | None = None
) -> npt.NDArray[np.float64]:
    """Entropy below which each layer may be reused: base * sqrt(prompt_length / base length) * scale.

    Args:
        config: Threshold, scales and prompt lengths.
        num_layers: Layers of the result.
        prompt_length: Prompt tokens of the model's input, padding included, where `config` names none.

    Returns:
        tau of each layer in nats, `[num_layers]`; infinite where the gate is off.

    Raises:
        InvalidValue: `entropy_scales` has another length than there are layers.
    """
    scales = np.ones(num_layers)
    if config.entropy_scales is not None:
        if len(config.entropy_scales) != num_layers:
            raise InvalidValue(
                f"entropy_scales has {len(config.entropy_scales)} entries; "
                f"allowed: one for each of the {num_layers} layers"
            )
        scales = np.asarray(config.entropy_scales, dtype=np.float64)
    length = config.prompt_length or prompt_length or config.base_prompt_length
    if config.adaptive_entropy:
        scales = scales * math.sqrt(length / config.base_prompt_length)
    return config.entropy_threshold * scales
