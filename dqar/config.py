"""`DQARConfig`: every option of the runtime, validated when it is made."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dqar.config_needs import (
    ATTENTION,
    BOTH_HALVES,
    ENTROPY_DECIDES,
    ENTROPY_MEASURED,
    FORECASTS,
    LAYERS,
    MODEL_STEPS,
    NO_MODEL_STEPS,
    NO_PLAN,
    NO_TRACE,
    QUANTIZED,
    SKIPPED_OUTPUTS,
)
from dqar.config_option import option, without_effect
from dqar.config_yaml import read_fields, write_fields
from dqar.core.gate_config import GateConfig, warned_before
from dqar.policy.schedule_config import ScheduleConfig
from dqar.presets import BALANCED, PRESETS, preset_fields
from dqar.validation import (
    FORECAST_COORDINATES,
    QUANTIZATION_BITS,
    QUANTIZATION_MODES,
    REUSE_MODES,
    TARGETS,
    choice,
    choice_or_share,
    count,
    count_or_share,
    flag,
    one_or_each_layer,
    optional,
    share,
)

__all__ = ["BALANCED", "PRESETS", "DQARConfig", "GateConfig"]

_GATE, _REUSE = "reuse_gate", "reuse"


@dataclass(frozen=True, kw_only=True, repr=False)
class DQARConfig(ScheduleConfig):
    """What may be reused, when, and how it is kept.

    What each field does, allows and needs stands in its `option`, and in the README's table. A field that was
    changed and has no effect as the others stand gives a `DQARWarning`.

    Raises:
        InvalidValue: With the field, the value and what is allowed.
    """

    num_layers: int = option(
        28,
        count(1),
        "model",
        "Layers that DQAR manages, counted from the first; at most all that the model has.",
    )
    num_heads: int = option(
        16,
        count(1),
        "model",
        "Attention heads whose entropy is averaged, counted from the first; at most all.",
    )
    entropy_stride: int = option(
        15,
        count(1),
        _GATE,
        """Measure the entropy of every n-th query row; 1 = of all. Odd by default, so that on a grid of 8, 16
        or 32 tokens a row the queries come from many columns, not from one.""",
        needs=(ENTROPY_MEASURED,),
    )
    entropy_interval: int = option(
        8,
        count(1),
        _GATE,
        """Measure a layer's entropy again after this many steps; until then the last value counts; 1 =
        whenever the layer is computed. Entropy drifts slowly along a trajectory, and measuring it is what the
        gate costs.""",
        needs=(ENTROPY_DECIDES, NO_TRACE),
    )
    trace_entropy: bool = option(
        False,
        flag(),
        _GATE,
        "Measure entropy whenever a layer is computed, also where no decision needs it.",
    )
    targets: str | tuple[str, ...] = option(
        "attention",
        one_or_each_layer(choice(TARGETS)),
        _REUSE,
        "What is reused of a layer: its attention, its mlp, or both; one for all layers, or one each.",
        needs=(LAYERS,),
    )
    forecast_order: int = option(
        1,
        choice((0, 1, 2)),
        _REUSE,
        """Forecast a reused output by a polynomial of this order through the last computed ones; 0 = repeat
        the last one. A forecast's value is kept as computed, its differences at `quantization_bits`. 1 by
        default (the original specification: 0): at the same reuse and the pipelines' own numbers of steps,
        the images lose nothing measurable on either model that ships, where repeating loses 20 and 25 % of
        the baseline's own drift.""",
        needs=(LAYERS,),
        neutral=(0,),
    )
    forecast_over: str | float = option(
        0.35,
        choice_or_share(FORECAST_COORDINATES),
        _REUSE,
        """The coordinate of forecasts: log_snr; step, its number; or a mixture of both, by the weight of
        log-SNR, as `log_snr_share` has it for `model_steps`. A mixture by default: on both models that ship,
        reused layers are forecast closer over it than over log-SNR, and skipped outputs no worse.""",
        needs=(FORECASTS,),
    )
    step_interval: int = option(
        1,
        count(1),
        _REUSE,
        "Run the model every n-th step only, and forecast its output at the others; 1 = always.",
        needs=(NO_MODEL_STEPS, NO_PLAN),
    )
    model_steps: int | float | None = option(
        None,
        optional(count_or_share(2)),
        _REUSE,
        """Run the model at this many steps, or this share of them, and forecast its output at the others. For
        whole steps this replaces warm-up, SNR window and `step_interval`; None = by these.""",
        needs=(NO_PLAN,),
    )
    log_snr_share: float = option(
        0.3,
        share(),
        _REUSE,
        "How far `model_steps` are spread evenly in the steps' log-SNR, 1, instead of in their number, 0.",
        needs=(MODEL_STEPS, NO_PLAN),
    )
    guidance_interval: int = option(
        1,
        count(1),
        _REUSE,
        """Run the unconditional branch every n-th step only, of those that run, and forecast what guidance
        adds; 1 = always.""",
        needs=(NO_PLAN,),
    )
    output_order: int = option(
        1,
        choice((0, 1, 2)),
        _REUSE,
        "Forecast the model's output, and what guidance adds to it, by a polynomial of this order.",
        needs=(SKIPPED_OUTPUTS,),
    )
    output_correction: float = option(
        0.25,
        share(),
        _REUSE,
        """Share of the skipped steps' accumulated forecast error that is corrected where the model runs
        again, 0 to 1. All of it is too much, for the fresh output was itself computed from an off-trajectory
        latent: of the models that ship a half is best on one, and nothing, or a quarter, on the other.""",
        needs=(SKIPPED_OUTPUTS,),
    )
    reuse_mode: str = option(
        "output",
        choice(REUSE_MODES),
        "quantization",
        "Keep the attention's output, or its kv: fresh queries attend to cached keys and values.",
        needs=(LAYERS, ATTENTION),
    )
    cfg_sharing: bool = option(
        False,
        flag(),
        "sampler",
        """Keep the conditional branch's entry alone and reuse it for both branches: half the bytes. Off by
        default (the original specification: on): in the suite `ablations`, with every second step reused, the
        drift was 0.34 with it and 0.10 without, at the same speed. What one branch adds to the other is
        better forecast from the model's output (`guidance_interval`).""",
        needs=(LAYERS, BOTH_HALVES),
    )
    quantization_mode: str = option(
        "per_tensor",
        choice(QUANTIZATION_MODES),
        "quantization",
        "Which numbers of a tensor share an int8 scale: all, those of a channel, or those of a head.",
        key="mode",
        needs=(LAYERS, QUANTIZED),
    )
    quantization_bits: int | tuple[int, ...] = option(
        8,
        one_or_each_layer(choice(QUANTIZATION_BITS)),
        "quantization",
        "Bits of a cached number: 4, 8, or 16 = kept as computed; one for all layers, or one each.",
        key="bits",
        needs=(LAYERS,),
    )

    @classmethod
    def preset(cls, name: str, **overrides: Any) -> DQARConfig:
        """Return a configuration by its name.

        Args:
            name: One of `PRESETS`, as published; or `BALANCED`, which `enable` uses where it is given none.
            **overrides: Fields to set otherwise.

        Returns:
            The configuration; what neither the preset nor `overrides` sets has its default.

        Raises:
            InvalidValue: For an unknown name, or a field that is out of range.
        """
        return cls(**preset_fields(name, overrides))

    @classmethod
    def from_yaml(cls, path: str | Path) -> DQARConfig:
        """Read a file laid out as `dqar/configs/default.yaml`.

        Keys of that layout that are not DQAR's (the model to load, the sampler, the training of a policy) are
        checked, and named in a `DQARWarning`: `Experiment.from_yaml` uses them.

        Args:
            path: The file; a key that it lacks has its field's default.

        Returns:
            The configuration.

        Raises:
            DQARError: With the file, the key, the value and what is allowed.
        """
        return read_fields(path, cls)

    def to_yaml(self, path: str | Path) -> None:
        """Write every field so that `from_yaml` reads the same configuration.

        Args:
            path: The file; it is replaced if it is there, whole or not at all.

        Raises:
            OSError: The file cannot be written.
        """
        write_fields(path, self)

    def replace(self, **overrides: Any) -> DQARConfig:
        """Copy the configuration with single fields changed; what had no effect before is not warned of
        again.

        Args:
            **overrides: Fields by name, and their new values.

        Returns:
            The copy.

        Raises:
            InvalidValue: A field is out of range.
        """
        with warned_before(without_effect(self)):
            return dataclasses.replace(self, **overrides)

    @property
    def corrects(self) -> bool:
        """Whether a step that would be skipped may run after all."""
        return math.isfinite(self.deviation_tolerance)
