"""The decision, once a step and for all layers: which may be served from the cache, and why not."""

from __future__ import annotations

import math
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from dqar.config import DQARConfig
from dqar.policy.layer_scheduler import LayerScheduler

Reasons = npt.NDArray[np.int8]  # [..., layers] of Reason


class Reason(IntEnum):
    """Why a layer was reused or computed; where several rules forbid a reuse, the first of them."""

    REUSED = 0
    WARMUP = 1
    SCHEDULE = 2
    SNR = 3
    DEEP_SNR = 4
    NO_ENTRY = 5
    AGE = 6
    ENTROPY = 7

    @property
    def label(self) -> str:
        """The name in words, for tables."""
        return self.name.lower().replace("_", " ")


def blocked_by_rules(config: DQARConfig, snr: npt.NDArray[np.float64], num_layers: int) -> Reasons:
    """What the rules that depend on no data forbid: `[steps, num_layers]`, REUSED where nothing does.

    `snr` is the SNR of each step, `[steps]`. A cache entry's presence and age are the gate's to judge.
    """
    scheduler, steps = LayerScheduler(config, num_layers), len(snr)
    blocked = np.zeros((steps, num_layers), dtype=np.int8)
    deep = np.arange(num_layers) >= (num_layers + 1) // 2
    for step in range(steps):  # the later assignment wins, so the first rule comes last
        row = blocked[step]
        if config.deep_layer_snr_threshold is not None and snr[step] < config.deep_layer_snr_threshold:
            row[deep] = Reason.DEEP_SNR
        if not config.snr_low <= snr[step] <= config.snr_high:
            row[:] = Reason.SNR
        row[~scheduler.free(step, steps)] = Reason.SCHEDULE
        if scheduler.in_warmup(step, steps):
            row[:] = Reason.WARMUP
    return blocked


def entropy_thresholds(
    config: DQARConfig, num_layers: int, prompt_length: int | None = None
) -> npt.NDArray[np.float64]:
    """tau of each layer in nats, `[num_layers]`: base * sqrt(prompt_length / base length) * scale.

    Raises `ValueError` when `entropy_scales` has another length.
    """
    scales = np.ones(num_layers)
    if config.entropy_scales is not None:
        if len(config.entropy_scales) != num_layers:
            raise ValueError(
                f"entropy_scales has {len(config.entropy_scales)} entries; "
                f"allowed: one for each of the {num_layers} layers"
            )
        scales = np.asarray(config.entropy_scales, dtype=np.float64)
    length = config.prompt_length or prompt_length or config.base_prompt_length
    if config.adaptive_entropy:
        scales = scales * math.sqrt(length / config.base_prompt_length)
    return config.entropy_threshold * scales


class ReuseGate:
    """Walks one trajectory: decides each step's row from the rules, the entries' ages and entropy."""

    def __init__(self, config: DQARConfig, num_layers: int, prompt_length: int | None = None) -> None:
        self.max_age = math.inf if config.max_age is None else config.max_age
        self.thresholds = entropy_thresholds(config, num_layers, prompt_length)
        self.entropy_gate = config.entropy_gate
        self.age = np.zeros(num_layers)
        self.has_entry = np.zeros(num_layers, dtype=np.bool_)

    def decide(self, blocked: Reasons, entropy: npt.ArrayLike | None = None) -> Reasons:
        """The step's reasons, `[layers]`: `blocked` (a row of the rules) and what the data adds.

        `entropy` is each layer's at its last computation, nats; an unknown (nan) one forbids reuse.
        None = every entropy passes, which makes a plan.
        """
        row = blocked.copy()
        if self.entropy_gate and entropy is not None:
            row[(row == Reason.REUSED) & ~(np.asarray(entropy) < self.thresholds)] = Reason.ENTROPY
        row[(row == Reason.REUSED) & (self.age >= self.max_age)] = Reason.AGE
        row[(row == Reason.REUSED) & ~self.has_entry] = Reason.NO_ENTRY
        self.age = np.where(row == Reason.REUSED, self.age + 1, 0)
        self.has_entry[:] = True
        return row
