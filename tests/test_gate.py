"""The gate's decisions: each rule forbids by its own reason, and tau follows prompt and layer."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from dqar.config import DQARConfig
from dqar.core.gate_config import warned_before
from dqar.core.reasons import is_reused, progress
from dqar.core.reuse_gate import (
    GateConfig,
    Reason,
    ReuseGate,
    Signals,
    blocked_step,
    entropy_thresholds,
)
from dqar.errors import DQARWarning
from dqar.policy.layer_scheduler import AdaptiveLayerScheduler, LayerScheduler
from dqar.policy.mlp_policy import ReusePolicy
from dqar.policy.schedule_config import ScheduleConfig

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
    """H < tau, SNR in its window and the warm-up past: else the decision records which of them it was."""
    decision = ReuseGate(GATE).should_reuse(entropy, snr, step, steps=50)
    assert decision == (reason is Reason.REUSED, reason)


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
    decisions = decided(ReuseGate(GateConfig(entropy_threshold=2.0, max_age=1), 2), signals)
    assert [row[0] for row in decisions] == [Reason.NO_ENTRY, Reason.REUSED, Reason.AGE]
    assert [row[1] for row in decisions] == [Reason.ENTROPY] * 3


class Certain(ReusePolicy):
    """Reuses the layers whose entropy is below 2 with certainty."""

    def logits(self, features: torch.Tensor, layer: Any = None) -> torch.Tensor:
        """Infinite on either side."""
        return torch.where(features[..., 0] < 2, math.inf, -math.inf)


def test_policy_and_observed_change_have_reasons_of_their_own() -> None:
    """A policy stands in for the thresholds, observed change alongside them; each forbids by its name."""
    signals = Signals(np.array([1.0, 3.0]), snr=1.0, latent_norm=1.0)
    learned = GateConfig(use_learned_policy=True, policy_path="x", max_age=None, entropy_threshold=0.0)
    decisions = decided(ReuseGate(learned, 2, policy=Certain()), signals)
    assert decisions[-1] == [Reason.REUSED, Reason.POLICY]
    adaptive = AdaptiveLayerScheduler(2, tolerance=0.1)
    adaptive.observe(np.array([0.3, 0.05]), np.array([1, 1]))
    decisions = decided(ReuseGate(GateConfig(max_age=None), 2, adaptive=adaptive), signals, steps=4)
    assert decisions[-3:] == [[Reason.CHANGE, why] for why in (Reason.REUSED, Reason.REUSED, Reason.CHANGE)]


def test_a_reason_is_found_by_its_label() -> None:
    """Each by its own, and nothing by another word."""
    assert [Reason.from_label(reason.label) for reason in Reason] == list(Reason)
    with pytest.raises(KeyError):
        Reason.from_label("unknown")


BLOCKED = GateConfig(snr_low=0.5, snr_high=2.0, warmup_steps=2, warmup_fraction=0.5, max_age=None)


@pytest.mark.parametrize(
    ("step", "steps", "snr", "reason"),
    [
        (1, 3, 1.0, Reason.WARMUP),  # half of the way, but the second step
        (2, 6, 1.0, Reason.WARMUP),  # the third step, but not half of the way
        (2, 5, 1.0, Reason.REUSED),  # both at their bounds
        (4, 5, 0.5, Reason.REUSED),
        (4, 5, 2.0, Reason.REUSED),
        (4, 5, 0.49, Reason.SNR),
        (4, 5, 2.01, Reason.SNR),
        (0, 1, 1.0, Reason.WARMUP),
    ],
)
def test_warmups_and_window_at_their_bounds(step: int, steps: int, snr: float, reason: Reason) -> None:
    """Both warm-ups hold, and end at their bounds; the window's ends belong to it."""
    assert blocked_step(BLOCKED, step, steps, snr) is reason


def test_a_policy_takes_the_place_of_the_window() -> None:
    """With a learned policy the warm-up holds, the SNR window does not."""
    learned = GateConfig(use_learned_policy=True, policy_path="x", warmup_steps=2, warmup_fraction=0.0)
    assert [blocked_step(learned, step, 9, 0.0) for step in (1, 2)] == [Reason.WARMUP, Reason.REUSED]


def rows(gate: ReuseGate, *steps: tuple[Reason, Signals | None]) -> list[list[Reason]]:
    """What the gate decides where the rules decide the same for both layers at each step."""
    asked = [(np.full(2, reason, dtype=np.int8), signals) for reason, signals in steps]
    return [[Reason(code) for code in gate.decide(row, signals)] for row, signals in asked]


@pytest.mark.parametrize(
    ("deviation", "reason"),
    [(0.5, Reason.SKIPPED), (0.51, Reason.DEVIATION), (math.nan, Reason.SKIPPED)],
)
def test_a_skipped_step_runs_where_the_forecast_deviates(deviation: float, reason: Reason) -> None:
    """By more than the tolerance; a deviation that is not known, or a plan without data, skips."""
    gate = ReuseGate(GateConfig(deviation_tolerance=0.5, max_age=None), 2)
    seen = Signals(np.ones(2), snr=1.0, deviation=deviation)
    assert rows(gate, (Reason.SKIPPED, seen), (Reason.SKIPPED, None)) == [[reason] * 2, [Reason.SKIPPED] * 2]


def test_a_skipped_step_leaves_entries_as_they_are() -> None:
    """It makes none and uses none: ages go on where they were, and the first step that runs has no entry."""
    steps = [
        (reason, None) for reason in (Reason.SKIPPED, *[Reason.REUSED] * 3, Reason.SKIPPED, Reason.REUSED)
    ]
    decisions = rows(ReuseGate(GateConfig(max_age=2), 2), *steps)
    first = [Reason.SKIPPED, Reason.NO_ENTRY, Reason.REUSED, Reason.REUSED, Reason.SKIPPED, Reason.AGE]
    assert [row[0] for row in decisions] == first


def test_the_rules_are_asked_first_and_not_changed() -> None:
    """A layer that the rules forbid keeps their reason, is computed and so has an entry; the row stays."""
    gate = ReuseGate(GateConfig(max_age=None), 2)
    blocked = np.array([Reason.SCHEDULE, Reason.REUSED], dtype=np.int8)
    assert gate.decide(blocked).tolist() == [Reason.SCHEDULE, Reason.NO_ENTRY]
    assert blocked.tolist() == [Reason.SCHEDULE, Reason.REUSED]
    assert gate.decide(np.zeros(2, dtype=np.int8)).tolist() == [Reason.REUSED] * 2


def test_a_saved_plan_knows_the_ages() -> None:
    """With a plan's file the bound on age does not hold: the plan was found without it."""
    free = [(Reason.REUSED, None)] * 4
    decisions = rows(ReuseGate(GateConfig(max_age=1, plan_path="x"), 2), *free)
    assert [row[0] for row in decisions] == [Reason.NO_ENTRY, *[Reason.REUSED] * 3]


def test_known_entropies_forbid_until_measured_again() -> None:
    """At tau and above, or not known; never with observed change, nor with the gate off."""
    entropy = np.array([1.9, 2.0, math.nan])
    gated = GateConfig(entropy_threshold=2.0)
    assert ReuseGate(gated, 3).forbids(entropy).tolist() == [False, True, True]
    off = [ReuseGate(gated, 3, adaptive=AdaptiveLayerScheduler(3, 0.1)), ReuseGate(GateConfig(), 3)]
    assert [gate.forbids(entropy).tolist() for gate in off] == [[False] * 3] * 2
    assert [gate.forbids(entropy).dtype for gate in off] == [np.bool_] * 2


def test_change_is_expected_over_the_steps_of_reuse() -> None:
    """A rate of 0.04 a step is tolerated to 0.1 for two steps, the next one included."""
    adaptive = AdaptiveLayerScheduler(2, tolerance=0.1)
    adaptive.observe(np.array([0.04, 0.2]), np.ones(2))
    signals = Signals(np.ones(2), snr=1.0)
    decisions = rows(
        ReuseGate(GateConfig(max_age=None), 2, adaptive=adaptive), *[(Reason.REUSED, signals)] * 4
    )
    first = [Reason.NO_ENTRY, Reason.REUSED, Reason.REUSED, Reason.CHANGE]
    assert [row[0] for row in decisions] == first and [row[1] for row in decisions] == [Reason.CHANGE] * 4


class Fixed(ReusePolicy):
    """Gives a probability whatever it is asked, and keeps what it was asked."""

    asked: torch.Tensor

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """0.75 for each row."""
        self.asked = features
        return torch.full(features.shape[:-1], 0.75)


@pytest.mark.parametrize(
    ("limit", "own", "reason"),
    [
        (0.75, 0.9, Reason.REUSED),
        (0.76, 0.1, Reason.POLICY),
        (None, 0.75, Reason.REUSED),
        (None, 0.76, Reason.POLICY),
    ],
)
def test_a_policy_decides_from_its_threshold_on(limit: float | None, own: float, reason: Reason) -> None:
    """The configuration's threshold, or the policy's own where it names none; entropy forbids nothing."""
    config = GateConfig(use_learned_policy=True, policy_path="x", max_age=None, reuse_threshold=limit)
    gate = ReuseGate(config, policy=Fixed(threshold=own))
    assert gate.should_reuse(9.0, 1.0, 9, 10) == (reason is Reason.REUSED, reason)


def test_a_policy_is_asked_by_entropy_snr_norm_and_time() -> None:
    """Its inputs are in that order, the SNR as a logarithm that stays finite at 0."""
    policy = Fixed()
    gate = ReuseGate(GateConfig(use_learned_policy=True, policy_path="x"), 2, policy=policy)
    gate.decide(np.zeros(2, dtype=np.int8), Signals(np.array([1.0, 2.0]), math.e, time=0.25, latent_norm=4.0))
    assert policy.asked.tolist() == [[1.0, 1.0, 4.0, 0.25], [2.0, 1.0, 4.0, 0.25]]
    gate.decide(np.zeros(2, dtype=np.int8), Signals(np.ones(2), 0.0, time=0.25, latent_norm=4.0))
    assert policy.asked[:, 1].tolist() == pytest.approx([math.log(1e-12)] * 2)
    assert not policy.asked.requires_grad


def test_the_configurations_prompt_length_comes_first() -> None:
    """Before the model's; the base is where nothing is scaled; scales must be one a layer."""
    config = GateConfig(entropy_threshold=2.0, prompt_length=40, base_prompt_length=10)
    assert entropy_thresholds(config, 2, 160).tolist() == [4.0, 4.0]
    assert ReuseGate(GateConfig(entropy_threshold=2.0, base_prompt_length=10), 1, 40).thresholds == [4.0]
    with pytest.raises(
        ValueError, match="entropy_scales has 1 entries; allowed: one for each of the 2 layers"
    ):
        ReuseGate(GateConfig(entropy_threshold=2.0, entropy_scales=(1.0,)), 2)


def test_progress_and_what_counts_as_reused() -> None:
    """A step's share of the way, 0 of a single step; reused is a cached layer or a skipped step alone."""
    assert [progress(step, 5) for step in range(5)] == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert (progress(0, 1), progress(1, 2)) == (0.0, 1.0)
    reused = [reason for reason in Reason if is_reused(np.array(reason))]
    assert reused == [Reason.REUSED, Reason.SKIPPED]
    assert (Reason.NO_ENTRY.label, Reason.DEEP_SNR.label) == ("no entry", "deep snr")


def test_fields_that_contradict_each_other_are_refused() -> None:
    """The window's ends in order (they may meet), and a policy with its directory."""
    assert GateConfig(snr_low=2.0, snr_high=2.0).snr_high == 2.0
    with pytest.raises(
        ValueError, match=r"^snr_low = 2\.0 is not allowed; allowed: at most snr_high = 1\.0$"
    ):
        GateConfig(snr_low=2.0, snr_high=1.0)
    with pytest.raises(
        ValueError, match=r"^policy_path = None is not allowed; allowed: a policy's directory"
    ):
        GateConfig(use_learned_policy=True)
    with pytest.raises(ValueError, match=r"^warmup_steps = -1 is not allowed"):
        GateConfig(warmup_steps=-1)


def test_a_configuration_shows_what_was_changed() -> None:
    """In the order of the fields, and nothing else."""
    assert repr(GateConfig()) == "GateConfig()"
    assert repr(GateConfig(max_age=None, snr_low=0.5)) == "GateConfig(snr_low=0.5, max_age=None)"


@pytest.mark.filterwarnings("ignore::dqar.errors.DQARWarning")
def test_when_entropy_decides() -> None:
    """Where its threshold is finite and no policy stands in its place; a policy needs it as an input."""
    learned: dict[str, Any] = {"use_learned_policy": True, "policy_path": "x"}
    none: dict[str, Any] = {}
    configs = [GateConfig(entropy_threshold=t, **f) for t in (2.0, math.inf) for f in (none, learned)]
    assert [config.entropy_gate for config in configs] == [True, False, False, False]
    assert [config.needs_entropy for config in configs] == [True, True, False, True]


def test_fields_without_effect_are_warned_of_once() -> None:
    """Each by name, in order; not those that were warned of before, and again afterwards."""
    without: dict[str, Any] = {"prompt_length": 9, "base_prompt_length": 7}
    with pytest.warns(DQARWarning) as caught:
        GateConfig(**without)
    assert [str(warning.message).partition(" = ")[0] for warning in caught] == sorted(without)
    with pytest.warns(DQARWarning, match="prompt_length") as caught, warned_before(["base_prompt_length"]):
        GateConfig(**without)
    assert len(caught) == 1
    with pytest.warns(DQARWarning) as caught:
        GateConfig(**without)
    assert len(caught) == 2


def test_a_layer_schedule_needs_its_own_fields_only() -> None:
    """A `ScheduleConfig` alone decides as the whole configuration does, and warns of no other field."""
    fields: dict[str, Any] = {"use_layer_scheduling": True, "schedule_type": "linear", "layer_fraction": 0.5}
    alone, whole = (
        LayerScheduler(kind(**fields), 8).eligible(9, 10) for kind in (ScheduleConfig, DQARConfig)
    )
    assert alone.tolist() == whole.tolist() == [True] * 4 + [False] * 4
