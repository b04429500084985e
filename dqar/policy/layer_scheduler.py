"""Which layers a schedule frees for reuse as denoising goes on."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from dqar.config import DQARConfig

EXPONENTIAL_RATE = 5.0  # of `exponential`: half of the layers are free after 86 % of the ramp

BoolArray = npt.NDArray[np.bool_]


class LayerScheduler:
    """The layer schedule of a configuration, for a model of `num_layers` layers.

    `progress` is step / (steps - 1). Below the warm-up fraction w no layer is free; from there the
    ramp p = (progress - w) / (1 - w) frees int(shape(p) * int(num_layers * layer_fraction)) layers:
    the first ones, or with `linear_reverse` the last. `linear` is the published schedule.
    """

    def __init__(self, config: DQARConfig, num_layers: int) -> None:
        if config.custom_schedule is not None and len(config.custom_schedule) != num_layers:
            raise ValueError(
                f"custom_schedule has {len(config.custom_schedule)} entries; "
                f"allowed: one for each of the {num_layers} layers"
            )
        self.config = config
        self.num_layers = num_layers
        self.cap = int(num_layers * config.layer_fraction)

    def in_warmup(self, step: int, steps: int) -> bool:
        """Whether `step` (from 0) belongs to the warm-up, in which nothing is reused."""
        c = self.config
        return step < c.warmup_steps or _progress(step, steps) < c.warmup_fraction

    def free(self, step: int, steps: int) -> BoolArray:
        """Layers free at `step`, `[num_layers]`; the warm-up is not looked at here."""
        c, progress = self.config, _progress(step, steps)
        layers = np.arange(self.num_layers)
        if not c.use_layer_scheduling:
            return np.ones(self.num_layers, dtype=np.bool_)
        if c.custom_schedule is not None:
            return progress >= np.asarray(c.custom_schedule)
        count = self._count(progress)
        if c.schedule_type == "linear_reverse":
            return layers >= self.num_layers - count
        return layers < count

    def _count(self, progress: float) -> int:
        c = self.config
        ramp = max(0.0, (progress - c.warmup_fraction) / (1.0 - c.warmup_fraction))
        if c.schedule_type == "step":
            thirds = 1 + (progress >= c.early_phase_end) + (progress >= c.mid_phase_end)
            return self.cap * thirds // 3
        if c.schedule_type == "exponential":
            ramp = math.expm1(EXPONENTIAL_RATE * ramp) / math.expm1(EXPONENTIAL_RATE)
        return int(ramp * self.cap)


def _progress(step: int, steps: int) -> float:
    return step / (steps - 1) if steps > 1 else 0.0
