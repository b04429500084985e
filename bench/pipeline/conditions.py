"""What the images of a run are of: classes, or prompts, in the arguments that the pipeline takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench.pipeline.architectures import ARCHITECTURES
from bench.spec.run_spec import RunSpec


def numbers(spec: RunSpec, pipe: Any) -> list[int]:
    """The classes or prompts that images cycle through: image i is of numbers[i mod n].

    Args:
        spec: The configuration.
        pipe: Its pipeline, asked for the number of classes where nothing else states it.

    Returns:
        Labels, or indices of the suite's prompts.
    """
    if spec.prompts is not None:
        return list(range(len(spec.prompts.texts)))
    if spec.labels != "cycle":
        return list(spec.labels)
    if spec.model == "embedded":
        from bench.embedded import CLASSES

        return list(range(len(CLASSES)))
    return list(range(pipe.transformer.config.num_embeds_ada_norm))


def names(spec: RunSpec, pipe: Any) -> dict[int, str]:
    """What the numbers stand for.

    Args:
        spec: The configuration.
        pipe: Its pipeline, asked for the classes' names.

    Returns:
        Number -> the prompt, or the class's name where the model has one.
    """
    if spec.prompts is not None:
        return dict(enumerate(spec.prompts.texts))
    if spec.model == "embedded":
        from bench.embedded import CLASSES

        return dict(enumerate(CLASSES))
    return {number: name for name, number in getattr(pipe, "labels", {}).items()}


def arguments(spec: RunSpec, pipe: Any, chosen: Sequence[int]) -> dict[str, Any]:
    """The arguments of the pipeline's call that state what the images are of.

    Args:
        spec: The configuration.
        pipe: Its pipeline.
        chosen: Of `numbers`, one an image.

    Returns:
        By name, to be joined with those that every call has.
    """
    if spec.prompts is None:
        return {"class_labels": list(chosen)}
    if spec.weights == "random":  # there are no text encoders either
        return ARCHITECTURES[spec.model].arguments(chosen, pipe.transformer.dtype) | spec.call.given()
    call: dict[str, Any] = {"prompt": [spec.prompts.texts[number] for number in chosen]}
    if spec.prompts.has_negatives:
        call["negative_prompt"] = [spec.prompts.negatives[number] for number in chosen]
    return without_t5(pipe) | call | spec.call.given()


def without_t5(pipe: Any) -> dict[str, Any]:
    """Stable Diffusion 3 without its T5 puts zero tokens in its place, as many as this argument gives.

    Args:
        pipe: A pipeline of diffusers.

    Returns:
        The argument for such a pipeline; empty for any other.
    """
    absent = hasattr(pipe, "text_encoder_3") and pipe.text_encoder_3 is None
    return {"max_sequence_length": 1} if absent else {}
