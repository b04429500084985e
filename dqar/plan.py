"""The plan: what the rules that depend on no data allow, before anything runs."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import numpy.typing as npt

from dqar.config import DQARConfig
from dqar.core.reuse_gate import Reason, ReuseGate, blocked_by_rules
from dqar.core.snr import schedule_snr


def plan(
    config: DQARConfig, scheduler: Any, num_steps: int, num_layers: int | None = None
) -> npt.NDArray[np.bool_]:
    """Where reuse is allowed on `scheduler`'s timesteps, `[steps, num_layers]`, True = reused.

    Warm-up, layer schedule, SNR and age decide; entropy is taken to pass. `num_layers` is the
    model's (default: the configuration's); layers beyond `config.num_layers` are never reused. The
    table has a row for each call of the transformer: `num_steps`, or more with a second-order
    scheduler. `scheduler` is not changed. Raises `ValueError` for one without a known SNR.
    """
    scheduler = copy.deepcopy(scheduler)
    scheduler.set_timesteps(num_steps)
    return allowed(config, schedule_snr(scheduler), num_layers or config.num_layers)


def allowed(config: DQARConfig, snr: npt.NDArray[np.float64], num_layers: int) -> npt.NDArray[np.bool_]:
    """The plan for known SNRs, `[steps]` -> `[steps, num_layers]`."""
    managed = min(num_layers, config.num_layers)
    gate = ReuseGate(config, managed)
    table = np.zeros((len(snr), num_layers), dtype=np.bool_)
    for step, blocked in enumerate(blocked_by_rules(config, snr, managed)):
        table[step, :managed] = gate.decide(blocked) == Reason.REUSED
    return table
