"""The gate's decisions: each rule forbids by its own reason, and tau follows prompt and layer."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from dqar.core.reuse_gate import GateConfig, Reason, ReuseGate, Signals, entropy_thresholds
from dqar.policy.layer_scheduler import AdaptiveLayerScheduler
from dqar.policy.mlp_policy import ReusePolicy

GATE = GateConfig(
    entropy_threshold=2.0, snr_low=0.1, snr_high=10.0, warmup_steps=5, warmup_fraction=0.2, max_age=None
)


@pytest.mark.parametrize(
    ("entropy", "snr", "step", "reason"),
    [
        (1.9, 1.0, 20, Reason.REUSED),
        (1.9, 1.0, 4, Reason.WARMUP),
        (1.9, 1.0, 9, Reason.WARMUP),  # past five steps, not past a fifth of them
        (1.9, 0.09, 20, Reason.SNR),
        (1.9, 10.1, 20, Reason.SNR),
        (2.0, 1.0, 20, Reason.ENTROPY),
        (math.nan, 1.0, 20, Reason.ENTROPY),  # not known
        (2.0, 0.09, 4, Reason.WARMUP),  # the first rule that forbids
    ],
)
def test_each_rule_forbids_by_its_reason(entropy: float, snr: float, step: int, reason: Reason) -> None:
    """H < tau, SNR in its window and the warm-up past: else the decision says which of them it was."""
    found = ReuseGate(GATE).should_reuse(entropy, snr, step, steps=50)
    assert found == (reason is Reason.REUSED, reason)


def test_tau_follows_prompt_and_layer() -> None:
    """tau(p) = base * sqrt(p / 77), times the layer's scale; without adaptation the base as it stands."""
    scaled = GateConfig(entropy_threshold=2.0, entropy_scales=(1.0, 0.5, 2.0))
    np.testing.assert_allclose(entropy_thresholds(scaled, 3, 77), [2.0, 1.0, 4.0])
    np.testing.assert_allclose(entropy_thresholds(scaled, 3, 308), [4.0, 2.0, 8.0])
    np.testing.assert_allclose(entropy_thresholds(scaled, 3), [2.0, 1.0, 4.0])  # no prompt
    fixed = GateConfig(entropy_threshold=2.0, adaptive_entropy=False)
    np.testing.assert_allclose(entropy_thresholds(fixed, 3, 308), [2.0] * 3)


def decided(gate: ReuseGate, signals: Signals, steps: int = 3) -> list[list[Reason]]:
    """The reasons of some steps that no rule forbids."""
    free = np.full(2, Reason.REUSED, dtype=np.int8)
    return [[Reason(code) for code in gate.decide(free, signals)] for _ in range(steps)]


def test_an_entry_must_be_there_and_young() -> None:
    """At the first step there is no entry; one that was reused for `max_age` steps is computed again."""
    signals = Signals(np.array([1.0, 3.0]), snr=1.0)
    found = decided(ReuseGate(GateConfig(entropy_threshold=2.0, max_age=1), 2), signals)
    assert [row[0] for row in found] == [Reason.NO_ENTRY, Reason.REUSED, Reason.AGE]
    assert [row[1] for row in found] == [Reason.ENTROPY] * 3


class Certain(ReusePolicy):
    """Reuses the layers whose entropy is below 2 with certainty."""

    def logits(self, features: torch.Tensor, layer: Any = None) -> torch.Tensor:
        """Infinite on either side."""
        return torch.where(features[..., 0] < 2, math.inf, -math.inf)


def test_policy_and_observed_change_have_reasons_of_their_own() -> None:
    """A policy stands in for the thresholds, observed change beside them; each forbids by its name."""
    signals = Signals(np.array([1.0, 3.0]), snr=1.0, latent_norm=1.0)
    learned = GateConfig(use_learned_policy=True, policy_path="x", max_age=None, entropy_threshold=0.0)
    found = decided(ReuseGate(learned, 2, policy=Certain()), signals)
    assert found[-1] == [Reason.REUSED, Reason.POLICY]
    adaptive = AdaptiveLayerScheduler(2, tolerance=0.1)
    adaptive.observe(np.array([0.3, 0.05]), np.array([1, 1]))
    found = decided(ReuseGate(GateConfig(max_age=None), 2, adaptive=adaptive), signals, steps=4)
    assert found[-3:] == [[Reason.CHANGE, why] for why in (Reason.REUSED, Reason.REUSED, Reason.CHANGE)]


def test_labels_of_former_records_are_read() -> None:
    """Each reason is found by its label, and the one that was renamed by its former label too."""
    assert [Reason.from_label(reason.label) for reason in Reason] == list(Reason)
    assert Reason.from_label("foretold") is Reason.SKIPPED
    with pytest.raises(KeyError):
        Reason.from_label("unknown")
