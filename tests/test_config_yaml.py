"""The configuration as a file: the seed's own loads as it stands, and every field survives the way."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import yaml

import dqar
from dqar import DQARConfig

SHIPPED = Path(dqar.__file__).parent / "configs" / "default.yaml"

SEED = """
model:
  name: "facebook/DiT-XL-2-256"
  num_layers: 28
  num_heads: 16
  dtype: "float16"

reuse_gate:
  entropy_threshold: 2.0
  snr_low: 0.1
  snr_high: 10.0
  adaptive_entropy: true
  base_prompt_length: 77
  warmup_steps: 2

quantization:
  mode: "per_tensor"  # per_tensor, per_channel, per_head
  bits: 8
  cache_attention_output: true

layer_scheduling:
  enabled: true
  schedule_type: "step"  # linear, exponential, step
  early_phase_end: 0.3
  mid_phase_end: 0.7
  deep_layer_snr_threshold: 1.0

policy:
  enabled: false
  checkpoint_path: null
  hidden_dims: [64, 32]
  dropout: 0.1
  reuse_threshold: 0.5

sampler:
  type: "ddim"  # ddim, dpm_solver
  num_inference_steps: 50
  guidance_scale: 4.0
  eta: 0.0
  cfg_sharing: true
"""

# A value for each field that is not its default, all of them allowed together.
CHANGED = DQARConfig(
    entropy_threshold=2.5, snr_low=0.2, snr_high=9.0, adaptive_entropy=False, base_prompt_length=120,
    prompt_length=40, entropy_scales=(1.0, 0.5), warmup_steps=3, warmup_fraction=0.1, max_age=4,
    plan_path="plan.json", use_learned_policy=True, policy_path="policy", reuse_threshold=0.7,
    num_layers=2, num_heads=3, entropy_stride=7, entropy_interval=2, trace_entropy=True,
    use_layer_scheduling=True, schedule_type="custom", layer_fraction=0.5, early_phase_end=0.2,
    mid_phase_end=0.6, custom_schedule=(0.5, 1.1), adaptive_tolerance=0.3, probe_interval=5,
    deep_layer_snr_threshold=1.5, targets=("mlp", "both"), forecast_order=2, forecast_over="step",
    step_interval=2, model_steps=9, log_snr_share=0.4, guidance_interval=3, output_order=2,
    output_correction=0.4,
    deviation_tolerance=1.5, reuse_mode="kv", cfg_sharing=True, quantization_mode="per_head",
    quantization_bits=(4, 16),
)  # fmt: skip


def test_the_seeds_file_loads_as_it_stands() -> None:
    """The shipped default is the seed's to the value, and its keys reach the fields that they name."""
    assert yaml.safe_load(SHIPPED.read_text()) == yaml.safe_load(SEED)
    found = DQARConfig.from_yaml(SHIPPED)
    assert found == DQARConfig(
        entropy_threshold=2.0, snr_low=0.1, snr_high=10.0, adaptive_entropy=True, base_prompt_length=77,
        warmup_steps=2, quantization_mode="per_tensor", quantization_bits=8, reuse_mode="output",
        use_layer_scheduling=True, schedule_type="step", early_phase_end=0.3, mid_phase_end=0.7,
        deep_layer_snr_threshold=1.0, use_learned_policy=False, policy_path=None, reuse_threshold=0.5,
        cfg_sharing=True, num_layers=28, num_heads=16,
    )  # fmt: skip


@pytest.mark.parametrize("config", [DQARConfig(), CHANGED], ids=["defaults", "changed"])
def test_every_field_survives_the_file(config: DQARConfig, tmp_path: Path) -> None:
    """What `to_yaml` writes, `from_yaml` reads as the same configuration: infinities and tuples too."""
    config.to_yaml(tmp_path / "config.yaml")
    assert DQARConfig.from_yaml(tmp_path / "config.yaml") == config


def test_every_field_was_changed() -> None:
    """No field can be added without a value of its own in the test above."""
    defaults = dataclasses.asdict(DQARConfig())
    assert not [name for name, value in dataclasses.asdict(CHANGED).items() if value == defaults[name]]


def test_caching_keys_and_values_is_the_seeds_other_mode(tmp_path: Path) -> None:
    """`cache_attention_output: false` means K and V."""
    path = tmp_path / "config.yaml"
    path.write_text("quantization: {cache_attention_output: false}")
    assert DQARConfig.from_yaml(path).reuse_mode == "kv"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("reuse_gate: [", "is not YAML: "),
        ("- a list", "holds a list; allowed: sections model, reuse_gate"),
        ("gate: {}", "section 'gate' is not allowed; allowed: model, reuse_gate"),
        ("reuse_gate: {snr: 1}", "reuse_gate.snr = 1 is not allowed; allowed: adaptive_entropy, "),
        ("quantization: {bits: 7}", "quantization_bits = 7 is not allowed; allowed: 4, 8, 16"),
        ("a: !!python/object:os.system {}", "is not YAML: "),
    ],
)
def test_bad_files_are_one_line(text: str, said: str, tmp_path: Path) -> None:
    """What is no such file is named with its path, the key, the value and what is allowed."""
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ValueError) as error:
        DQARConfig.from_yaml(path)
    assert str(error.value).startswith(f"{path}: {said}") and "\n" not in str(error.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """A missing file is one line too."""
    with pytest.raises(ValueError, match="cannot be read: No such file"):
        DQARConfig.from_yaml(tmp_path / "none.yaml")
