"""Configurations by name: the published ones, and the one that `enable` uses where it is given none."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from dqar.errors import invalid_value

# The configurations published for DiT-XL/2: layers are enabled linearly after 20 % of the steps, with the
# step warm-up and the SNR and entropy gates off. Name -> share of the layers.
PRESETS = {"conservative": 0.33, "recommended": 0.50, "aggressive": 0.66, "maximum": 1.0}

# What `enable` does where no configuration is given: of what needs no calibration the fastest that loses
# nothing measurable on the text-to-image model that ships; on the other, what it loses differs with the
# images (reports/embedded, reports/generality). No layer reuses anything; one step of five is skipped.
BALANCED = "balanced"

# Where so many steps run they are best spread by more log-SNR than the default of `log_snr_share`.
_BALANCED = {"use_layer_scheduling": True, "layer_fraction": 0.0, "model_steps": 0.8, "log_snr_share": 0.6}
_PUBLISHED = {
    "schedule_type": "linear",
    "warmup_fraction": 0.2,
    "warmup_steps": 0,
    "max_age": None,
    "use_layer_scheduling": True,
    "entropy_threshold": math.inf,
    "snr_low": 0.0,
    "snr_high": math.inf,
    "forecast_order": 0,
}


def preset_fields(name: str, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a configuration by its name, with some of them set otherwise.

    Args:
        name: One of `PRESETS`, or `BALANCED`.
        overrides: Fields to set otherwise; without layer scheduling the published schedule is left out.

    Returns:
        Values by name of the `DQARConfig` fields that differ from their defaults.

    Raises:
        InvalidValue: For an unknown name.
    """
    if name == BALANCED:
        return {**_BALANCED, **overrides}
    if name not in PRESETS:
        raise invalid_value("preset", name, ", ".join((BALANCED, *PRESETS)))
    published = _PUBLISHED | {"layer_fraction": PRESETS[name]}
    if overrides.get("use_layer_scheduling") is False:
        del published["schedule_type"], published["layer_fraction"]  # they would have no effect
    return {**published, **overrides}
