"""The plan: what the rules that depend on no data allow, before anything runs."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import numpy.typing as npt

from dqar.config import DQARConfig
from dqar.core.reuse_gate import Reason, Reasons, ReuseGate, blocked
from dqar.core.snr import schedule_snr
from dqar.policy.layer_scheduler import LayerScheduler


def plan(
    config: DQARConfig, scheduler: Any, num_steps: int, num_layers: int | None = None
) -> npt.NDArray[np.bool_]:
    """Where reuse is allowed on `scheduler`'s timesteps, `[steps, num_layers]`, True = reused.

    Warm-up, layer schedule, SNR and age decide; entropy, policy and observed change are taken to
    allow everything. `num_layers` is the model's (default: the configuration's); layers beyond
    `config.num_layers` are never reused. The table has a row for each call of the transformer:
    `num_steps`, or more with a second-order scheduler. `scheduler` is not changed. Raises
    `ValueError` for one without a known SNR.
    """
    scheduler = copy.deepcopy(scheduler)
    scheduler.set_timesteps(num_steps)
    return allowed(config, schedule_snr(scheduler), num_layers or config.num_layers)


def allowed(
    config: DQARConfig, snr: npt.NDArray[np.float64], num_layers: int, guided: bool = True
) -> npt.NDArray[np.bool_]:
    """The plan for known SNRs, `[steps]` -> `[steps, num_layers]`, with guidance or without."""
    managed = min(num_layers, config.num_layers)
    gate = ReuseGate(config, managed)
    table = np.zeros((len(snr), num_layers), dtype=np.bool_)
    for step, rules in enumerate(blocked_by_rules(config, snr, managed, guided)):
        table[step, :managed] = gate.decide(rules) == Reason.REUSED
    return table


def alone_steps(config: DQARConfig, snr: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Steps on which the conditional branch runs alone, `[steps]`: all that warm-up and SNR window allow,
    but for each `guidance_interval`-th."""
    alone, age = np.zeros(len(snr), dtype=np.bool_), 0
    for step, step_snr in enumerate(snr):
        free = step > 0 and blocked(config, step, len(snr), step_snr) is Reason.REUSED
        alone[step] = free and age + 1 < config.guidance_interval
        age = age + 1 if alone[step] else 0
    return alone


def positions(config: DQARConfig, snr: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """What forecasts are over, at each step, `[steps]`: ln SNR, or the step's number."""
    if config.forecast_over == "step":
        return np.arange(len(snr), dtype=np.float64)
    return np.log(np.maximum(snr, 1e-12))


def blocked_by_rules(
    config: DQARConfig, snr: npt.NDArray[np.float64], num_layers: int, guided: bool = True
) -> Reasons:
    """What the rules that depend on no data forbid: `[steps, num_layers]`, REUSED where nothing does.

    `snr` is the SNR of each step, `[steps]`. A cache entry's presence and age are the gate's to judge.
    """
    scheduler = LayerScheduler(config, num_layers)
    table = np.empty((len(snr), num_layers), dtype=np.int8)
    for step, step_snr in enumerate(snr):
        for_all = blocked(config, step, len(snr), step_snr)
        by_layer = scheduler.blocked(step, len(snr), step_snr)
        table[step] = by_layer if for_all is Reason.REUSED else for_all
    if guided and config.guidance_interval > 1:
        # Entries hold the conditional half: a step that runs both branches computes both.
        both = ~alone_steps(config, snr)
        table[both] = np.where(table[both] == Reason.REUSED, Reason.BRANCH, table[both])
    return table
