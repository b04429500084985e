"""Entropy agrees with its definition, and costs at most one host sync a step."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from conftest import generate
from diffusers import DiTPipeline
from torch.profiler import ProfilerActivity, profile

import dqar
from dqar import DQARConfig
from dqar.core.entropy import compute_attention_entropy, entropy_from_qk


def random_qk(dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    query, key = (2 * torch.randn(2, 3, 96, 16, generator=generator) for _ in range(2))
    return query.to(dtype), key.to(dtype)


def test_all_rows_agree_with_the_definition() -> None:
    """From q and k over all rows, entropy equals the definition on the full matrix to 1e-4."""
    query, key = random_qk()
    weights = (query @ key.transpose(-1, -2) / 4).softmax(-1)
    exact = compute_attention_entropy(weights)
    assert abs(entropy_from_qk(query, key, 0.25, stride=1) - exact) < 1e-4


@pytest.mark.parametrize("stride", [2, 4, 7])
def test_strided_rows_agree_within_their_sampling_error(stride: int) -> None:
    """A strided measurement lies within four standard errors of the mean over all rows."""
    query, key = random_qk()
    weights = (query @ key.transpose(-1, -2) / 4).softmax(-1)
    rows = -(weights * weights.log()).sum(-1)
    taken = rows[:, :, ::stride].numel()
    error = (entropy_from_qk(query, key, 0.25, stride) - rows.mean()).abs()
    assert 0 < error < 4 * rows.std() / math.sqrt(taken)


def test_bounds() -> None:
    """Uniform attention has entropy ln(keys), attention to one key has none."""
    query = torch.zeros(1, 1, 8, 4)
    assert entropy_from_qk(query, torch.randn(1, 1, 32, 4), 1.0) == pytest.approx(math.log(32), abs=1e-5)
    one_hot = torch.eye(8).expand(1, 1, 8, 8)
    assert abs(compute_attention_entropy(one_hot)) < 1e-6


def test_low_precision_is_measured_in_float32() -> None:
    """Half-precision q and k give the entropy of the same numbers in float32, to 1e-2 nats."""
    query, key = random_qk(torch.bfloat16)
    exact = entropy_from_qk(query.float(), key.float(), 0.25)
    measured = entropy_from_qk(query, key, 0.25)
    assert measured.dtype == torch.float32
    assert abs(measured - exact) < 1e-2


def test_run_measures_what_the_model_attends_to(pipe: DiTPipeline) -> None:
    """The entropies of a traced run are those of the layers' own attention weights at that step."""
    dqar.enable(pipe, DQARConfig.preset("maximum", trace_entropy=True, entropy_stride=1, layer_fraction=0))
    seen: list[float] = []

    def weigh(attention: Any, args: tuple[torch.Tensor, ...]) -> None:
        query, key = (attention.head_to_batch_dim(p(args[0])) for p in (attention.to_q, attention.to_k))
        seen.append(float(compute_attention_entropy(attention.get_attention_scores(query, key))))

    hooks = [b.attn1.register_forward_pre_hook(weigh) for b in pipe.transformer.transformer_blocks]
    generate(pipe)
    for hook in hooks:
        hook.remove()
    assert np.allclose(dqar.summary(pipe).entropy.ravel(), seen, atol=1e-4)


def host_syncs(pipe: DiTPipeline, steps: int) -> int:
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        generate(pipe, steps=steps)
    # The raw events: to make objects of them all, as `key_averages` does, takes seconds.
    events = profiler.profiler.kineto_results.events()
    return sum(event.name() == "aten::_local_scalar_dense" for event in events)


def test_at_most_one_host_sync_a_step(pipe: DiTPipeline) -> None:
    """With or without an entropy gate, a run makes at most one scalar read a step more than without."""
    steps = 6
    untouched = host_syncs(pipe, steps)
    assert untouched >= steps  # the pipeline's own
    for threshold in (math.inf, 2.72):
        dqar.enable(pipe, DQARConfig.preset("maximum", entropy_threshold=threshold))
        assert host_syncs(pipe, steps) <= untouched + steps, threshold
        assert dqar.summary(pipe).ratio > 0


def test_entropy_gate_follows_the_measured_entropy(pipe: DiTPipeline) -> None:
    """A layer is reused exactly where its last measured entropy is below the threshold."""
    dqar.enable(pipe, DQARConfig.preset("maximum", trace_entropy=True, warmup_fraction=0.0, max_age=1))
    generate(pipe)
    typical = float(np.nanmedian(dqar.summary(pipe).entropy))
    dqar.enable(
        pipe,
        DQARConfig.preset("maximum", entropy_threshold=typical, use_layer_scheduling=False, max_age=1),
    )
    generate(pipe)
    summary = dqar.summary(pipe)
    assert 0 < summary.ratio < summary.plan_ratio
    for step, layer in zip(*np.nonzero(summary.map), strict=True):
        before = summary.entropy[:step, layer]
        assert before[np.isfinite(before)][-1] < typical
    assert summary.reasons["entropy"] > 0


@pytest.mark.parametrize("interval", [1, 4])
def test_entropy_is_measured_at_intervals(pipe: DiTPipeline, interval: int) -> None:
    """A layer that is computed at every step is measured at the first, and then every so many steps."""
    fields = {"use_layer_scheduling": False, "warmup_fraction": 0.0, "entropy_threshold": 0.0}
    dqar.enable(pipe, DQARConfig.preset("maximum", **fields, entropy_interval=interval))
    generate(pipe, steps=20)
    measured = np.isfinite(dqar.summary(pipe).entropy)
    steps = np.flatnonzero(measured.all(axis=1))
    assert (measured.any(axis=1) == measured.all(axis=1)).all()
    assert steps.tolist() == list(range(0, 19, interval))  # at the last step no decision waits for it


def test_what_entropy_has_forbidden_is_not_kept(pipe: DiTPipeline) -> None:
    """Until a layer is measured again no entry is made that its known entropy forbids; where it allows,
    the decisions are those of a gate that keeps everything."""
    base = {"use_layer_scheduling": False, "warmup_fraction": 0.0, "max_age": 1, "entropy_stride": 1}
    kept: dict[float, list[int]] = {}
    for threshold in (0.0, 2.72):
        config = DQARConfig.preset("maximum", **base, entropy_threshold=threshold, entropy_interval=4)
        dqar.enable(pipe, config)
        manager, kept[threshold] = pipe._dqar.manager, []
        seen = kept[threshold]
        hook = pipe.transformer.transformer_blocks[0].register_forward_pre_hook(
            lambda *_, seen=seen, manager=manager: seen.append(sum(manager.active.decision.keep))
        )
        generate(pipe)
        hook.remove()
    assert kept[0.0] == [6, 0, 0, 0, 6, 0, 0, 0, 6, 0]
    assert 0 < dqar.summary(pipe).ratio < 0.5 and sum(kept[2.72]) > sum(kept[0.0])
