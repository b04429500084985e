"""The plan reproduces what was published, and a run follows its plan."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import generate
from diffusers import DDIMScheduler, DiTPipeline

import dqar
from dqar import DQARConfig

# Reuse ratios in percent that the original specification's author published for 28 layers and 50 DDIM steps.
BY_LAYER_FRACTION = {0.33: 11.57, 0.50: 18.71, 0.66: 24.50, 0.75: 28.71, 1.0: 38.71}
BY_WARMUP = {0.1: 12.93, 0.2: 11.57, 0.3: 10.14, 0.4: 8.79, 0.5: 7.36, 0.6: 6.00}
BY_SNR = {
    0.0: 8.79,
    0.04: 8.79,
    0.1: 8.64,
    0.36: 7.64,
    0.5: 7.43,
    0.75: 6.86,
    1.2: 6.21,
    1.66: 5.50,
    1.93: 5.14,
}
PUBLISHED = (
    [({"layer_fraction": x}, ratio) for x, ratio in BY_LAYER_FRACTION.items()]
    + [({"warmup_fraction": x}, ratio) for x, ratio in BY_WARMUP.items()]
    + [({"warmup_fraction": 0.4, "snr_low": x}, ratio) for x, ratio in BY_SNR.items()]
)


@pytest.fixture
def published_scheduler() -> DDIMScheduler:
    return DDIMScheduler(beta_start=1e-4, beta_end=0.02, beta_schedule="linear", timestep_spacing="leading")


@pytest.mark.parametrize(("change", "percent"), PUBLISHED)
def test_published_reuse_ratio(
    change: dict[str, float], percent: float, published_scheduler: DDIMScheduler
) -> None:
    """Every published reuse ratio follows from the plan alone, to the digit shown."""
    config = DQARConfig.preset("conservative", **change)
    ratio = dqar.plan(config, published_scheduler, 50, 28).mean()
    assert round(100 * ratio, 2) == percent


def test_plan_does_not_change_the_scheduler(published_scheduler: DDIMScheduler) -> None:
    """Planning leaves the scheduler's timesteps as they were."""
    published_scheduler.set_timesteps(7)
    dqar.plan(DQARConfig(), published_scheduler, 50, 28)
    assert len(published_scheduler.timesteps) == 7


@pytest.mark.parametrize("name", ["conservative", "recommended", "aggressive", "maximum"])
@pytest.mark.parametrize("max_age", [None, 1, 2])
def test_run_follows_its_plan(pipe: DiTPipeline, name: str, max_age: int | None) -> None:
    """The map of a run equals the plan made beforehand, with and without a bound on age."""
    config = DQARConfig.preset(name, max_age=max_age)
    dqar.enable(pipe, config)
    generate(pipe, steps=20)
    summary = dqar.summary(pipe)
    planned = dqar.plan(config, pipe.scheduler, 20, 6)
    assert np.array_equal(summary.map, planned)
    assert summary.ratio == summary.plan_ratio == planned.mean()


def test_max_age_bounds_how_long_an_entry_is_reused(published_scheduler: DDIMScheduler) -> None:
    """With max_age = 3 no layer is reused four times in a row, and some are three times."""
    config = DQARConfig.preset("maximum", max_age=3)
    table = dqar.plan(config, published_scheduler, 50, 28)
    runs = [len(run) for column in table.T for run in "".join("x "[not x] for x in column).split()]
    assert max(runs) == 3


@pytest.mark.parametrize("schedule", ["linear", "exponential", "step"])
def test_schedules_enable_shallow_layers_first(schedule: str, published_scheduler: DDIMScheduler) -> None:
    """The number of free layers never falls with the step, and they are always the first ones."""
    config = DQARConfig.preset("maximum", schedule_type=schedule)
    table = dqar.plan(config, published_scheduler, 50, 28)
    counts = table.sum(1)
    assert (np.diff(counts) >= 0).all()
    assert counts[-1] == 28
    assert all(row[:count].all() for row, count in zip(table, counts, strict=True))


def test_linear_reverse_mirrors_linear(published_scheduler: DDIMScheduler) -> None:
    """`linear_reverse` enables as many layers as `linear`, from the other end."""
    linear, reverse = (
        dqar.plan(DQARConfig.preset("recommended", schedule_type=kind), published_scheduler, 50, 28)
        for kind in ("linear", "linear_reverse")
    )
    assert np.array_equal(linear, reverse[:, ::-1])


def test_custom_schedule_enables_each_layer_at_its_own_time(published_scheduler: DDIMScheduler) -> None:
    """A custom schedule enables layer i from its share of the steps on; above 1 never."""
    config = DQARConfig.preset(
        "maximum", schedule_type="custom", custom_schedule=(0.5, 0.9, 1.1), warmup_fraction=0.0
    )
    table = dqar.plan(config, published_scheduler, 11, 3)
    assert table[:, 0].tolist() == [False] * 5 + [True] * 6
    assert table[:, 1].tolist() == [False] * 9 + [True] * 2
    assert not table[:, 2].any()
