"""A configuration as YAML, in the layout of the original specification's `dqar/configs/default.yaml`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml

from dqar.config_option import options
from dqar.errors import DQARError, InvalidFile, invalid_value, short_repr
from dqar.utils.atomic import write_atomic
from dqar.utils.foreign import read_yaml
from dqar.utils.warn import warn
from dqar.validation import Rule, choice, count, each_layer, finite, flag, share, text

SECTIONS = ("model", "reuse_gate", "quantization", "layer_scheduling", "policy", "reuse", "sampler")

# Keys of the original specification's file that are no field of `DQARConfig`, and what they may hold;
# `Experiment` uses them.
OTHER_KEYS: dict[str, dict[str, Rule]] = {
    "model": {"name": text("a directory or hub id"), "dtype": choice(("float32", "float16", "bfloat16"))},
    "policy": {"hidden_dims": each_layer(count(1)), "dropout": share(below_one=True)},
    "sampler": {
        "type": choice(("ddim", "dpm_solver")),
        "num_inference_steps": count(1),
        "guidance_scale": finite(),
        "eta": share(),
    },
}
_OUTPUT = (
    "cache_attention_output"  # in `quantization`: the original specification's name for two of `reuse_mode`
)

Sections = dict[str, dict[str, Any]]
Config = TypeVar("Config")


def read_fields(path: str | Path, kind: type[Config]) -> Config:
    """Read a configuration of class `kind`, and warn of the keys that are not its own.

    Args:
        path: The file.
        kind: A dataclass whose fields are all declared by `option`.

    Returns:
        The configuration; a field that the file lacks has its default.

    Raises:
        DQARError: With the file, the key, the value and what is allowed.
    """
    config, others = read_file(path, kind)
    left = ", ".join(f"{section}.{key}" for section in others for key in others[section])
    if left:
        owner = "dqar.experiment.Experiment"
        warn(f"{path}: not used, for they are no fields of {kind.__name__} but of {owner}: {left}")
    return config


def read_file(path: str | Path, kind: type[Config]) -> tuple[Config, Sections]:
    """Read a configuration of class `kind`, and the sections' keys in `OTHER_KEYS`.

    Args:
        path: The file.
        kind: A dataclass whose fields are all declared by `option`.

    Returns:
        The configuration, and section -> key -> value of the keys in `OTHER_KEYS` that the file has.

    Raises:
        DQARError: With the file, the key, the value and what is allowed.
    """
    content = read_yaml(path, "config", infinite=True)
    try:
        fields, others = _split(_sections(content), layout(kind))
        return kind(**fields), others
    except DQARError as error:
        raise InvalidFile(f"{path}: {error}") from error


def write_fields(path: str | Path, config: Any) -> None:
    """Write every field of `config`.

    Args:
        path: The file; it is replaced if it is there, whole or not at all.
        config: An object of a configuration class.

    Raises:
        OSError: The file cannot be written.
    """
    values = {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(config).items()}
    sections = {
        section: {key: values[name] for key, name in keys.items()}
        for section, keys in layout(type(config)).items()
    }
    write_atomic(path, yaml.safe_dump(sections, sort_keys=False))


def layout(kind: type[Any]) -> dict[str, dict[str, str]]:
    """Where the YAML file holds the fields of a configuration class.

    Args:
        kind: A dataclass whose fields are all declared by `option`.

    Returns:
        Section -> key -> field name; every section is there, even one without fields.
    """
    sections: dict[str, dict[str, str]] = {section: {} for section in SECTIONS}
    for name, option in options(kind).items():
        sections[option.section][option.key or name] = name
    return sections


def _sections(content: Any) -> Sections:
    """The file's sections, checked to be mappings of known names."""
    content = {} if content is None else content
    if not isinstance(content, dict):
        raise invalid_value("the file", content, f"the sections {', '.join(SECTIONS)}")
    for name, entries in content.items():
        if name not in SECTIONS:
            raise invalid_value("section", name, ", ".join(SECTIONS))
        if not isinstance(entries, (dict, type(None))):
            raise invalid_value(name, entries, "a section with its keys")
    return {name: entries or {} for name, entries in content.items()}


def _split(sections: Sections, known: Mapping[str, Mapping[str, str]]) -> tuple[dict[str, Any], Sections]:
    """The fields by name, and the other keys by section."""
    fields: dict[str, Any] = {}
    others: Sections = {}
    for section, entries in sections.items():
        rules = OTHER_KEYS.get(section, {})
        for key, given in entries.items():
            value = tuple(given) if isinstance(given, list) else given
            if key in known[section]:
                fields[known[section][key]] = value
            elif key in rules:
                rules[key].check(f"{section}.{key}", value)
                others.setdefault(section, {})[key] = value
            elif (section, key) == ("quantization", _OUTPUT):
                _use_output_flag(value, entries, fields)
            else:
                allowed = ", ".join(sorted(known[section].keys() | rules.keys()))
                raise InvalidFile(f"{section}.{key} is not a key of this section; allowed: {allowed}")
    return fields, others


def _use_output_flag(value: Any, entries: Mapping[str, Any], fields: dict[str, Any]) -> None:
    """Read `cache_attention_output`, true or false, as the `reuse_mode` output or kv."""
    flag().check(f"quantization.{_OUTPUT}", value)
    mode = "output" if value else "kv"
    if entries.get("reuse_mode", mode) != mode:
        raise invalid_value(
            f"quantization.{_OUTPUT}",
            value,
            f"what agrees with reuse_mode = {short_repr(entries['reuse_mode'])}",
        )
    fields["reuse_mode"] = mode
