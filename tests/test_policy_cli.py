"""A policy is traced, trained and compared: reuse errors and features are those of the runtime itself."""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from diffusers import HeunDiscreteScheduler
from test_entropy import host_syncs
from typer.testing import CliRunner

import dqar
from bench.cli.main import app
from bench.cli.policy import SHIPPED
from bench.errors import BadInput
from bench.pipeline import models
from bench.pipeline.session import Session, final_latents
from bench.spec.prompts import Prompts
from bench.studies.policy.comparison import (
    OPEN,
    POLICY,
    EqualReuse,
    RandomMask,
    Recorder,
    candidates,
    enabled,
)
from bench.studies.policy.evaluate import search
from bench.studies.policy.report import headline, verdict
from bench.studies.policy.session import open_session
from bench.studies.policy.trace import Trajectory, by_hand, rank_correlation, trace
from bench.studies.policy.train import load_policy, predicted, train
from dqar import DQARConfig
from dqar.policy.mlp_policy import LayerWiseReusePolicy
from dqar.training.traces import NOT_MEASURED, Trace

STEPS, LAYERS, GUIDANCE = 10, 6, 4.0


@pytest.fixture
def session(tiny_model_dir: Path) -> Session:
    return open_session(str(tiny_model_dir), STEPS, GUIDANCE, seed=0, evaluation=False)


@pytest.fixture(scope="module")
def rows(tiny_model_dir: Path) -> Trace:
    opened = open_session(str(tiny_model_dir), STEPS, GUIDANCE, seed=0, evaluation=False)
    return trace(opened, trajectories=5, finals=4, progress=False)


@pytest.fixture(scope="module")
def policy_dir(rows: Trace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("policy")
    train(rows, budget=None, progress=False)[0].policy.save(directory)
    return directory


def learned(directory: Path, threshold: float | None = None) -> DQARConfig:
    return DQARConfig(
        **OPEN,
        use_learned_policy=True,
        policy_path=str(directory),
        reuse_threshold=threshold,
        max_age=2,
    )


def test_every_step_and_layer_is_traced(rows: Trace) -> None:
    """A row for each layer at each step but the first, all errors positive, some followed to the end."""
    assert len(rows.reuse_error) == 5 * (STEPS - 1) * LAYERS
    assert (rows.reuse_error > 0).all()
    assert rows.trajectory.unique().tolist() == [0, 1, 2, 3, 4]
    known = rows.final_reuse_error.isfinite()
    assert known.sum() == 5 * 4 and (rows.final_reuse_error[known] > 0).all()
    assert rank_correlation(rows)[1] == 20
    assert 2 not in rows.metadata["numbers"] and rows.metadata["seeds"] == [0, 5]


def test_unchanged_output_has_no_reuse_error(session: Session) -> None:
    """Where a layer's attention gives the same at every step, its reuse changes nothing; others' does."""
    projection = session.pipe.transformer.transformer_blocks[3].attn1.to_out[0]
    torch.nn.init.zeros_(projection.weight)
    found = trace(session, trajectories=1, finals=0, progress=False)
    assert (found.reuse_error[found.layer == 3] == 0).all()
    assert (found.reuse_error[found.layer != 3] > 0).all()


def test_a_trajectory_is_the_stock_pipelines(session: Session) -> None:
    """With nothing reused the final latent is the pipeline's own, and the pipeline is restored after; what is
    replayed up to a single reuse ends where a run that computes all but that reuse ends."""
    with final_latents(session.pipe) as seen:
        session.pipe(**session.arguments(range(1)))
    transformer = session.pipe.transformer
    before = [block.attn1.processor for block in transformer.transformer_blocks]
    outputs: list[Any] = []
    with by_hand(session.pipe) as manual, torch.no_grad():
        trajectory = Trajectory(session, manual, 0)

        def computed(step: int, model: Any) -> Any:
            outputs.append(trajectory.predict(model))
            return outputs[-1]

        final = trajectory.run(computed)
        once = trajectory.run(
            lambda step, model: trajectory.predict(model, (2,) if step == 4 else (), keep=True)
        )
        replayed = trajectory.reusing(outputs, at=4, layer=2)
    assert torch.equal(final, seen[0]) and torch.equal(once, replayed) and not torch.equal(once, final)
    assert [block.attn1.processor for block in transformer.transformer_blocks] == before
    assert "forward" not in vars(transformer)


def test_a_model_called_more_than_once_a_step_is_refused(session: Session) -> None:
    """A trace would take the second call for another step: one line instead, and the pipeline is restored."""
    session.pipe.scheduler = HeunDiscreteScheduler.from_config(session.pipe.scheduler.config)
    with pytest.raises(BadInput, match="policy: DiTPipeline calls its model more than once a step"):
        trace(session, trajectories=1, finals=0, progress=False)
    assert "forward" not in vars(session.pipe.transformer)


def check_features(session: Session, rows: Trace, directory: Path) -> None:
    recorder = Recorder(load_policy(directory))
    nothing = learned(directory, threshold=1.0).replace(entropy_interval=1)  # as a trace measures
    with enabled(session.pipe, nothing, recorder):
        session.pipe(**session.arguments(range(1)))
        assert not dqar.summary(session.pipe).map.any()
    traced = rows.features[rows.trajectory == 0].reshape(STEPS - 1, -1, 4)
    torch.testing.assert_close(traced, torch.stack(recorder.rows)[1:], rtol=1e-6, atol=1e-6)


def test_features_are_those_of_the_running_gate(session: Session, rows: Trace, policy_dir: Path) -> None:
    """A gated run of the same image that reuses nothing shows its policy the traced features at each step."""
    check_features(session, rows, policy_dir)


def test_a_policy_of_prompts(tmp_path: Path) -> None:
    """On a flow with prompts a policy is traced and trained as on labels: its features are those of the
    running gate, every error is positive, and no prompt of the training is one of the evaluation's."""
    prompts = Prompts.read("emoji")
    session = open_session("embedded-t2i", STEPS, GUIDANCE, seed=0, evaluation=False, prompts=prompts)
    found = trace(session, trajectories=4, finals=4, progress=False)
    assert (found.reuse_error > 0).all() and (
        found.final_reuse_error[found.final_reuse_error.isfinite()] > 0
    ).all()
    train(found, budget=None, progress=False)[0].policy.save(tmp_path)
    check_features(session, found, tmp_path)
    unseen = open_session("embedded-t2i", STEPS, GUIDANCE, seed=9, evaluation=True, prompts=prompts)
    assert found.metadata["of"] == "prompts" and not set(found.metadata["numbers"]) & set(unseen.labels)


def test_trained_policy_runs_with_one_sync_a_step(session: Session, policy_dir: Path) -> None:
    """trace, train, enable: the policy reuses something, and reads the device at most once a step."""
    untouched = host_syncs(session.pipe, STEPS)
    dqar.enable(session.pipe, learned(policy_dir))
    assert host_syncs(session.pipe, STEPS) <= untouched + STEPS
    summary = dqar.summary(session.pipe)
    assert summary.ratio > 0 and summary.reasons["policy"] > 0


def test_replay_predicts_the_measured_ratio(session: Session, policy_dir: Path) -> None:
    """The gate on recorded features chooses nearly what it does in a run; only recording drifts by 0."""
    policy = load_policy(policy_dir)
    comparison = EqualReuse(session, policy_dir, n=2, max_age=2, progress=False)
    assert comparison.control == 0
    for candidate in candidates(policy, policy_dir, comparison.highest_entropy()):
        parameter = search(
            functools.partial(comparison.replay, candidate), candidate.no_reuse, candidate.most_reuse, 0.15
        )
        measured = comparison.measure(candidate, parameter)
        assert measured.ratio.mean() == pytest.approx(comparison.replay(candidate, parameter), abs=0.1), (
            candidate.name
        )
        assert (measured.drift > 0).all() and comparison.replay(candidate, candidate.no_reuse) <= 1 / STEPS, (
            candidate.name
        )


def test_search_finds_the_value() -> None:
    """A ratio that rises towards an end, on either side; that end itself where even it is too little."""
    assert search(lambda k: 1 - k, 1.0, 0.0, 0.3) == pytest.approx(0.7, abs=0.001)
    assert search(lambda k: k / 4, 0.0, 1.0, 0.1) == pytest.approx(0.4, abs=0.01)
    assert search(lambda k: k / 4, 0.0, 1.0, 0.3) == 1.0


def test_random_mask_repeats() -> None:
    """One seed, one mask."""
    first, again, other = (RandomMask(seed)(torch.zeros(64, 4)) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_the_headline_states_when_the_policy_loses() -> None:
    """The verdict is the paired interval's, and a row off its target takes no part."""
    shared: dict[str, Any] = {"bits": 16, "target": 0.15}
    rows = [
        shared | {"method": POLICY, "over_policy": None},
        shared | {"method": "schedule alone", "over_policy": {"mean": -2, "low": -3, "high": -1}},
        shared | {"method": "random mask", "over_policy": {"mean": 2, "low": 1, "high": 3}},
        shared | {"method": "SNR + entropy", "over_policy": None},
    ]
    assert [verdict(row) for row in rows[1:3]] == ["worse", "better"]
    output = headline(rows)
    assert (
        "drifts more than the schedule alone (15%)" in output
        and "drifts less than the random mask (15%)" in output
    )
    assert "entropy" not in output


def test_final_error_is_predicted_from_the_step_and_its_time() -> None:
    """Where reuse error grows by exp(3 t) to the end, a few rows followed there predict it for all."""
    features = torch.rand(60, 4, generator=torch.Generator().manual_seed(0))
    reuse_error, growth = features[:, 0] + 0.1, (3 * features[:, 3]).exp()
    followed = torch.where(torch.arange(60) % 3 == 0, reuse_error * growth, torch.nan)
    rows = Trace(
        features, torch.arange(60) % 2, torch.arange(60) // 6, reuse_error, final_reuse_error=followed
    )
    every = torch.ones(60, dtype=torch.bool)
    torch.testing.assert_close(predicted(rows, every).reuse_error, reuse_error * growth, rtol=1e-3, atol=0)


def run(*arguments: object) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["policy", *map(str, arguments)])
    return done.exit_code, done.output


def test_the_policy_that_ships_reuses_on_the_model_that_ships() -> None:
    """It was trained on that very model, is small, and in the gate reuses some layers and refuses others."""
    opened = open_session("embedded", STEPS, GUIDANCE, seed=100, evaluation=True)
    policy = load_policy(SHIPPED)
    assert policy.metrics["trace"]["fingerprint"] == models.fingerprint(opened.spec)
    assert sum(p.numel() for p in policy.parameters()) < 500_000
    dqar.enable(opened.pipe, learned(SHIPPED).replace(num_layers=policy.num_layers))
    opened.pipe(**opened.arguments(range(1)))
    summary = dqar.summary(opened.pipe)
    assert summary.reasons["reused"] > 0 and summary.reasons["policy"] > 0


@pytest.mark.slow
def test_commands_end_to_end(tiny_model_dir: Path, tmp_path: Path) -> None:
    """The three commands in a row leave a trace, a policy, metrics and a page with its plot."""
    file, directory = tmp_path / "trace.safetensors", tmp_path / "policy"
    model = ("--model", tiny_model_dir, "--steps", 8)
    code, output = run("trace", *model, "--trajectories", 4, "--finals", 3, "--out", file)
    assert code == 0 and "Spearman" in output and "n = 12" in output
    code, output = run("train", "--trace", file, "--out", directory)
    assert code == 0 and "roc_auc" in output and (directory / "policy.safetensors").exists()
    reports = ("--reports", tmp_path / "reports", "--results", tmp_path / "results")
    code, output = run("eval", "--policy", directory, *model, "--n", 2, "--targets", "0.2", *reports)
    assert code == 0, output
    (figures,) = (tmp_path / "results").rglob("comparison.json")
    assert len(json.loads(figures.read_text())["rows"]) == 4 * 2
    page = (tmp_path / "reports/policy/README.md").read_text()
    assert "**Summary:**" in page and str(tmp_path) not in page + figures.read_text()
    assert (tmp_path / "reports/policy/drift.webp").stat().st_size > 10_000
    assert len(pd.read_csv(tmp_path / "reports/policy/methods.csv")) == 4 * 2


def test_bad_input_is_one_line(tiny_model_dir: Path, rows: Trace, policy_dir: Path, tmp_path: Path) -> None:
    """Each names the file or field, the value and what is allowed, and exits with 2."""
    broken, alone, few = (tmp_path / f"{name}.safetensors" for name in ("broken", "alone", "few"))
    other = tmp_path / "other"
    broken.write_bytes(b"no trace")
    rows[rows.trajectory == 0].save(alone)
    dataclasses.replace(rows[rows.trajectory < 2], final_reuse_error=NOT_MEASURED).save(few)
    LayerWiseReusePolicy(LAYERS + 1).save(other)
    model = ("--model", tiny_model_dir)
    cases = {
        ("trace", "--trajectories", 1): "trajectories: 1 is not allowed; allowed: 2 or more",
        ("trace", "--steps", 1): "steps: 1 is not allowed",
        ("trace", "--guidance", 1.0): "guidance: 1.0 is not allowed; allowed: above 1",
        ("trace", "--seed", -1, *model): "seed: -1 is not allowed",
        ("trace", "--model", tmp_path / "nowhere"): "nowhere",
        ("train", "--trace", broken): "broken.safetensors",
        ("train", "--trace", alone, "--out", tmp_path): "1 trajectories is not allowed",
        ("train", "--trace", few, "--budget", -1.0, "--step"): "budget = -1.0 is not allowed; allowed",
        ("train", "--trace", few): "0 usable final reuse errors; needed: 6 or more, or --step",
        ("eval", "--targets", "2"): "targets: '2' is not allowed; allowed",
        ("eval", "--policy", tmp_path / "none"): "policy",
        ("eval", "--policy", other, *model): "for 7 layers; allowed: 6",
        ("eval", "--policy", policy_dir, "--seed", 3, *model): "seed: 3 is not allowed; allowed: 5 or more",
    }
    for arguments, expected in cases.items():
        code, output = run(*arguments)
        *loading, line = output.strip().splitlines()  # diffusers' progress bars, where a model was loaded
        assert code == 2 and expected in line and not any("Traceback" in x for x in loading), output
