"""What a model's configuration files state, without loading it or torch: for refusing what it cannot do."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.errors import BadInput, without_path
from dqar.core.noise_kind import solves_flow
from dqar.errors import InvalidFile
from dqar.utils.foreign import read_json

MOST_LAYERS = 1000  # the deepest diffusion transformers have about a hundred


@dataclass(frozen=True)
class ModelFacts:
    """Of a pipeline: None where its files do not state it."""

    layers: int | None  # transformer blocks
    classes: int | None  # labels of a class-conditional model
    class_names: dict[str, int]  # name -> label
    train_steps: int | None  # timesteps of the noise schedule: no sampling has more steps
    pipeline: str = "DiTPipeline"  # the name of its class in diffusers
    flow_matching: bool = False  # else a schedule that preserves the variance

    @classmethod
    def of(cls, directory: Path) -> ModelFacts:
        """Read the configuration files of a pipeline.

        Args:
            directory: The pipeline's; it has a model_index.json.

        Returns:
            What they state.

        Raises:
            BadInput: A file that cannot be read, or a value out of range.
        """
        transformer = component(directory, "transformer", "config.json")
        scheduler = component(directory, "scheduler", "scheduler_config.json")
        index = read(directory / "model_index.json")
        names = _class_names(index.get("id2label"))
        labels = max(names.values(), default=-1) + 1
        return cls(
            layers=_count(transformer, "num_layers", MOST_LAYERS),
            classes=labels or _count(transformer, "num_embeds_ada_norm", 10**6),
            class_names=names,
            train_steps=_count(scheduler, "num_train_timesteps", 10**6),
            pipeline=str(index.get("_class_name")),
            flow_matching=solves_flow(str(scheduler.get("_class_name")), scheduler),
        )


def shown(model: str) -> str:
    """A model in a message.

    Args:
        model: A name, a directory or a hub id.

    Returns:
        Quoted, a directory without the path of this machine.
    """
    return repr(Path(model).name if "/" in model and Path(model).exists() else model)


def component(directory: Path, name: str, file: str) -> dict[str, Any]:
    """The configuration of a part of the pipeline.

    Args:
        directory: The pipeline's.
        name: The part's directory in it.
        file: Name of the configuration file.

    Returns:
        Its content; empty where the file is missing.
    """
    path = directory / name / file
    return read(path) if path.exists() else {}


def read(path: Path) -> dict[str, Any]:
    """Read a JSON object of a model.

    Args:
        path: The file.

    Returns:
        Its content.

    Raises:
        BadInput: It is missing or no JSON object; the file is named by the last two parts of its path.
    """
    try:
        content = read_json(path, "model")
    except InvalidFile as error:
        shown = "/".join(path.parts[-2:])
        why = without_path(error, path)
        raise BadInput(f"model: {shown}: {'missing' if not path.exists() else why}") from error
    if not isinstance(content, dict):
        raise BadInput(f"model: {'/'.join(path.parts[-2:])}: not a JSON object")
    return content


def _class_names(listed: Any) -> dict[str, int]:
    """diffusers lists a label's synonyms with commas."""
    if not isinstance(listed, dict):
        return {}
    pairs = [
        (name, int(label))
        for label, names in listed.items()
        if label.isdigit()
        for name in str(names).split(",")
    ]
    return {name.strip(): label for name, label in pairs}


def _count(config: dict[str, Any], field: str, most: int) -> int | None:
    value = config.get(field)
    if value is None:
        return None
    if not (type(value) is int and 1 <= value <= most):
        raise BadInput(f"model: {field}: {json.dumps(value)[:200]} is not allowed; allowed: 1 to {most}")
    return value
