"""The plan: what the rules that depend on no data allow, before anything runs."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dqar.config import DQARConfig
from dqar.core.reuse_gate import Reason, Reasons, ReuseGate, blocked_step
from dqar.core.snr import schedule_snr
from dqar.policy.layer_scheduler import LayerScheduler
from dqar.policy.saved_plan import SavedPlan

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]


def plan(config: DQARConfig, scheduler: Any, num_steps: int, num_layers: int | None = None) -> BoolArray:
    """Where reuse is allowed on `scheduler`'s timesteps, `[steps, num_layers]`, True = reused.

    Warm-up, layer schedule, SNR and age decide, or a saved plan; entropy, policy and observed change are
    taken to allow everything. `num_layers` is the model's (default: the configuration's); layers beyond
    `config.num_layers` are never reused. The table has a row for each call of the transformer:
    `num_steps`, or more with a second-order scheduler. `scheduler` is not changed. Raises
    `ValueError` for one without a known SNR.
    """
    scheduler = copy.deepcopy(scheduler)
    scheduler.set_timesteps(num_steps)
    saved = SavedPlan.load(config.plan_path) if config.plan_path else None
    return allowed(config, schedule_snr(scheduler), num_layers or config.num_layers, saved=saved)


def allowed(
    config: DQARConfig,
    snr: FloatArray,
    num_layers: int,
    guided: bool = True,
    saved: SavedPlan | None = None,
) -> BoolArray:
    """The plan for known SNRs, `[steps]` -> `[steps, num_layers]`, with guidance or without."""
    managed = min(num_layers, config.num_layers)
    gate = ReuseGate(config, managed)
    table = np.zeros((len(snr), num_layers), dtype=np.bool_)
    for step, row in enumerate(rules(config, snr, managed, guided, saved).blocked):
        table[step, :managed] = gate.decide(row) == Reason.REUSED
    return table


def positions(config: DQARConfig, snr: FloatArray) -> FloatArray:
    """What forecasts are over, at each step, `[steps]`: ln SNR, or the step's number."""
    if config.forecast_over == "step":
        return np.arange(len(snr), dtype=np.float64)
    return np.log(np.maximum(snr, 1e-12))


class Rules(NamedTuple):
    """What depends on no data."""

    blocked: Reasons  # [steps, layers], REUSED where nothing forbids it
    alone: BoolArray  # [steps], whether the conditional branch runs without the other


def rules(
    config: DQARConfig,
    snr: FloatArray,
    num_layers: int,
    guided: bool = True,
    saved: SavedPlan | None = None,
) -> Rules:
    """What the rules that depend on no data say: those of the configuration, or a saved plan's.

    `snr` is the SNR of each step, `[steps]`. A cache entry's presence and age are the gate's to judge.
    Raises `ValueError` for a plan of other steps or layers.
    """
    if saved is not None:
        saved.check(len(snr), num_layers)
        blocked, alone = np.where(saved.reuse, Reason.REUSED, Reason.PLAN).astype(np.int8), saved.alone
    else:
        blocked, alone = _blocked_layers(config, snr, num_layers), _alone_steps(config, snr)
    if not guided:
        return Rules(blocked, np.zeros_like(alone))
    if alone.any():
        # Entries hold the conditional half: a step that runs both branches computes both.
        both = ~alone[:, None] & (blocked == Reason.REUSED)
        blocked = np.where(both, Reason.BRANCH, blocked).astype(np.int8)
    return Rules(blocked, alone)


def _alone_steps(config: DQARConfig, snr: FloatArray) -> BoolArray:
    """All that warm-up and SNR window allow, but for each `guidance_interval`-th."""
    alone, age = np.zeros(len(snr), dtype=np.bool_), 0
    for step, step_snr in enumerate(snr):
        free = step > 0 and blocked_step(config, step, len(snr), step_snr) is Reason.REUSED
        alone[step] = free and age + 1 < config.guidance_interval
        age = age + 1 if alone[step] else 0
    return alone


def _blocked_layers(config: DQARConfig, snr: FloatArray, num_layers: int) -> Reasons:
    scheduler = LayerScheduler(config, num_layers)
    table = np.empty((len(snr), num_layers), dtype=np.int8)
    for step, step_snr in enumerate(snr):
        for_all = blocked_step(config, step, len(snr), step_snr)
        by_layer = scheduler.blocked(step, len(snr), step_snr)
        table[step] = by_layer if for_all is Reason.REUSED else for_all
    return table
