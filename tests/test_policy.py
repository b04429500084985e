"""The learned policy: small, saved and read back exactly, trained without leakage on what reuse costs."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from scipy.stats import mannwhitneyu

from dqar.errors import DQARError
from dqar.policy.mlp_policy import FEATURES, LayerWiseReusePolicy, ReusePolicy
from dqar.training.policy_trainer import PolicyTrainer, budget_threshold, roc_auc, split_by_trajectory
from dqar.training.traces import Trace

LAYERS = 4


def trace(trajectories: int = 20, noise: float = 0.1) -> Trace:
    """Reuse error that rises with entropy and layer, falls with SNR, and is not fully determined by them."""
    n = trajectories * 25 * LAYERS
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(n, 4, generator=generator) * torch.tensor([0.5, 3.0, 10.0, 0.3]) + 2
    layer = torch.arange(n) % LAYERS
    score = features[:, 0] - 0.3 * features[:, 1] + 0.5 * layer
    reuse_error = (score + noise * torch.randn(n, generator=generator)).exp()
    return Trace(features, layer, torch.arange(n) // (25 * LAYERS), reuse_error, {"model": "made up"})


def policies() -> list[ReusePolicy]:
    return [ReusePolicy(), LayerWiseReusePolicy(LAYERS)]


@pytest.mark.parametrize("policy", policies(), ids=lambda p: type(p).__name__)
def test_small_and_a_probability(policy: ReusePolicy) -> None:
    """Both kinds give one probability a row, with fewer than 0.5 M parameters."""
    chance = policy.eval()(100 * torch.randn(3, LAYERS, len(FEATURES)))
    assert chance.shape == (3, LAYERS)
    assert chance.min() >= 0 and chance.max() <= 1
    assert sum(p.numel() for p in policy.parameters()) < 500_000


def test_layers_are_distinguished() -> None:
    """Of equal features the layer-wise policy makes different probabilities, and wants all layers."""
    policy = LayerWiseReusePolicy(LAYERS).eval()
    assert len(policy(torch.zeros(LAYERS, 4)).unique()) == LAYERS
    with pytest.raises(ValueError, match=r"features = "):
        policy(torch.zeros(LAYERS + 1, 4))


@pytest.mark.parametrize("policy", policies(), ids=lambda p: type(p).__name__)
def test_training_finds_safe_rows(policy: ReusePolicy) -> None:
    """Training ranks unseen trajectories well above chance and comes near the best ratio at the budget."""
    figures = PolicyTrainer(policy, budget=20.0, epochs=10, batch_size=256, learning_rate=1e-2).fit(trace())
    assert figures.roc_auc > (0.95 if isinstance(policy, LayerWiseReusePolicy) else 0.85)
    assert 0.5 * figures.best_ratio < figures.reuse_ratio <= 1.0
    assert figures.reuse_error < 1.5 * 20.0
    assert policy.threshold == figures.threshold and policy.metrics["epochs"] == figures.epochs
    assert not policy.training


def test_training_is_seeded_and_stops_early() -> None:
    """Two trainings with one seed give the same weights, and noise alone ends before the last epoch."""
    rows = trace()
    random = Trace(torch.randn_like(rows.features), rows.layer, rows.trajectory, rows.reuse_error)
    first, second = ReusePolicy(), ReusePolicy()
    options: dict[str, Any] = {"budget": 20.0, "patience": 2, "batch_size": 512, "learning_rate": 1e-2}
    figures = [PolicyTrainer(p, **options).fit(random) for p in (first, second)]
    assert figures[0] == figures[1] and figures[0].epochs < 100
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name])


def test_split_keeps_trajectories_whole() -> None:
    """No trajectory has rows on both sides, and only training rows shape the standardisation."""
    rows = trace()
    held_out = split_by_trajectory(rows.trajectory, 0.2, seed=3)
    sides = [set(rows.trajectory[mask].tolist()) for mask in (held_out, ~held_out)]
    assert not sides[0] & sides[1] and len(sides[0]) == 4
    policy = ReusePolicy()
    PolicyTrainer(policy, budget=20.0, epochs=1, seed=3).fit(rows)
    torch.testing.assert_close(policy.mean, rows[~held_out].features.mean(0))


def test_false_reuse_costs_with_the_error() -> None:
    """The weight is 1 up to the budget, then reuse error over budget, at most the cap."""
    weights = PolicyTrainer(ReusePolicy(), budget=2.0).weights(torch.tensor([0.0, 2.0, 6.0, 1e9]))
    assert weights.tolist() == [1.0, 1.0, 3.0, 10.0]


def test_roc_auc() -> None:
    """The rank formula equals scipy's Mann-Whitney U, ties included."""
    generator = np.random.default_rng(0)
    scores, positive = generator.integers(0, 9, 200) / 9, generator.random(200) < 0.4
    u = mannwhitneyu(scores[positive], scores[~positive]).statistic
    assert roc_auc(scores, positive) == pytest.approx(u / (positive.sum() * (~positive).sum()))
    assert np.isnan(roc_auc(scores, np.ones(200, dtype=bool)))


def test_budget_threshold() -> None:
    """The threshold takes as many rows as keep the mean error within the budget, and no half of a tie."""
    scores, reuse_error = np.array([0.9, 0.8, 0.8, 0.1]), np.array([0.0, 1.0, 5.0, 9.0])
    assert budget_threshold(scores, reuse_error, 2.0) == 0.8
    assert budget_threshold(scores, reuse_error, 1.0) == 0.9
    assert budget_threshold(scores, reuse_error + 9, 1.0) > 0.9


@pytest.mark.parametrize("policy", policies(), ids=lambda p: type(p).__name__)
def test_saved_policy_is_the_same(policy: ReusePolicy, tmp_path: Path) -> None:
    """A policy read back has the same weights, standardisation, threshold, metrics and class."""
    policy.fit_standardisation(trace().features)
    policy.threshold, policy.metrics = 0.7, {"roc_auc": 0.9}
    policy.save(tmp_path)
    loaded = ReusePolicy.load(tmp_path)
    rows = torch.randn(LAYERS, 4)
    assert type(loaded) is type(policy) and torch.equal(loaded(rows), policy.eval()(rows))
    assert (loaded.threshold, loaded.metrics) == (0.7, {"roc_auc": 0.9})


def test_a_repr_shows_the_shape() -> None:
    """The repr of a policy shows layers, threshold, size and how well it ranks."""
    policy = ReusePolicy(hidden_dims=(8,), threshold=0.25)
    policy.metrics = {"roc_auc": 0.875}
    shape = "hidden_dims=(8,), dropout=0.1, threshold=0.25, parameters=49, roc_auc=0.875"
    assert repr(policy) == f"ReusePolicy({shape})"


def test_bad_policy_files(tmp_path: Path) -> None:
    """Missing, foreign or misshapen files are refused, with what is wrong and what is allowed."""
    path, about = tmp_path / "policy.safetensors", tmp_path / "policy.json"
    with pytest.raises(ValueError, match=r"policy = .* cannot be read"):
        ReusePolicy.load(tmp_path)
    ReusePolicy().save(tmp_path)
    with pytest.raises(ValueError, match=r"kind = 'ReusePolicy' .*allowed: LayerWiseReusePolicy"):
        LayerWiseReusePolicy.load(tmp_path)
    text = json.loads(about.read_text())
    about.write_text(json.dumps(text | {"features": ["entropy"]}))
    with pytest.raises(
        ValueError, match=r"features = \['entropy'\] is not allowed; allowed: entropy, log_snr"
    ):
        ReusePolicy.load(tmp_path)
    about.write_text(json.dumps(text | {"config": text["config"] | {"hidden_dims": [8]}}))
    with pytest.raises(ValueError, match=r"tensors = "):
        ReusePolicy.load(tmp_path)
    about.write_text(json.dumps(text))
    save_file(ReusePolicy().state_dict() | {"mean": torch.zeros(3)}, path)
    with pytest.raises(ValueError, match=r"weights that policy.json was saved with"):
        ReusePolicy.load(tmp_path)
    about.write_text(json.dumps({k: v for k, v in text.items() if k != "weights"}))
    with pytest.raises(ValueError, match=r"shape of mean = \(3,\) is not allowed; allowed: \(4,\)"):
        ReusePolicy.load(tmp_path)
    for name, value, problem in (
        ("net.0.bias", torch.nan, "NaN or infinity"),
        ("std", 0.0, "std = "),
    ):
        save_file(
            {k: v.fill_(value) if k == name else v for k, v in ReusePolicy().state_dict().items()}, path
        )
        with pytest.raises(DQARError, match=problem):
            ReusePolicy.load(tmp_path)
    about.write_text(json.dumps(text | {"config": text["config"] | {"hidden_dims": [10**9]}}))
    with pytest.raises(DQARError, match=r"hidden_dims = 1000000000 is not allowed"):
        ReusePolicy.load(tmp_path)
    about.write_text(json.dumps({k: v for k, v in text.items() if k != "weights"}))
    path.write_bytes(b"no tensors")
    with pytest.raises(ValueError, match=r"a readable safetensors file"):
        ReusePolicy.load(tmp_path)


def test_trace_file(tmp_path: Path) -> None:
    """A trace is read back as written, metadata too, and other files or shapes are refused."""
    rows = trace(2)
    rows.save(tmp_path / "trace.safetensors")
    loaded = Trace.load(tmp_path / "trace.safetensors")
    assert torch.equal(loaded.features, rows.features) and loaded.metadata == {"model": "made up"}
    with pytest.raises(ValueError, match=r"trace = .*cannot be read"):
        Trace.load(tmp_path / "none.safetensors")
    with pytest.raises(ValueError, match=r"features has shape \(3, 3\); allowed: \(3, 4\)"):
        Trace(torch.zeros(3, 3), torch.zeros(3), torch.zeros(3), torch.zeros(3))
    with pytest.raises(ValueError, match=r"reuse_error = -1"):
        Trace(torch.zeros(1, 4), torch.zeros(1), torch.zeros(1), torch.tensor([-1.0]))


def test_bad_training(tmp_path: Path) -> None:
    """A budget of 0, a single trajectory, and numbers that are none or not whole are refused; a pipe for
    a trace is not waited for."""
    for name, value in {
        "max_weight": math.nan,
        "epochs": 1.5,
        "patience": 0,
        "learning_rate": math.inf,
    }.items():
        with pytest.raises(DQARError, match=f"{name} = {value} is not allowed; allowed: "):
            PolicyTrainer(ReusePolicy(), 1.0, **{name: value})  # type: ignore[arg-type]
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DQARError, match=r"pipe.* is not a regular file"):
        Trace.load(tmp_path / "pipe")
    with pytest.raises(ValueError, match=r"budget = 0.0 is not allowed; allowed: "):
        PolicyTrainer(ReusePolicy(), budget=0.0)
    with pytest.raises(ValueError, match=r"validation_fraction = 0.2 of 1 trajectories"):
        PolicyTrainer(ReusePolicy(), budget=1.0).fit(trace(1))
