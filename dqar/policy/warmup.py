"""Names a warm-up that other rules cover, which is known only once the schedule is."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dqar.config import DQARConfig
from dqar.config_option import changed
from dqar.core.gate_config import warned_before
from dqar.core.reasons import Reason
from dqar.core.reuse_gate import blocked_step
from dqar.policy.layer_scheduler import LayerScheduler
from dqar.utils.warn import warn

Rows = list[tuple[bool, npt.NDArray[np.bool_]]]


def warn_of_covered_warmup(config: DQARConfig, snr: npt.NDArray[np.float64], num_layers: int) -> None:
    """Warn of a changed `warmup_steps` or `warmup_fraction` without which the same could be reused.

    Args:
        config: What is reused.
        snr: Signal-to-noise ratio of each step, `[steps]`.
        num_layers: Layers that DQAR manages.
    """
    asked = changed(config)
    for name in ("warmup_steps", "warmup_fraction"):
        if config.plan_path is None and asked.get(name):
            with warned_before(asked):
                without = config.replace(**{name: 0})
            if _same(_open(config, snr, num_layers), _open(without, snr, num_layers)):
                reason = "other rules cover it (the other warm-up, snr_low, snr_high or the layer schedule)"
                warn(f"{name} = {asked[name]} has no effect on these {len(snr)} steps: {reason}")


def _open(config: DQARConfig, snr: npt.NDArray[np.float64], num_layers: int) -> Rows:
    """For each step but the first whether anything may be reused, and which layers."""
    scheduler, steps = LayerScheduler(config, num_layers), len(snr)
    rows = []
    for step in range(1, steps):
        value = float(snr[step])
        allowed = blocked_step(config, step, steps, value) is Reason.REUSED
        rows.append((allowed, allowed & (scheduler.blocked(step, steps, value) == Reason.REUSED)))
    return rows


def _same(rows: Rows, others: Rows) -> bool:
    return all(a[0] == b[0] and np.array_equal(a[1], b[1]) for a, b in zip(rows, others, strict=True))
