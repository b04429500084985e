"""The rules that depend on no data, step by step: which layers they forbid, and which branches run."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diffusers import DDIMScheduler, HeunDiscreteScheduler

import dqar
from dqar import DQARConfig
from dqar.core.reasons import Reason
from dqar.errors import DQARWarning
from dqar.plan import allowed, log_snr, positions, rules, spread
from dqar.policy.saved_plan import SavedPlan

pytestmark = pytest.mark.filterwarnings("ignore::dqar.errors.DQARWarning")

RISING = np.array([0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0])
OUTSIDE_AT_3 = np.array([1.0, 1.0, 1.0, 0.25, 1.0, 1.0, 1.0, 1.0])


def config(**fields: Any) -> DQARConfig:
    """One that forbids nothing but what `fields` set."""
    nothing = {"warmup_steps": 0, "warmup_fraction": 0.0, "snr_low": 0.0, "max_age": None, "num_layers": 2}
    return DQARConfig(**nothing | fields)


@pytest.mark.parametrize(
    ("fields", "snr", "branches"),
    [
        ({}, RISING, [2, 2, 2, 2, 2, 2, 2, 2]),
        ({"step_interval": 3}, RISING, [2, 0, 0, 2, 0, 0, 2, 0]),
        ({"guidance_interval": 2}, RISING, [2, 1, 2, 1, 2, 1, 2, 1]),
        ({"guidance_interval": 3}, RISING, [2, 1, 1, 2, 1, 1, 2, 1]),
        ({"step_interval": 2, "guidance_interval": 2}, RISING, [2, 0, 1, 0, 2, 0, 1, 0]),
        ({"step_interval": 2, "warmup_steps": 3}, RISING, [2, 2, 2, 0, 2, 0, 2, 0]),
        ({"step_interval": 3, "snr_low": 0.5}, OUTSIDE_AT_3, [2, 0, 0, 2, 0, 0, 2, 0]),
        ({"step_interval": 4, "snr_low": 0.5}, OUTSIDE_AT_3, [2, 0, 0, 2, 0, 0, 0, 2]),
        ({"guidance_interval": 3, "snr_low": 0.5}, OUTSIDE_AT_3, [2, 1, 1, 2, 1, 1, 2, 1]),
        ({"guidance_interval": 4, "snr_low": 0.5}, OUTSIDE_AT_3, [2, 1, 1, 2, 1, 1, 1, 2]),
        ({"model_steps": 4, "log_snr_share": 0.0}, RISING, [2, 0, 2, 0, 0, 2, 0, 2]),
        ({"model_steps": 4, "log_snr_share": 0.0, "guidance_interval": 2}, RISING, [2, 0, 2, 0, 0, 2, 0, 1]),
        ({"model_steps": 4, "log_snr_share": 0.0, "guidance_interval": 3}, RISING, [2, 0, 2, 0, 0, 1, 0, 2]),
    ],
)
def test_branches_that_run(fields: dict[str, Any], snr: np.ndarray[Any, Any], branches: list[int]) -> None:
    """Intervals begin again after each step that a warm-up or the SNR window makes run with both branches."""
    found = rules(config(**fields), snr, 2).branches
    assert found.tolist() == branches and found.dtype == np.int8


def test_each_layer_has_the_first_reason() -> None:
    """Warm-up and SNR window hold for all layers; past them the layer schedule decides which."""
    ruled = config(
        warmup_steps=1,
        snr_low=1.5,
        use_layer_scheduling=True,
        schedule_type="custom",
        custom_schedule=(0.0, 0.9),
    )
    granted = rules(ruled, np.array([1.0, 1.0, 2.0, 2.0]), 2)
    assert granted.blocked.tolist() == [
        [Reason.WARMUP] * 2,
        [Reason.SNR] * 2,
        [Reason.REUSED, Reason.SCHEDULE],
        [Reason.REUSED] * 2,
    ]
    assert granted.blocked.dtype == np.int8


def test_deep_layers_wait_for_their_snr() -> None:
    """The deeper half is reused from its threshold on only."""
    granted = rules(config(deep_layer_snr_threshold=1.5), np.array([1.0, 2.0]), 2)
    assert granted.blocked.tolist() == [[Reason.REUSED, Reason.DEEP_SNR], [Reason.REUSED] * 2]


def test_skipped_steps_block_nothing_else() -> None:
    """A skipped step is skipped for all layers; next to conditional-only steps, both branches compute."""
    skipping = rules(config(step_interval=2), RISING[:3], 2)
    assert skipping.blocked.tolist() == [[Reason.REUSED] * 2, [Reason.SKIPPED] * 2, [Reason.REUSED] * 2]
    alone = rules(config(guidance_interval=2), RISING[:3], 2)
    assert alone.blocked.tolist() == [[Reason.BRANCH] * 2, [Reason.REUSED] * 2, [Reason.BRANCH] * 2]


SAVED = SavedPlan(
    np.array([[0, 0], [1, 0], [1, 1], [1, 1]], dtype=np.bool_), np.array([2, 2, 0, 1], dtype=np.int8)
)


def test_a_saved_plan_takes_the_place_of_the_rules() -> None:
    """Its table and branches hold whatever the configuration sets; without guidance no branch runs alone."""
    ruled = config(warmup_steps=3, step_interval=4)
    guided = rules(ruled, RISING[:4], 2, saved=SAVED)
    assert guided.branches.tolist() == [2, 2, 0, 1]
    assert guided.blocked.tolist() == [
        [Reason.PLAN] * 2,
        [Reason.BRANCH, Reason.PLAN],
        [Reason.SKIPPED] * 2,
        [Reason.REUSED] * 2,
    ]
    alone = rules(ruled, RISING[:4], 2, guided=False, saved=SAVED)
    assert alone.branches.tolist() == [2, 2, 0, 2] and alone.branches.dtype == np.int8
    assert alone.blocked.tolist() == [
        [Reason.PLAN] * 2,
        [Reason.REUSED, Reason.PLAN],
        [Reason.SKIPPED] * 2,
        [Reason.REUSED] * 2,
    ]
    assert alone.blocked.dtype == guided.blocked.dtype == np.int8
    assert SAVED.branches.tolist() == [2, 2, 0, 1] and SAVED.reuse.sum() == 5


@pytest.mark.parametrize(("steps", "layers"), [(5, 2), (4, 3)])
def test_a_saved_plan_of_another_shape_is_refused(steps: int, layers: int) -> None:
    """Steps and layers must be those of the generation."""
    with pytest.raises(
        ValueError, match=f"for 4 steps and 2 layers; this generation has {steps} and {layers}"
    ):
        rules(config(), RISING[:steps], layers, saved=SAVED)


def test_what_the_rules_allow_is_a_table() -> None:
    """Reused or skipped is allowed; layers that are not managed, or that the model lacks, are not."""
    table = allowed(config(step_interval=2), RISING[:3], 3)
    assert table.tolist() == [[False] * 3, [True, True, False], [True, True, False]]
    assert table.dtype == np.bool_
    assert allowed(config(max_age=1), RISING[:4], 1).tolist() == [[False], [True], [False], [True]]
    assert allowed(config(), RISING[:4], 2, saved=SAVED).tolist() == [[False] * 2, [False] * 2, [True] * 2, [True] * 2]  # fmt: skip  # noqa: E501
    scaled = config(entropy_threshold=2.0, entropy_scales=(1.0, 2.0))
    assert allowed(scaled, RISING[:2], 2).tolist() == [[False] * 2, [True] * 2]
    unguided = allowed(config(), RISING[:4], 2, guided=False, saved=SAVED)
    assert unguided.tolist() == [[False] * 2, [True, False], [True] * 2, [True] * 2]


SNR = np.exp([0.0, 1.0, 2.0, 3.0, 9.0])


@pytest.mark.parametrize(
    ("run", "share", "steps"),
    [
        (2, 0.6, [0, 4]),
        (3, 0.0, [0, 2, 4]),
        (3, 0.25, [0, 2, 4]),
        (3, 0.5, [0, 3, 4]),
        (3, 1.0, [0, 3, 4]),
        (4, 1.0, [0, 2, 3, 4]),
        (9, 0.5, [0, 1, 2, 3, 4]),
    ],
)
def test_steps_are_spread_between_number_and_log_snr(run: int, share: float, steps: list[int]) -> None:
    """The steps nearest to even places in the mixture, each once; of more than there are, all."""
    assert spread(SNR, run, share) == steps
    assert spread(10 * SNR, run, share) == steps


@pytest.mark.parametrize("log_snrs", [[2.0, 4.0, 6.0, 8.0, 10.0], [0.0, 0.1, 0.2, 0.3, 0.4]])
def test_an_even_log_snr_is_spread_evenly(log_snrs: list[float]) -> None:
    """However large it is, and however little of it there is."""
    assert spread(np.exp(log_snrs), 3, 1.0) == [0, 2, 4]


def test_an_snr_that_stays_is_spread_by_number() -> None:
    """Where the log-SNR does not change it decides nothing, and nothing is divided by zero."""
    assert spread(np.ones(5), 3, 0.0) == spread(2 * np.ones(5), 3, 0.0) == [0, 2, 4]
    assert spread(np.ones(5), 2, 0.5) == [0, 4]


def test_positions_are_log_snr_or_numbers_or_a_mixture() -> None:
    """ln SNR within 1e-5 to 1e5, the step's number, or the coordinate in which `model_steps` are spread, as
    the configuration sets."""
    snr = np.array([0.0, 1.0, math.inf])
    ends = [math.log(1e-5), 0.0, math.log(1e5)]
    assert log_snr(snr) == pytest.approx(ends)
    assert positions(config(forecast_order=1, forecast_over="log_snr"), snr) == pytest.approx(ends)
    by_number = positions(config(forecast_order=1, forecast_over="step"), snr)
    assert by_number.tolist() == [0.0, 1.0, 2.0] and by_number.dtype == np.float64
    uneven = np.array([1.0, 2.0, 16.0])  # log-SNR at 0, 1/4 and 1, numbers at 0, 1/2 and 1
    mixed = positions(config(forecast_order=1, forecast_over=0.4), uneven)
    assert mixed == pytest.approx([0.0, 0.4, 1.0])


def test_a_plan_has_the_schedulers_rows_and_the_models_columns() -> None:
    """A row for each call of the transformer; as many layers as stated, else as the configuration manages."""
    assert dqar.plan(config(), DDIMScheduler(), 7).shape == (7, 2)
    assert dqar.plan(config(), DDIMScheduler(), 7, 5).shape == (7, 5)
    assert dqar.plan(config(), HeunDiscreteScheduler(), 7, 1).shape == (13, 1)


def test_a_plan_can_come_from_a_file(tmp_path: Path) -> None:
    """The file that the configuration names takes the place of its rules."""
    SAVED.save(tmp_path / "plan.json")
    planned = dqar.plan(config(plan_path=str(tmp_path / "plan.json")), DDIMScheduler(), 4)
    assert planned.tolist() == [[False] * 2, [False] * 2, [True] * 2, [True] * 2]


def test_a_warmup_that_changes_nothing_is_named() -> None:
    """Planning warns of a warm-up that other rules cover on these steps."""
    covered = config(warmup_steps=1, warmup_fraction=0.5)
    with pytest.warns(DQARWarning, match="warmup_steps = 1 has no effect on these 10 steps"):
        dqar.plan(covered, DDIMScheduler(), 10, 4)
