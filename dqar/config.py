"""`DQARConfig`: every knob of the runtime, validated when it is made."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

QUANTIZATION_MODES = ("per_tensor", "per_channel", "per_head")
QUANTIZATION_BITS = (4, 8, 16)
SCHEDULE_TYPES = ("linear", "linear_reverse", "exponential", "step", "custom")
REUSE_MODES = ("output", "kv")

# The configurations published for DiT-XL/2: layers freed linearly after 20 % of the steps, with the
# step warm-up and the SNR and entropy gates off. Name -> share of the layers.
PRESETS = {"conservative": 0.33, "recommended": 0.50, "aggressive": 0.66, "maximum": 1.0}


@dataclass(frozen=True, kw_only=True)
class DQARConfig:
    """What may be reused, when, and how it is kept.

    A threshold of infinity (0 for a lower bound) switches its gate off. Raises `ValueError` with the
    field, the value and what is allowed.
    """

    num_layers: int = 28
    """Attention layers that DQAR manages, counted from the first; at most all that the model has."""
    num_heads: int = 16
    """Attention heads whose entropy is averaged, counted from the first; at most all."""
    entropy_threshold: float = 2.0
    """A layer is reused only while its attention entropy, in nats, is below this."""
    snr_low: float = 0.1
    """Reuse only at steps whose signal-to-noise ratio is at least this."""
    snr_high: float = 10.0
    """Reuse only at steps whose signal-to-noise ratio is at most this."""
    adaptive_entropy: bool = True
    """Scale the entropy threshold by sqrt(prompt_length / base_prompt_length)."""
    base_prompt_length: int = 77
    """Prompt tokens at which the entropy threshold is taken as it stands."""
    prompt_length: int | None = None
    """Prompt tokens; None = as many as the model is given, or the base where it has no prompt."""
    entropy_scales: tuple[float, ...] | None = None
    """A factor on the entropy threshold for each layer; None = 1 everywhere."""
    entropy_stride: int = 4
    """Measure the entropy of every n-th query row; 1 = of all."""
    trace_entropy: bool = False
    """Measure entropy on every computed layer, also where no decision needs it."""
    warmup_steps: int = 5
    """Steps at the start that reuse nothing."""
    warmup_fraction: float = 0.2
    """Share of the steps at the start that reuse nothing; both warm-ups hold."""
    use_layer_scheduling: bool = True
    """Free layers by the schedule below; without it all are free after the warm-up."""
    schedule_type: str = "step"
    """Which layers are free when: linear, linear_reverse, exponential, step or custom."""
    layer_fraction: float = 1.0
    """Share of the layers that the schedule frees by the last step."""
    early_phase_end: float = 0.3
    """`step` schedule: share of the steps after which the middle phase begins."""
    mid_phase_end: float = 0.7
    """`step` schedule: share of the steps after which the late phase begins."""
    custom_schedule: tuple[float, ...] | None = None
    """`custom` schedule: for each layer the share of the steps after which it is free; > 1 = never."""
    deep_layer_snr_threshold: float | None = None
    """Reuse the deeper half of the layers only while the SNR is at least this; None = no such rule."""
    max_age: int | None = None
    """Steps that a cache entry may serve before it is computed again; None = without bound."""
    reuse_mode: str = "output"
    """Keep the attention's `output`, or its `kv` (fresh queries attend to cached keys and values)."""
    quantization_mode: str = "per_tensor"
    """One int8 scale for each tensor, channel or head."""
    quantization_bits: int = 8
    """Bits of a cached number: 4, 8, or 16 = kept as computed."""

    def __post_init__(self) -> None:
        for name, (allows, allowed) in RULES.items():
            value = getattr(self, name)
            if not _holds(allows, value):
                raise ValueError(f"{name} = {value!r} is not allowed; allowed: {allowed}")
        self._check_pairs()

    def _check_pairs(self) -> None:
        if self.snr_low > self.snr_high:
            raise ValueError(
                f"snr_low = {self.snr_low!r} is not allowed; allowed: at most snr_high = {self.snr_high}"
            )
        if self.early_phase_end > self.mid_phase_end:
            raise ValueError(
                f"early_phase_end = {self.early_phase_end!r} is not allowed; "
                f"allowed: at most mid_phase_end = {self.mid_phase_end}"
            )
        if (self.schedule_type == "custom") != (self.custom_schedule is not None):
            raise ValueError(
                f"custom_schedule = {self.custom_schedule!r} is not allowed; "
                "allowed: a share of the steps for each layer with schedule_type = 'custom', else None"
            )

    @classmethod
    def preset(cls, name: str, **overrides: Any) -> DQARConfig:
        """Return a published configuration by name, with `overrides` of single fields."""
        if name not in PRESETS:
            raise ValueError(f"preset = {name!r} is not allowed; allowed: {', '.join(PRESETS)}")
        published: dict[str, Any] = {
            "schedule_type": "linear",
            "layer_fraction": PRESETS[name],
            "warmup_fraction": 0.2,
            "warmup_steps": 0,
            "entropy_threshold": math.inf,
            "snr_low": 0.0,
            "snr_high": math.inf,
        }
        return cls(**published | overrides)

    def replace(self, **overrides: Any) -> DQARConfig:
        """Return a copy with single fields changed."""
        return dataclasses.replace(self, **overrides)

    @property
    def entropy_gate(self) -> bool:
        """Whether entropy can forbid a reuse."""
        return math.isfinite(self.entropy_threshold)


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _holds(allows: Callable[[Any], bool], value: Any) -> bool:
    try:
        return bool(allows(value))
    except TypeError:
        return False


def _flag() -> tuple[Callable[[Any], bool], str]:
    return lambda v: isinstance(v, bool), "true or false"


def _count(low: int) -> tuple[Callable[[Any], bool], str]:
    return lambda v: _is_int(v) and v >= low, f"a whole number, at least {low}"


def _optional_count(low: int) -> tuple[Callable[[Any], bool], str]:
    return lambda v: v is None or (_is_int(v) and v >= low), (f"None, or a whole number, at least {low}")


def _threshold() -> tuple[Callable[[Any], bool], str]:
    return lambda v: _is_number(v) and v >= 0, "a number, 0 to infinity"


def _share() -> tuple[Callable[[Any], bool], str]:
    return lambda v: _is_number(v) and 0 <= v <= 1, "a number from 0 to 1"


def _choice(values: tuple[Any, ...]) -> tuple[Callable[[Any], bool], str]:
    return lambda v: v in values and not isinstance(v, bool), ", ".join(map(str, values))


def _each_layer() -> tuple[Callable[[Any], bool], str]:
    def allows(v: Any) -> bool:
        return v is None or (isinstance(v, tuple) and len(v) > 0 and all(_is_number(x) and x >= 0 for x in v))

    return allows, "None, or a tuple of numbers from 0 up, one a layer"


# Field -> (what it must satisfy, the same in words for the error).
RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
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
    "max_age": _optional_count(1),
    "reuse_mode": _choice(REUSE_MODES),
    "quantization_mode": _choice(QUANTIZATION_MODES),
    "quantization_bits": _choice(QUANTIZATION_BITS),
}
