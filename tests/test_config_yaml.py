"""The configuration as a file: the original specification's own loads, and every field survives the way."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import dqar
from dqar import DQARConfig
from dqar.config_yaml import OTHER_KEYS
from dqar.errors import DQARError, DQARWarning
from dqar.experiment import Experiment
from dqar.integration import DQARDDIMSampler, DQARDiTWrapper, SamplerConfig

pytestmark = pytest.mark.filterwarnings("ignore::dqar.errors.DQARWarning")

SHIPPED = Path(dqar.__file__).parent / "configs" / "default.yaml"

ORIGINAL = """
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


def test_the_original_file_loads_as_it_stands() -> None:
    """The shipped default is the original specification's, and its keys reach the fields that they name."""
    assert yaml.safe_load(SHIPPED.read_text()) == yaml.safe_load(ORIGINAL)
    shipped = DQARConfig.from_yaml(SHIPPED)
    assert shipped == DQARConfig(
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


def test_caching_keys_and_values_is_the_other_mode(tmp_path: Path) -> None:
    """`cache_attention_output: false` means K and V."""
    path = tmp_path / "config.yaml"
    path.write_text("quantization: {cache_attention_output: false}")
    assert DQARConfig.from_yaml(path).reuse_mode == "kv"


BAD = {
    "reuse_gate: [": "is not YAML: ",
    "- a list": "the file = ['a list'] is not allowed; allowed: the sections model, reuse_gate",
    "5": "the file = 5 is not allowed; ",
    "gate: {}": "section = 'gate' is not allowed; allowed: model, reuse_gate",
    "reuse_gate: 5": "reuse_gate = 5 is not allowed; allowed: a section with its keys",
    "reuse_gate: {snr: 1}": "reuse_gate.snr is not a key of this section; allowed: adaptive_entropy, ",
    "reuse_gate: {5: 1}": "key 5 is not text",
    "reuse_gate: {snr_low: 1, snr_low: 2}": "key 'snr_low' is there twice",
    "reuse_gate: {snr_low: .nan}": "snr_low = nan is not allowed; allowed: a number",
    "reuse_gate: {snr_low: {a: 1}}": "snr_low = {'a': 1} is not allowed",
    "reuse_gate: {warmup_fraction: .inf}": "warmup_fraction = inf is not allowed",
    f"model: {{num_layers: {'9' * 5000}}}": "is not YAML: ",
    f"model: {{num_layers: 0x{'f' * 5000}}}": "holds a whole number of more than 64 bits",
    f"model: {{num_layers: {2**63}}}": f"num_layers = {2**63} is not allowed",
    f"reuse: {{plan_path: [{'x' * 9999}]}}": "plan_path = ('xxx",
    "quantization: {bits: 7}": "quantization_bits = 7 is not allowed; allowed: 4, 8, 16",
    "quantization: {bits: true}": "quantization_bits = True is not allowed",
    "quantization: {cache_attention_output: 1}": "quantization.cache_attention_output = 1 is not allowed",
    "quantization: {cache_attention_output: true, reuse_mode: kv}": "what agrees with reuse_mode = 'kv'",
    "model: {dtype: float8}": "model.dtype = 'float8' is not allowed; allowed: float32, float16, bfloat16",
    "model: {name: 5}": "model.name = 5 is not allowed",
    "sampler: {type: euler}": "sampler.type = 'euler' is not allowed; allowed: ddim, dpm_solver",
    "sampler: {num_inference_steps: 0}": "sampler.num_inference_steps = 0 is not allowed",
    "sampler: {guidance_scale: -1}": "sampler.guidance_scale = -1 is not allowed",
    "sampler: {eta: 2}": "sampler.eta = 2 is not allowed",
    "policy: {hidden_dims: [0]}": "policy.hidden_dims = (0,) is not allowed",
    "policy: {dropout: 1.0}": "policy.dropout = 1.0 is not allowed",
    "a: !!python/object:os.system {}": "is not YAML: ",
}


@pytest.mark.parametrize(("text", "problem"), BAD.items(), ids=[text[:40] for text in BAD])
def test_bad_files_are_one_line(text: str, problem: str, tmp_path: Path) -> None:
    """What is no such file is named with its path, the key, the value and what is allowed, and is short."""
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(DQARError) as error:
        DQARConfig.from_yaml(path)
    message = str(error.value)
    assert str(path) in message and problem in message and "\n" not in message and len(message) < 700


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """A missing file is one line too."""
    with pytest.raises(DQARError, match="cannot be read: No such file"):
        DQARConfig.from_yaml(tmp_path / "none.yaml")


def test_every_key_is_used_or_named(tmp_path: Path) -> None:
    """Keys that are not DQAR's are named in a warning that points here, and `Experiment` uses each."""
    with pytest.warns(DQARWarning) as caught:
        DQARConfig.from_yaml(SHIPPED)
    (warning,) = caught
    for section, keys in OTHER_KEYS.items():
        assert all(f"{section}.{key}" in str(warning.message) for key in keys)
    assert warning.filename == __file__
    text = ORIGINAL.replace("float16", "bfloat16").replace("ddim", "dpm_solver").replace("4.0", "1.5")
    text = text.replace("50", "20").replace("[64, 32]", "[8]").replace("DiT-XL-2-256", "other")
    text = text.replace("dropout: 0.1", "dropout: 0.2").replace("snr_low: 0.1", "snr_low: 0.3")
    (tmp_path / "config.yaml").write_text(text)
    experiment = Experiment.from_yaml(tmp_path / "config.yaml")
    assert (experiment.model, experiment.dtype) == ("facebook/other", torch.bfloat16)
    assert experiment.sampler_type == "dpm_solver" and experiment.config.snr_low == 0.3
    assert experiment.sampling == SamplerConfig(num_inference_steps=20, guidance_scale=1.5)
    policy = experiment.make_policy()
    assert (policy.hidden_dims, policy.dropout) == ((8,), 0.2)


def test_an_experiment_runs_from_its_file(tiny_model_dir: Path, tmp_path: Path) -> None:
    """Model, reuse and sampler of one file make the latents that the same parts made by hand make."""
    text = f"model: {{name: {tiny_model_dir}, dtype: float32}}\nsampler: {{num_inference_steps: 4}}"
    (tmp_path / "config.yaml").write_text(text)
    experiment = Experiment.from_yaml(tmp_path / "config.yaml")
    pipe = experiment.load_model()
    latents: Any = experiment.sampler(pipe).sample(1, [3], torch.Generator().manual_seed(0))
    pipe = experiment.load_model()
    sampling = SamplerConfig(num_inference_steps=4)
    by_hand = DQARDDIMSampler(DQARDiTWrapper(pipe.transformer, DQARConfig()), pipe.scheduler, sampling)
    sampled: Any = by_hand.sample(1, [3], torch.Generator().manual_seed(0))
    assert torch.equal(latents, sampled)
