"""The plan: what the rules that depend on no data allow, before anything runs."""

from __future__ import annotations

import copy
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dqar.config import DQARConfig
from dqar.core.reasons import Reason, Reasons, is_reused
from dqar.core.reuse_gate import ReuseGate, blocked_step
from dqar.core.snr import schedule_snr
from dqar.policy.layer_scheduler import LayerScheduler
from dqar.policy.saved_plan import SavedPlan
from dqar.policy.warmup import warn_of_covered_warmup

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
BranchArray = npt.NDArray[np.int8]  # [steps] of Branches

# Flow matching begins at an SNR of 0 and may end at infinity, where log-SNR is not finite.
SNR_RANGE = (1e-5, 1e5)


class Branches(IntEnum):
    """Guidance branches that a step runs; without guidance, BOTH is the only one."""

    NONE = 0
    CONDITIONAL = 1
    BOTH = 2


NONE, CONDITIONAL, BOTH = Branches


def plan(config: DQARConfig, scheduler: Any, num_steps: int, num_layers: int | None = None) -> BoolArray:
    """Where reuse is allowed on a scheduler's timesteps.

    Warm-up, layer schedule, SNR and age decide, or a saved plan; entropy, policy and observed change are
    taken to allow everything.

    Args:
        config: What may be reused, and when.
        scheduler: A diffusers scheduler; it is not changed.
        num_steps: Steps as the pipeline is asked for, at least 1.
        num_layers: Layers of the model; None = `config.num_layers`. Layers beyond `config.num_layers` are
            never reused.

    Returns:
        `[steps, num_layers]`, True = reused; a row for each call of the transformer: `num_steps`, or more
        with a second-order scheduler.

    Raises:
        ValueError: The scheduler's SNR is not known, or the saved plan cannot be used.
    """
    scheduler = copy.deepcopy(scheduler)
    scheduler.set_timesteps(num_steps)
    saved = SavedPlan.load(config.plan_path) if config.plan_path else None
    snr = schedule_snr(scheduler)
    num_layers = num_layers or config.num_layers
    warn_of_covered_warmup(config, snr, min(num_layers, config.num_layers))
    return allowed(config, snr, num_layers, saved=saved)


def allowed(
    config: DQARConfig,
    snr: FloatArray,
    num_layers: int,
    guided: bool = True,
    saved: SavedPlan | None = None,
) -> BoolArray:
    """The plan for known SNRs.

    Args:
        config: What may be reused, and when.
        snr: SNR of each step, `[steps]`.
        num_layers: Layers of the model; those beyond `config.num_layers` are never reused.
        guided: Whether the generation has two guidance branches.
        saved: The plan that `config.plan_path` names; None = the configuration's rules decide.

    Returns:
        `[steps, num_layers]`, True = reused.
    """
    managed = min(num_layers, config.num_layers)
    gate = ReuseGate(config, managed)
    table = np.zeros((len(snr), num_layers), dtype=np.bool_)
    for step, row in enumerate(rules(config, snr, managed, guided, saved).blocked):
        table[step, :managed] = is_reused(gate.decide(row))
    return table


def positions(config: DQARConfig, snr: FloatArray) -> FloatArray:
    """The coordinate of forecasts at each step, as `config.forecast_over` names it.

    Args:
        config: Only `forecast_over` counts.
        snr: SNR of each step, `[steps]`.

    Returns:
        ln SNR, the step's number from 0, or their `mixture`, `[steps]`.
    """
    over = config.forecast_over
    if isinstance(over, float):
        return mixture(snr, over)
    return np.arange(len(snr), dtype=np.float64) if over == "step" else log_snr(snr)


def log_snr(snr: FloatArray) -> FloatArray:
    """The natural logarithm of SNRs, clipped to `SNR_RANGE` before.

    Args:
        snr: SNR of each step, `[steps]`; 0 and infinity are allowed.

    Returns:
        ln SNR, `[steps]`, finite.
    """
    return np.asarray(np.log(np.clip(snr, *SNR_RANGE)))


def mixture(snr: FloatArray, share: float) -> FloatArray:
    """Mix the steps' numbers with their log-SNR, each from 0 at the first step to 1 at the last.

    Args:
        snr: SNR of each step, `[steps]`.
        share: Weight of log-SNR, 0 to 1.

    Returns:
        `[steps]`, from 0 to 1.
    """
    over = log_snr(snr)
    along = (over - over[0]) / max(over[-1] - over[0], 1e-12)
    return np.asarray((1 - share) * np.linspace(0, 1, len(snr)) + share * along)


class Rules(NamedTuple):
    """What depends on no data."""

    blocked: Reasons  # [steps, layers], REUSED where nothing forbids it
    branches: BranchArray


def rules(
    config: DQARConfig,
    snr: FloatArray,
    num_layers: int,
    guided: bool = True,
    saved: SavedPlan | None = None,
) -> Rules:
    """What the data-independent rules decide; a cache entry's presence and age are the gate's to judge.

    Args:
        config: What may be reused, and when.
        snr: SNR of each step, `[steps]`.
        num_layers: Layers that DQAR manages.
        guided: Whether the generation has two guidance branches; without, every step that runs is `BOTH`.
        saved: A plan that decides in place of the configuration's rules.

    Returns:
        The two tables; they may be the saved plan's own, and are not to be changed.

    Raises:
        ValueError: `saved` is for other steps or layers.
    """
    if saved is not None:
        saved.check(len(snr), num_layers)
        blocked, branches = np.where(saved.reuse, Reason.REUSED, Reason.PLAN).astype(np.int8), saved.branches
    else:
        blocked, branches = _blocked_layers(config, snr, num_layers), _branches(config, snr)
    if not guided:
        branches = np.where(branches == CONDITIONAL, BOTH, branches).astype(np.int8)
    if (branches == CONDITIONAL).any():
        # Entries hold the conditional half: a step that runs both branches computes both.
        both = (branches == BOTH)[:, None] & (blocked == Reason.REUSED)
        blocked = np.where(both, Reason.BRANCH, blocked).astype(np.int8)
    blocked[branches == NONE] = Reason.SKIPPED
    return Rules(blocked, branches)


def spread(snr: FloatArray, run: int, share: float) -> list[int]:
    """Choose steps that run, evenly spread in a mixture of their number and their log-SNR.

    Args:
        snr: SNR of each step, `[steps]`.
        run: How many to choose; all, where there are fewer steps.
        share: Weight of log-SNR in the mixture, 0 to 1; 0 = even in the step's number.

    Returns:
        Numbers of the chosen steps, ascending, the first among them and, where `run` is above 1, the last.
    """
    places = mixture(snr, share)
    chosen: list[int] = []
    for want in np.linspace(0, 1, min(run, len(snr))):
        distance = np.abs(places - want)
        distance[chosen] = np.inf
        chosen.append(int(distance.argmin()))
    return sorted(chosen)


def _branches(config: DQARConfig, snr: FloatArray) -> BranchArray:
    """Which steps run, and that only each `guidance_interval`-th of these runs both branches: `model_steps`
    spread over all, or each `step_interval`-th as far as warm-up and SNR window allow."""
    if config.model_steps is not None:
        return _spread_branches(config, snr, steps_that_run(config.model_steps, len(snr)))
    branches = np.full(len(snr), BOTH, dtype=np.int8)
    idle = single = 0
    for step, step_snr in enumerate(snr):
        if step == 0 or blocked_step(config, step, len(snr), step_snr) is not Reason.REUSED:
            idle = single = 0
        elif idle + 1 < config.step_interval:
            branches[step], idle = NONE, idle + 1
        else:
            idle, single = 0, (single + 1) % config.guidance_interval
            branches[step] = CONDITIONAL if single else BOTH
    return branches


def steps_that_run(asked: int | float, steps: int) -> int:
    """How many steps `model_steps` asks for.

    Args:
        asked: Their number, or their share of all steps, 0 to 1.
        steps: Steps of the schedule.

    Returns:
        Their number, at least 2 for a share; it may exceed `steps`.
    """
    return asked if isinstance(asked, int) else max(2, round(asked * steps))


def _spread_branches(config: DQARConfig, snr: FloatArray, run: int) -> BranchArray:
    branches = np.full(len(snr), NONE, dtype=np.int8)
    for number, step in enumerate(spread(snr, run, config.log_snr_share)):
        branches[step] = CONDITIONAL if number > 1 and number % config.guidance_interval else BOTH
    return branches


def _blocked_layers(config: DQARConfig, snr: FloatArray, num_layers: int) -> Reasons:
    scheduler = LayerScheduler(config, num_layers)
    table = np.empty((len(snr), num_layers), dtype=np.int8)
    for step, step_snr in enumerate(snr):
        for_all = blocked_step(config, step, len(snr), step_snr)
        by_layer = scheduler.blocked(step, len(snr), step_snr)
        table[step] = by_layer if for_all is Reason.REUSED else for_all
    return table
