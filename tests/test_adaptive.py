"""The adaptive schedule: decided by changes that were measured when layers were computed anyway."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from conftest import generate
from diffusers import DiTPipeline

import dqar
from dqar import DQARConfig
from dqar.core.reuse_gate import Reason
from dqar.policy.layer_scheduler import AdaptiveLayerScheduler

STEPS, LAYERS = 20, 6


def config(tolerance: float, **fields: Any) -> DQARConfig:
    return DQARConfig.preset(
        "maximum", schedule_type="adaptive", adaptive_tolerance=tolerance, quantization_bits=16, **fields
    )


def traced(pipe: DiTPipeline) -> torch.Tensor:
    """What each layer's attention gave at each step, `[steps, layers, ...]`."""
    outputs: list[torch.Tensor] = []
    blocks = pipe.transformer.transformer_blocks
    hooks = [b.attn1.register_forward_hook(lambda _, __, output: outputs.append(output)) for b in blocks]
    generate(pipe, steps=STEPS)
    for hook in hooks:
        hook.remove()
    stacked: torch.Tensor = torch.stack(outputs).unflatten(0, (STEPS, LAYERS))
    return stacked


def test_decisions_follow_the_measured_change(pipe: DiTPipeline) -> None:
    """Where a layer that has an entry is computed, ||fresh - cached|| / ||fresh|| a step is its rate; it is
    reused exactly where the last rate, times the steps of reuse, is tolerated."""
    dqar.enable(pipe, config(1e9))
    traced(pipe)
    rates = pipe._dqar.manager.trajectory.main.maker.gate.adaptive.rate
    tolerance = 2.5 * float(np.median(rates))
    dqar.enable(pipe, config(tolerance))
    outputs = traced(pipe)
    summary, run = dqar.summary(pipe), pipe._dqar.manager.trajectory.main.maker
    assert {"reused", "change", "probe"} <= summary.reasons.keys()

    free, looked = run.blocked == Reason.REUSED, run.blocked == Reason.PROBE
    for layer in range(LAYERS):
        rate, computed = np.nan, 0
        for step in range(1, STEPS):
            expected = free[step, layer] and rate * (step - computed) <= tolerance
            assert summary.map[step, layer] == expected, (step, layer)
            if expected:
                continue
            if free[step, layer] or looked[step, layer]:  # an entry was kept for this step
                fresh, cached = outputs[step, layer], outputs[computed, layer]
                rate = float((fresh - cached).norm() / fresh.norm()) / (step - computed)
            computed = step
        assert run.gate.adaptive.rate[layer] == pytest.approx(rate, rel=1e-4)


def test_each_layer_is_looked_at_in_turn(pipe: DiTPipeline) -> None:
    """However much is tolerated, each layer is computed every `probe_interval` steps, not all at once."""
    dqar.enable(pipe, config(1e9, probe_interval=4))
    traced(pipe)
    table = dqar.summary(pipe).map
    step, layer = np.indices(table.shape)
    past = step >= 6  # the warm-up, and a first look at every layer
    assert np.array_equal(table[past], ((step + layer) % 4 != 0)[past])


def test_a_layer_that_was_never_looked_at_is_not_reused() -> None:
    """Without an observation nothing is tolerated; a later one replaces an earlier, nan does not."""
    scheduler = AdaptiveLayerScheduler(2, tolerance=0.1)
    one = np.ones(2)
    assert not scheduler.tolerates(one).any()
    scheduler.observe(np.array([0.1, np.nan]), np.array([2, 1]))
    assert scheduler.tolerates(2 * one).tolist() == [True, False]
    scheduler.observe(np.array([np.nan, 0.2]), one)
    assert scheduler.tolerates(one).tolist() == [True, False]
