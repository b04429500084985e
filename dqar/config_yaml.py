"""`DQARConfig` as a YAML file in the layout of `dqar/configs/default.yaml`, the seed's."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import yaml

from dqar.config import DQARConfig

# Section -> key in the file -> field. A field whose key is its name needs no entry in a section of
# its own: it may stand in any section that lists it here.
LAYOUT: dict[str, dict[str, str]] = {
    "model": {"num_layers": "num_layers", "num_heads": "num_heads"},
    "reuse_gate": {
        name: name
        for name in (
            "entropy_threshold",
            "snr_low",
            "snr_high",
            "adaptive_entropy",
            "base_prompt_length",
            "prompt_length",
            "entropy_scales",
            "entropy_stride",
            "entropy_interval",
            "trace_entropy",
            "warmup_steps",
            "warmup_fraction",
            "max_age",
        )
    },
    "quantization": {"mode": "quantization_mode", "bits": "quantization_bits", "reuse_mode": "reuse_mode"},
    "layer_scheduling": {"enabled": "use_layer_scheduling"}
    | {
        name: name
        for name in (
            "schedule_type",
            "layer_fraction",
            "early_phase_end",
            "mid_phase_end",
            "custom_schedule",
            "adaptive_tolerance",
            "probe_interval",
            "deep_layer_snr_threshold",
        )
    },
    "policy": {
        "enabled": "use_learned_policy",
        "checkpoint_path": "policy_path",
        "reuse_threshold": "reuse_threshold",
    },
    "reuse": {
        name: name
        for name in (
            "targets",
            "forecast_order",
            "forecast_over",
            "step_interval",
            "model_steps",
            "log_snr_share",
            "guidance_interval",
            "output_order",
            "output_correction",
            "deviation_tolerance",
            "plan_path",
        )
    },
    "sampler": {"cfg_sharing": "cfg_sharing"},
}

# Keys of the seed's file that say which model to load, how to train a policy and how to sample.
ELSEWHERE = {
    "model": {"name", "dtype"},
    "quantization": {"cache_attention_output"},
    "policy": {"hidden_dims", "dropout"},
    "sampler": {"type", "num_inference_steps", "guidance_scale", "eta"},
}


def read_config(path: Path) -> DQARConfig:
    """Read `path`. Raises `ValueError` naming the file and the key, value or line that is wrong."""
    try:
        sections = yaml.safe_load(path.read_text()) or {}
        return DQARConfig(**_fields(sections))
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: is not YAML: {str(error).splitlines()[0]}") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def write_config(config: DQARConfig, path: Path) -> None:
    """Write every field of `config` to `path`."""
    values = {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(config).items()}
    sections = {
        section: {key: values[field] for key, field in keys.items()} for section, keys in LAYOUT.items()
    }
    path.write_text(yaml.safe_dump(sections, sort_keys=False))


def _fields(sections: Any) -> dict[str, Any]:
    if not isinstance(sections, dict):
        raise ValueError(f"holds a {type(sections).__name__}; allowed: sections {', '.join(LAYOUT)}")
    fields: dict[str, Any] = {}
    for section, entries in sections.items():
        if section not in LAYOUT:
            raise ValueError(f"section {section!r} is not allowed; allowed: {', '.join(LAYOUT)}")
        fields |= _section(section, entries or {})
    return fields


def _section(section: str, entries: dict[str, Any]) -> dict[str, Any]:
    known, elsewhere = LAYOUT[section], ELSEWHERE.get(section, set())
    fields = {}
    for key, value in entries.items():
        if key in known:
            fields[known[key]] = tuple(value) if isinstance(value, list) else value
        elif key not in elsewhere:
            allowed = ", ".join(sorted(elsewhere | known.keys()))
            raise ValueError(f"{section}.{key} = {value!r} is not allowed; allowed: {allowed}")
    if "cache_attention_output" in entries and "reuse_mode" not in entries:
        fields["reuse_mode"] = "output" if entries["cache_attention_output"] else "kv"
    return fields
