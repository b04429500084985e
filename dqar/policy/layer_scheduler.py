"""Which layers are eligible for reuse at each step: by a schedule, or by their observed change."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from dqar.core.reasons import Reason, Reasons, progress
from dqar.errors import InvalidValue
from dqar.policy.schedule_config import ScheduleConfig

EXPONENTIAL_RATE = 5.0  # of `exponential`: half of the layers are eligible after 86 % of the ramp

BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float64]


class LayerScheduler:
    """The layer schedule of a configuration, for a model of `num_layers` layers.

    `progress` is step / (steps - 1). Below the warm-up fraction w no layer is eligible; from there, with the
    ramp p = (progress - w) / (1 - w), int(shape(p) * int(num_layers * layer_fraction)) layers are: the first
    ones, or with `linear_reverse` the last. `linear` is the published schedule.

    Args:
        config: The schedule's fields.
        num_layers: Layers of the model that DQAR manages.

    Raises:
        InvalidValue: `custom_schedule` has another length than there are layers.
    """

    def __init__(self, config: ScheduleConfig, num_layers: int) -> None:
        if config.custom_schedule is not None and len(config.custom_schedule) != num_layers:
            raise InvalidValue(
                f"custom_schedule has {len(config.custom_schedule)} entries; "
                f"allowed: one for each of the {num_layers} layers"
            )
        self.config = config
        self.num_layers = num_layers
        self.cap = int(num_layers * config.layer_fraction)

    def blocked(self, step: int, steps: int, snr: float) -> Reasons:
        """What the schedule and the deep-layer SNR rule forbid.

        Args:
            step: Number of the step, from 0.
            steps: Steps of the trajectory.
            snr: Signal-to-noise ratio of the step.

        Returns:
            A `Reason` for each layer, `[num_layers]`; `REUSED` where nothing forbids it.
        """
        c, layers = self.config, np.arange(self.num_layers)
        row = np.full(self.num_layers, Reason.REUSED, dtype=np.int8)
        if c.deep_layer_snr_threshold is not None and snr < c.deep_layer_snr_threshold:
            row[layers >= (self.num_layers + 1) // 2] = Reason.DEEP_SNR
        if c.adaptive:
            row[(step + layers) % c.probe_interval == 0] = Reason.PROBE
        row[~self.eligible(step, steps)] = Reason.SCHEDULE
        return row

    def eligible(self, step: int, steps: int) -> BoolArray:
        """Layers that the schedule makes eligible; the deep-layer SNR rule and probes are not asked.

        Args:
            step: Number of the step, from 0.
            steps: Steps of the trajectory.

        Returns:
            `[num_layers]`, True = eligible; everywhere without layer scheduling.
        """
        c, done = self.config, progress(step, steps)
        layers = np.arange(self.num_layers)
        if not c.use_layer_scheduling:
            return np.ones(self.num_layers, dtype=np.bool_)
        if c.custom_schedule is not None:
            return done >= np.asarray(c.custom_schedule)
        count = self._count(done)
        if c.schedule_type == "linear_reverse":
            return layers >= self.num_layers - count
        return layers < count

    def _count(self, done: float) -> int:
        c = self.config
        ramp = max(0.0, (done - c.warmup_fraction) / (1.0 - c.warmup_fraction))
        if c.schedule_type == "adaptive":
            return self.cap
        if c.schedule_type == "step":
            thirds = 1 + (done >= c.early_phase_end) + (done >= c.mid_phase_end)
            return self.cap * thirds // 3
        if c.schedule_type == "exponential":
            ramp = math.expm1(EXPONENTIAL_RATE * ramp) / math.expm1(EXPONENTIAL_RATE)
        return int(ramp * self.cap)


class AdaptiveLayerScheduler:
    """Allows reuse of the layers whose outputs change little.

    Whenever a layer is computed while it has an entry (and each layer is, every `probe_interval`
    steps) the relative change ||fresh - cached|| / ||fresh|| over the entry's steps is observed. An entry
    may be reused for n steps while n times the layer's last change per step is tolerated; the entry of a
    layer that was never observed may not.

    Args:
        num_layers: Layers of the model that DQAR manages.
        tolerance: Largest relative change of an output that may be reused.
    """

    def __init__(self, num_layers: int, tolerance: float) -> None:
        self.tolerance = tolerance
        self.rate = np.full(num_layers, np.nan)  # relative change a step

    def observe(self, change: FloatArray, steps: FloatArray) -> None:
        """Record each layer's change per step.

        Args:
            change: Relative change of each layer's output, `[num_layers]`; nan = not observed, which keeps
                the last.
            steps: Steps over which it came about, `[num_layers]`, 1 or more.
        """
        self.rate = np.where(np.isnan(change), self.rate, change / steps)

    def tolerates(self, steps: FloatArray) -> BoolArray:
        """Layers whose expected change is tolerated.

        Args:
            steps: Steps since each layer's entry was made, `[num_layers]`.

        Returns:
            `[num_layers]`; false for layers that were never observed.
        """
        return self.rate * steps <= self.tolerance
