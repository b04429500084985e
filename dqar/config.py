"""`DQARConfig`: every knob of the runtime, validated when it is made."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dqar.validation import check_fields, refusal

# The configurations published for DiT-XL/2: layers freed linearly after 20 % of the steps, with the
# step warm-up and the SNR and entropy gates off. Name -> share of the layers.
PRESETS = {"conservative": 0.33, "recommended": 0.50, "aggressive": 0.66, "maximum": 1.0}


@dataclass(frozen=True, kw_only=True)
class GateConfig:
    """When reuse is allowed at all. An infinite threshold (0 for a lower bound) switches its gate off.

    Raises `ValueError` with the field, the value and what is allowed.
    """

    entropy_threshold: float = math.inf
    """A layer is reused only while its attention entropy, in nats, is below this. Off by default: what
    entropy knows of the error, SNR knows better (`python -m bench signals`), and nats mean another thing
    on another model."""
    snr_low: float = 0.1
    """Reuse only at steps whose signal-to-noise ratio is at least this."""
    snr_high: float = math.inf
    """Reuse only at steps whose signal-to-noise ratio is at most this."""
    adaptive_entropy: bool = True
    """Scale the entropy threshold by sqrt(prompt_length / base_prompt_length)."""
    base_prompt_length: int = 77
    """Prompt tokens at which the entropy threshold is taken as it stands."""
    prompt_length: int | None = None
    """Prompt tokens; None = as many as the model is given, or the base where it has no prompt."""
    entropy_scales: tuple[float, ...] | None = None
    """A factor on the entropy threshold for each layer; None = 1 everywhere."""
    warmup_steps: int = 5
    """Steps at the start that reuse nothing."""
    warmup_fraction: float = 0.2
    """Share of the steps at the start that reuse nothing; both warm-ups hold."""
    max_age: int | None = 1
    """Steps that a cache entry may serve before it is computed again; None = without bound."""
    deviation_tolerance: float = math.inf
    """Run a step that would be foretold, where the last forecast of an output was off by more than this many
    times what the saved plan's calibration saw there (without a plan: by more than this share of the output);
    costs a host sync a step that runs. Infinite = never look."""
    plan_path: str | None = None
    """A plan's file, as `python -m bench calibrate` writes it, in place of warm-up, SNR window, layer
    schedule, age, the two intervals, and the fields that it names itself; what data forbids stays forbidden.
    None = by those."""
    use_learned_policy: bool = False
    """Let the policy of `policy_path` decide in place of the entropy and SNR thresholds."""
    policy_path: str | None = None
    """The learned policy's folder, as `ReusePolicy.save` writes it."""
    reuse_threshold: float | None = 0.5
    """The policy's probability from which a layer is reused; None = the one found in training."""

    def __post_init__(self) -> None:
        check_fields({field.name: getattr(self, field.name) for field in dataclasses.fields(self)})
        if self.snr_low > self.snr_high:
            raise refusal("snr_low", self.snr_low, f"at most snr_high = {self.snr_high}")
        if self.use_learned_policy and self.policy_path is None:
            raise refusal("policy_path", None, "a policy folder, with use_learned_policy = True")

    @property
    def entropy_gate(self) -> bool:
        """Whether entropy can forbid a reuse."""
        return math.isfinite(self.entropy_threshold) and not self.use_learned_policy

    @property
    def needs_entropy(self) -> bool:
        """Whether a decision waits for entropy."""
        return self.entropy_gate or self.use_learned_policy


@dataclass(frozen=True, kw_only=True)
class DQARConfig(GateConfig):
    """What may be reused, when, and how it is kept. Raises `ValueError` as `GateConfig` does."""

    num_layers: int = 28
    """Attention layers that DQAR manages, counted from the first; at most all that the model has."""
    num_heads: int = 16
    """Attention heads whose entropy is averaged, counted from the first; at most all."""
    entropy_stride: int = 15
    """Measure the entropy of every n-th query row; 1 = of all. Odd, so that on a grid of 8, 16 or 32
    tokens a row the queries come from many columns, not from one."""
    entropy_interval: int = 8
    """Measure a layer's entropy anew after so many steps, until then the last one counts; 1 = whenever
    the layer is computed. Entropy drifts slowly along a trajectory, and measuring it is what the gate
    costs."""
    trace_entropy: bool = False
    """Measure entropy whenever a layer is computed, also where no decision needs it."""
    use_layer_scheduling: bool = False
    """Free layers by the schedule below; without it all are free after the warm-up."""
    schedule_type: str = "step"
    """Which layers are free when: linear, linear_reverse, exponential, step, custom or adaptive."""
    layer_fraction: float = 1.0
    """Share of the layers that the schedule frees by the last step."""
    early_phase_end: float = 0.3
    """`step` schedule: share of the steps after which the middle phase begins."""
    mid_phase_end: float = 0.7
    """`step` schedule: share of the steps after which the late phase begins."""
    custom_schedule: tuple[float, ...] | None = None
    """`custom` schedule: for each layer the share of the steps after which it is free; > 1 = never."""
    adaptive_tolerance: float = 0.1
    """`adaptive` schedule: relative change of a layer's output up to which the cached one serves."""
    probe_interval: int = 8
    """`adaptive` schedule: each layer is computed at least every so many steps, to see its change."""
    deep_layer_snr_threshold: float | None = None
    """Reuse the deeper half of the layers only while the SNR is at least this; None = no such rule."""
    targets: str | tuple[str, ...] = "attention"
    """What a reuse serves: a layer's `attention`, its `mlp`, or `both`; one for all layers, or one each."""
    forecast_order: int = 0
    """Foretell a reused output by a polynomial of this order through the last computed ones; 0 = repeat the
    last one. A forecast's value is kept as computed, its differences at `quantization_bits`."""
    forecast_over: str = "log_snr"
    """What forecasts are over: `log_snr`, which is right on any spacing, or the `step`'s number."""
    step_interval: int = 1
    """Run the model every n-th step only, and foretell its output between; 1 = always."""
    model_steps: int | None = None
    """Run the model at so many steps, whatever warm-up, SNR window and `step_interval` say of whole steps,
    and foretell its output at the others; None = by these."""
    log_snr_share: float = 0.6
    """How far `model_steps` are spread by the steps' log-SNR, 1, instead of by their number, 0."""
    guidance_interval: int = 1
    """Run the unconditional branch every n-th step only, of those that run, and foretell what guidance adds;
    1 = always."""
    output_order: int = 1
    """Foretell the model's output, and what guidance adds to it, by a polynomial of this order."""
    output_correction: float = 0.5
    """Where the model runs after steps that were foretold, give the solver back this share of what their
    forecasts were off by, as the fresh output shows, 0 to 1. Half is best or nearly so from 10 to 25 steps of
    50, for a fresh output was itself made from a latent gone astray."""
    reuse_mode: str = "output"
    """Keep the attention's `output`, or its `kv` (fresh queries attend to cached keys and values)."""
    cfg_sharing: bool = False
    """Keep one guidance branch's entry, the conditional one's, and serve it to both: half the bytes. Off,
    though the seed has it on: in the suite `ablations`, with every second step reused, the drift was 0.34 by
    it and 0.10 without, and the two speedups could not be told apart. What one branch adds to the other is
    better foretold from the model's output (`guidance_interval`)."""
    quantization_mode: str = "per_tensor"
    """One int8 scale for each tensor, channel or head."""
    quantization_bits: int | tuple[int, ...] = 8
    """Bits of a cached number: 4, 8, or 16 = kept as computed; one for all layers, or one for each."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.early_phase_end > self.mid_phase_end:
            allowed = f"at most mid_phase_end = {self.mid_phase_end}"
            raise refusal("early_phase_end", self.early_phase_end, allowed)
        if (self.schedule_type == "custom") != (self.custom_schedule is not None):
            allowed = "a share of the steps for each layer with schedule_type = 'custom', else None"
            raise refusal("custom_schedule", self.custom_schedule, allowed)

    @classmethod
    def preset(cls, name: str, **overrides: Any) -> DQARConfig:
        """Return a published configuration by name, with `overrides` of single fields."""
        if name not in PRESETS:
            raise refusal("preset", name, ", ".join(PRESETS))
        published: dict[str, Any] = {
            "schedule_type": "linear",
            "layer_fraction": PRESETS[name],
            "warmup_fraction": 0.2,
            "warmup_steps": 0,
            "max_age": None,
            "use_layer_scheduling": True,
            "entropy_threshold": math.inf,
            "snr_low": 0.0,
            "snr_high": math.inf,
        }
        return cls(**published | overrides)

    @classmethod
    def from_yaml(cls, path: str | Path) -> DQARConfig:
        """Read a file laid out as `dqar/configs/default.yaml`. Raises `ValueError` naming file and key."""
        from dqar.config_yaml import read_config

        return read_config(Path(path))

    def to_yaml(self, path: str | Path) -> None:
        """Write the configuration so that `from_yaml` reads the same one."""
        from dqar.config_yaml import write_config

        write_config(self, Path(path))

    def replace(self, **overrides: Any) -> DQARConfig:
        """Return a copy with single fields changed."""
        return dataclasses.replace(self, **overrides)

    @property
    def corrects(self) -> bool:
        """Whether a step that would be foretold may run after all."""
        return math.isfinite(self.deviation_tolerance)

    @property
    def adaptive(self) -> bool:
        """Whether layers are freed by the change that is observed in their outputs."""
        return self.use_layer_scheduling and self.schedule_type == "adaptive"
