"""Reuse of MLPs, forecasts, and guidance with one branch: under one plan, gate, cache and configuration."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import build_tiny_pipeline, decisions_of, generate
from diffusers import DiTPipeline, DPMSolverMultistepScheduler, HeunDiscreteScheduler
from torch._dynamo.utils import counters

import dqar
from bench.measure import paired
from bench.pipeline.session import Session
from bench.spec.run_spec import RunSpec
from dqar import DQARConfig
from dqar.cache.divided_differences import Forecast, InterpolationNodes
from dqar.core.quantization import KVQuantizer
from dqar.core.snr import schedule_snr
from dqar.integration.output_forecast import OutputForecaster, StepPosition
from dqar.plan import BOTH
from dqar.policy.saved_plan import SavedPlan

ALL: dict[str, Any] = {
    "targets": "both", "forecast_order": 1, "guidance_interval": 4, "max_age": 1,
    "use_layer_scheduling": False,
}  # fmt: skip


def rows_of(pipe: Any, **call: Any) -> dict[str, list[int]]:
    """Rows of each call of the first block, of its attention's and of its MLP's linear layers."""
    block = pipe.transformer.transformer_blocks[0]
    parts = {"block": block, "attention": block.attn1.to_q, "mlp": block.ff.net[0].proj}
    seen: dict[str, list[int]] = {name: [] for name in parts}
    hooks = [
        part.register_forward_pre_hook(lambda _, args, name=name: seen[name].append(len(args[0])))
        for name, part in parts.items()
    ]
    generate(pipe, **call)
    for hook in hooks:
        hook.remove()
    return seen


@pytest.mark.parametrize(("targets", "saved"), [("attention", (1, 0)), ("mlp", (0, 1)), ("both", (1, 1))])
def test_a_target_is_not_computed_where_it_is_reused(
    pipe: DiTPipeline, targets: str, saved: tuple[int, int]
) -> None:
    """A reuse leaves out attention, MLP or both, as often as the map has it, and nothing else."""
    dqar.enable(pipe, DQARConfig.preset("maximum", targets=targets, max_age=2))
    seen = rows_of(pipe)
    reused = int(dqar.summary(pipe).map[:, 0].sum())
    assert reused > 0
    assert (len(seen["attention"]), len(seen["mlp"])) == (10 - saved[0] * reused, 10 - saved[1] * reused)


@pytest.mark.parametrize("targets", ["mlp", "both", ("attention", "mlp", "both") * 2])
def test_forbidden_or_removed_is_bit_identical(pipe: DiTPipeline, targets: Any) -> None:
    """With MLPs as targets too, a plan without reuse, and `disable`, give the untouched latents."""
    untouched = generate(pipe)
    forwards = [block.ff.__dict__.get("forward") for block in pipe.transformer.transformer_blocks]
    config = DQARConfig.preset("maximum", **ALL | {"targets": targets})
    dqar.enable(pipe, config.replace(warmup_steps=1000))
    assert torch.equal(generate(pipe), untouched)
    dqar.enable(pipe, config)
    assert not torch.equal(generate(pipe), untouched)
    dqar.disable(pipe)
    assert torch.equal(generate(pipe), untouched)
    assert [b.ff.__dict__.get("forward") for b in pipe.transformer.transformer_blocks] == forwards


@pytest.mark.parametrize("order", [0, 1, 2])
def test_a_polynomial_is_forecast_exactly(order: int) -> None:
    """Values on a polynomial of the forecast's order, at uneven nodes, are forecast to rounding."""
    factors = torch.randn(order + 1, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    off, nodes, stored = KVQuantizer(bits=16), InterpolationNodes(1, order), None
    for position in (-4.0, -3.1, -2.7, -1.0):
        value = sum(factor * position**k for k, factor in enumerate(factors))
        assert isinstance(value, torch.Tensor)
        rates = [torch.tensor(x, dtype=torch.float64) for x in nodes.row(0, position, reused=False)]
        stored = stored.advanced(value, rates, off) if stored else Forecast(value)
        nodes.computed(0, position)
    assert stored is not None
    weights = [torch.tensor(x, dtype=torch.float64) for x in nodes.row(0, 0.5, reused=True)]
    expected = sum(factor * 0.5**k for k, factor in enumerate(factors))
    assert len(weights) == len(stored.differences) == order
    torch.testing.assert_close(stored.at(weights, off), expected)


def drifts(*candidates: dict[str, Any]) -> Iterator[tuple[float, int]]:
    """Drift of two images of the embedded model in 20 steps under each one's options, and the bytes its
    cache held at most."""
    spec = RunSpec(
        suite="t", name="t", method="dqar", model="embedded", num_inference_steps=20, batch_size=2
    )  # fmt: skip
    opened = Session.open(spec)
    baseline = opened.baseline(range(2)).latents
    for candidate in candidates:
        options = {"preset": "maximum", "use_layer_scheduling": False, "max_age": 1} | candidate
        session = opened.under(spec.model_copy(update={"options": options}))
        latents = session.candidate(range(2)).latents
        yield float(paired.drift(latents, baseline).mean()), session.cache_bytes


@pytest.mark.slow
def test_int8_differences_keep_the_forecast_below_reuse() -> None:
    """On the trained model a line with int8 differences drifts less than holding does, and hardly more than
    one with full ones; it holds the value and a byte a number more."""
    (held, _), (full, full_bytes), (small, small_bytes) = drifts(
        {"quantization_bits": 16},
        {"quantization_bits": 16, "forecast_order": 1},
        {"quantization_bits": 8, "forecast_order": 1},
    )
    assert small < 0.7 * held
    assert small == pytest.approx(full, rel=0.05)
    numbers = full_bytes / 8  # value and difference in float32
    scales = 4 * 12
    assert small_bytes == numbers * 5 + scales


def test_guidance_with_one_branch_halves_the_rows(pipe: DiTPipeline) -> None:
    """On the steps that the summary names, the blocks see the conditional half alone; each interval runs
    both once, and warm-up always does."""
    dqar.enable(pipe, DQARConfig.preset("maximum", layer_fraction=0.0, guidance_interval=3))
    seen, alone = rows_of(pipe)["block"], dqar.summary(pipe).conditional_only
    assert seen == [2 if single else 4 for single in alone]
    assert alone.tolist() == [False] * 2 + [True, True, False] * 2 + [True, True]


def test_without_guidance_the_interval_changes_nothing(pipe: DiTPipeline) -> None:
    """A call with guidance 1 has one branch: it is bit-identical to that without an interval."""
    untouched = generate(pipe, guidance_scale=1.0)
    dqar.enable(pipe, DQARConfig.preset("maximum", layer_fraction=0.0, guidance_interval=3))
    assert torch.equal(generate(pipe, guidance_scale=1.0), untouched)
    assert not dqar.summary(pipe).conditional_only.any()


def test_a_difference_that_does_not_change_is_forecast_exactly(pipe: DiTPipeline) -> None:
    """Where both branches are the same class, guidance adds nothing, and leaving one out loses nothing."""
    null = (1000, 1000)
    untouched = generate(pipe, null)
    dqar.enable(pipe, DQARConfig.preset("maximum", layer_fraction=0.0, guidance_interval=4))
    latents = generate(pipe, null)
    assert dqar.summary(pipe).conditional_only.any()
    torch.testing.assert_close(latents, untouched, rtol=1e-4, atol=1e-4 * float(untouched.abs().max()))


@pytest.mark.parametrize("interval", [1, 2, 4])
@pytest.mark.parametrize("solver", [None, DPMSolverMultistepScheduler, HeunDiscreteScheduler])
def test_the_plan_predicts_the_map(pipe: DiTPipeline, interval: int, solver: Any) -> None:
    """All together, on any solver: the printed plan is what runs, twice alike, and full steps compute."""
    if solver:
        pipe.scheduler = solver.from_config(pipe.scheduler.config)
    config = DQARConfig.preset("maximum", **ALL | {"guidance_interval": interval})
    dqar.enable(pipe, config)
    first = generate(pipe)
    summary = dqar.summary(pipe)
    assert summary.ratio > 0 and torch.isfinite(first).all()
    assert np.array_equal(summary.map, dqar.plan(config, pipe.scheduler, 10, 6))
    if interval > 1:
        assert not summary.map[~summary.conditional_only].any()
    assert torch.equal(generate(pipe), first)


@pytest.mark.slow
def test_compiled_as_eager() -> None:
    """MLPs, forecasts and single branches compile as one graph for each set of step decisions and rows."""
    pipe = build_tiny_pipeline(layers=2)  # the compiler's time grows with layers times variants
    torch._dynamo.reset()
    counters.clear()
    config = DQARConfig.preset("maximum", **ALL)
    dqar.enable(pipe, config)
    eager = generate(pipe)
    dqar.disable(pipe)
    pipe.transformer = torch.compile(pipe.transformer, fullgraph=True, backend="eager", dynamic=False)
    dqar.enable(pipe, config)
    with decisions_of(pipe) as decisions:
        latents = generate(pipe)
    graphs = counters["stats"]["unique_graphs"]
    assert torch.allclose(latents, eager, rtol=1e-4, atol=1e-4 * float(eager.abs().max()))
    generate(pipe)
    assert counters["stats"]["unique_graphs"] == graphs == len(decisions) > 2


def saved(directory: Path, reuse: np.ndarray[Any, Any], branches: Any = None, **parts: Any) -> str:
    path = directory / "plan.json"
    given = np.full(len(reuse), 2) if branches is None else np.array(branches)
    SavedPlan(reuse, given.astype(np.int8), **parts).save(path)
    return str(path)


def test_a_saved_plan_is_what_runs(pipe: DiTPipeline, tmp_path: Path) -> None:
    """The file's table, branches and options run as they stand, whatever the configuration's own rules would
    say; its full steps compute, and entries outlive a step that is skipped."""
    branches = [2, 2, 2, 1, 1, 0, 1, 2, 1, 0]
    reuse = np.zeros((10, 6), dtype=np.bool_)
    reuse[[4, 6]] = True
    reuse[8, ::2] = True
    facts = {"found": "by hand"}
    options = {"targets": "both", "forecast_order": 1, "forecast_over": "step", "output_order": 2}
    path = saved(tmp_path, reuse, branches, facts=facts, options=options)
    config = DQARConfig(plan_path=path, snr_low=1e9, warmup_steps=99)
    dqar.enable(pipe, config)
    seen = rows_of(pipe)
    summary = dqar.summary(pipe)
    reuse[8] = reuse[[5, 9]] = False  # nothing is kept by the full step before it; skipped as a whole
    skipped = np.array(branches) == 0
    expected = reuse | skipped[:, None]
    expected[8, ::2] = True
    assert np.array_equal(summary.map, expected) and np.array_equal(summary.branches, branches)
    assert seen["block"] == [2 * n for n in branches if n]
    assert len(seen["mlp"]) == 8 - 2 - 1
    assert np.array_equal(dqar.plan(config, pipe.scheduler, 10, 6), expected)
    again = SavedPlan.load(path)
    assert again.facts == facts and again.options == options


def test_data_may_still_forbid_what_a_plan_allows(pipe: DiTPipeline, tmp_path: Path) -> None:
    """An entropy gate on top of a plan takes back reuses, and adds none."""
    reuse = np.arange(10)[:, None].repeat(6, 1) % 2 == 1
    path = saved(tmp_path, reuse)
    dqar.enable(pipe, DQARConfig(plan_path=path, entropy_threshold=2.72, entropy_stride=1))
    generate(pipe)
    reuse_map = dqar.summary(pipe).map
    assert reuse_map.any() and not (reuse_map & ~reuse).any() and (reuse & ~reuse_map).any()


def test_a_plan_of_another_shape_or_none_is_refused(pipe: DiTPipeline, tmp_path: Path) -> None:
    """Other layers are refused when it is switched on, other steps when a generation begins, and what is no
    plan when it is read; each in one line."""
    path = saved(tmp_path, np.zeros((10, 5), dtype=np.bool_))
    with pytest.raises(ValueError, match="the plan is for 10 steps and 5 layers"):
        dqar.enable(pipe, DQARConfig(plan_path=path))
    path = saved(tmp_path, np.zeros((9, 6), dtype=np.bool_))
    dqar.enable(pipe, DQARConfig(plan_path=path))
    with pytest.raises(ValueError, match="for 9 steps and 6 layers; this generation has 10 and 6"):
        generate(pipe)
    (tmp_path / "plan.json").write_text('{"format": "other"}')
    with pytest.raises(ValueError, match=r"plan.json' is no plan: format = 'other' is not allowed"):
        dqar.enable(pipe, DQARConfig(plan_path=path))
    with pytest.raises(ValueError, match="cannot be read"):
        dqar.enable(pipe, DQARConfig(plan_path=str(tmp_path / "none.json")))
    with pytest.raises(ValueError, match="a first step that reuses"):
        SavedPlan(np.ones((2, 6), dtype=np.bool_), np.full(2, 2, dtype=np.int8))
    with pytest.raises(ValueError, match="option = 'snr_low' is not allowed; allowed: targets, "):
        saved(tmp_path, np.zeros((10, 6), dtype=np.bool_), options={"snr_low": 1.0})
    with pytest.raises(
        ValueError, match=r"expected = .* is not allowed; allowed: a finite number above 0 for each step"
    ):
        saved(tmp_path, np.zeros((10, 6), dtype=np.bool_), expected=np.zeros(10))


def test_a_skipped_step_runs_nothing(pipe: DiTPipeline) -> None:
    """Past the warm-up the model runs at every third step only, half of these without the unconditional
    branch; plan and summary report it, and the output is one that the scheduler takes, guided or not."""
    config = DQARConfig.preset("maximum", layer_fraction=0.0, step_interval=3, guidance_interval=2)
    dqar.enable(pipe, config)
    assert rows_of(pipe)["block"] == [4, 4, 2, 4]
    summary = dqar.summary(pipe)
    assert summary.branches.tolist() == [2, 2, 0, 0, 1, 0, 0, 2, 0, 0]
    assert summary.ratio == summary.plan_ratio == 0.6 and summary.reasons["skipped"] == 36
    assert rows_of(pipe, guidance_scale=1.0)["block"] == [2] * 4


@pytest.mark.parametrize("solver", [None, DPMSolverMultistepScheduler, HeunDiscreteScheduler])
def test_skipped_steps_leave_no_trace(pipe: DiTPipeline, solver: Any) -> None:
    """On any solver a second run is the first one again, and what `disable` leaves is bit-identical."""
    if solver:
        pipe.scheduler = solver.from_config(pipe.scheduler.config)
    untouched = generate(pipe)
    dqar.enable(pipe, DQARConfig.preset("maximum", step_interval=2))
    first = generate(pipe)
    assert torch.isfinite(first).all() and not torch.equal(first, untouched)
    assert torch.equal(generate(pipe), first)
    dqar.disable(pipe)
    assert torch.equal(generate(pipe), untouched) and "forward" not in vars(pipe.transformer)


def _polynomial(factors: torch.Tensor, x: float) -> torch.Tensor:
    return torch.stack([factor * x**i for i, factor in enumerate(factors)]).sum(dim=0)


def test_an_output_that_follows_the_polynomial_is_forecast_exactly() -> None:
    """Outputs on a polynomial of the order are forecast to rounding, whichever half is the conditional one;
    where a position comes twice, the forecast begins again."""
    shape, generator = (2, 4, 3, 3), torch.Generator().manual_seed(0)
    factors = torch.randn(3, 4, *shape[1:], dtype=torch.float64, generator=generator)
    for half, order in ((0, 1), (1, 2), (None, 2)):
        outputs = OutputForecaster(half, order)
        value = functools.partial(_polynomial, factors[: order + 1])
        for position in (-4.0, -3.1, -2.7, -1.0):
            outputs.completed((value(position),), StepPosition(position, 1.0), BOTH)
        torch.testing.assert_close(outputs.forecast(StepPosition(0.5, 1.0))[0], value(0.5))
        outputs.completed((value(-1.0) + 1,), StepPosition(-1.0, 1.0), BOTH)
        torch.testing.assert_close(outputs.forecast(StepPosition(0.5, 1.0))[0], value(-1.0) + 1)


def test_a_deviating_batch_is_recomputed(pipe: DiTPipeline, tmp_path: Path) -> None:
    """Where the last forecast was off by more than the tolerance, a step that the plan skips runs; what
    the plan expects is the unit, and an infinite tolerance never looks."""
    branches = [2, 2, 2, 0, 2, 0, 2, 0, 2, 0]
    ran = {}
    for tolerance, expected in ((float("inf"), 1.0), (0.0, 1.0), (1e3, 1.0), (1e3, 1e-9)):
        path = saved(tmp_path, np.zeros((10, 6), dtype=np.bool_), branches, expected=np.full(10, expected))
        dqar.enable(pipe, DQARConfig(plan_path=path, deviation_tolerance=tolerance))
        generate(pipe)
        ran[tolerance, expected] = int((dqar.summary(pipe).branches > 0).sum())
    assert ran == {(float("inf"), 1.0): 6, (0.0, 1.0): 10, (1e3, 1.0): 6, (1e3, 1e-9): 10}
    assert dqar.summary(pipe).reasons["deviation"] == 4 * 6


def test_model_steps_are_spread_over_log_snr(pipe: DiTPipeline) -> None:
    """So many steps run, first and last among them, whatever the warm-up; by number they are even, by log-SNR
    their gaps in it are; every second one runs both branches if asked to."""
    pipe.scheduler.set_timesteps(50)
    log_snr = np.log(schedule_snr(pipe.scheduler))
    for share, places in ((0.0, np.arange(50.0)), (1.0, log_snr)):
        config = DQARConfig.preset("maximum", layer_fraction=0.0, model_steps=11, log_snr_share=share)
        ran = np.flatnonzero(~dqar.plan(config, pipe.scheduler, 50, 6).all(axis=1))
        assert len(ran) == 11 and (ran[0], ran[-1]) == (0, 49)
        gaps, finest = np.diff(places[ran]), np.diff(places).max()
        assert gaps.max() - gaps[:-3].min() <= 2 * finest
    dqar.enable(pipe, DQARConfig(model_steps=5, guidance_interval=2, warmup_fraction=0.9))
    generate(pipe)
    branches = dqar.summary(pipe).branches
    assert [int(n) for n in branches if n] == [2, 2, 2, 1, 2] and (branches == 0).sum() == 5
