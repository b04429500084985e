"""What each field of a configuration may hold, and the one line that says so when it does not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

QUANTIZATION_MODES = ("per_tensor", "per_channel", "per_head")
QUANTIZATION_BITS = (4, 8, 16)
SCHEDULE_TYPES = ("linear", "linear_reverse", "exponential", "step", "custom", "adaptive")
REUSE_MODES = ("output", "kv")
TARGETS = ("attention", "mlp", "both")
FORECASTS = ("log_snr", "step")

Rule = tuple[Callable[[Any], bool], str]  # whether a value is allowed, and the same in words


def check_fields(values: Mapping[str, Any]) -> None:
    """Raise `ValueError` with field, value and what is allowed for the first that is out of range."""
    for name, value in values.items():
        allows, allowed = RULES[name]
        if not _holds(allows, value):
            raise refusal(name, value, allowed)


def refusal(field: str, value: Any, allowed: str) -> ValueError:
    """The error that refuses a value."""
    return ValueError(f"{field} = {value!r} is not allowed; allowed: {allowed}")


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _holds(allows: Callable[[Any], bool], value: Any) -> bool:
    try:
        return bool(allows(value))
    except TypeError:
        return False


def _as_tuple(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def _flag() -> Rule:
    return lambda v: isinstance(v, bool), "true or false"


def _count(low: int) -> Rule:
    return lambda v: _is_int(v) and v >= low, f"a whole number, at least {low}"


def _optional_count(low: int) -> Rule:
    return lambda v: v is None or (_is_int(v) and v >= low), (f"None, or a whole number, at least {low}")


def _threshold() -> Rule:
    return lambda v: _is_number(v) and v >= 0, "a number, 0 to infinity"


def _share() -> Rule:
    return lambda v: _is_number(v) and 0 <= v <= 1, "a number from 0 to 1"


def _choice(values: tuple[Any, ...]) -> Rule:
    return lambda v: v in values and not isinstance(v, bool), ", ".join(map(str, values))


def _each_layer() -> Rule:
    def allows(v: Any) -> bool:
        return v is None or (isinstance(v, tuple) and len(v) > 0 and all(_is_number(x) and x >= 0 for x in v))

    return allows, "None, or a tuple of numbers from 0 up, one a layer"


# Field -> (what it must satisfy, the same in words for the error).
RULES: dict[str, Rule] = {
    "num_layers": _count(1),
    "num_heads": _count(1),
    "entropy_threshold": _threshold(),
    "snr_low": _threshold(),
    "snr_high": _threshold(),
    "adaptive_entropy": _flag(),
    "base_prompt_length": _count(1),
    "prompt_length": _optional_count(1),
    "entropy_scales": _each_layer(),
    "entropy_stride": _count(1),
    "entropy_interval": _count(1),
    "trace_entropy": _flag(),
    "warmup_steps": _count(0),
    "warmup_fraction": (
        lambda v: _is_number(v) and 0 <= v < 1,
        "a number from 0 to 1, 1 left out",
    ),
    "use_layer_scheduling": _flag(),
    "schedule_type": _choice(SCHEDULE_TYPES),
    "layer_fraction": _share(),
    "early_phase_end": _share(),
    "mid_phase_end": _share(),
    "custom_schedule": _each_layer(),
    "deep_layer_snr_threshold": (
        lambda v: v is None or (_is_number(v) and v >= 0),
        "None, or a number from 0 up",
    ),
    "adaptive_tolerance": _threshold(),
    "probe_interval": _count(2),
    "max_age": _optional_count(1),
    "plan_path": (lambda v: v is None or (isinstance(v, str) and v != ""), "None, or the path of a file"),
    "use_learned_policy": _flag(),
    "policy_path": (lambda v: v is None or (isinstance(v, str) and v != ""), "None, or the path of a folder"),
    "reuse_threshold": (
        lambda v: v is None or (_is_number(v) and 0 <= v <= 1),
        "None, or a number from 0 to 1",
    ),
    "cfg_sharing": _flag(),
    "targets": (
        lambda v: all(target in TARGETS for target in _as_tuple(v)) and v != (),
        "attention, mlp, both, or a tuple of these, one a layer",
    ),
    "forecast_order": _choice((0, 1, 2)),
    "forecast_over": _choice(FORECASTS),
    "step_interval": _count(1),
    "model_steps": _optional_count(2),
    "log_snr_share": _share(),
    "guidance_interval": _count(1),
    "output_order": _choice((0, 1, 2)),
    "output_correction": _share(),
    "deviation_tolerance": _threshold(),
    "reuse_mode": _choice(REUSE_MODES),
    "quantization_mode": _choice(QUANTIZATION_MODES),
    "quantization_bits": (
        lambda v: all(_is_int(bits) and bits in QUANTIZATION_BITS for bits in _as_tuple(v)) and v != (),
        "4, 8, 16, or a tuple of these, one a layer",
    ),
}
