"""Metrics of both shipped models that any guidance has: measured, and added to the model's metrics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from bench.embedded.metrics_file import add
from bench.machine.device import sample_dtype

MODELS = ("embedded", "embedded-t2i")
SAMPLES = {"embedded": 1000, "embedded-t2i": 500}
GUIDANCE = {"embedded": 2.0, "embedded-t2i": 3.0}  # the lowest distance of those tried
STEPS = {"embedded": 20, "embedded-t2i": 28}  # of DPM-Solver++, and of the model's own Euler


def check(model: str) -> None:
    """Refuse a model that does not ship.

    Args:
        model: its name.

    Raises:
        ValueError: it is none of MODELS.
    """
    if model not in MODELS:
        raise ValueError(f"--model: {model!r}; allowed: {', '.join(MODELS)}")


def sampled(model: str, wanted: Any, guidance: float) -> Tensor:
    """Generate samples with the steps of STEPS.

    Args:
        model: one of MODELS.
        wanted: labels `[n]`, or the prompts of embedded-t2i.
        guidance: weight of classifier-free guidance.

    Returns:
        uint8 `[n, 3, 64, 64]`.
    """
    from bench.embedded import evaluate, load_pipeline, load_text_pipeline
    from bench.embedded.text_to_image import evaluate as text_evaluate
    from bench.methods.scheduler import from_pipeline

    dtype = sample_dtype()
    if model == "embedded-t2i":
        return text_evaluate.sample(load_text_pipeline(dtype), wanted, guidance, steps=STEPS[model])
    dit = load_pipeline(dtype)
    dit.scheduler = from_pipeline(dit, "dpm_solver++")
    return evaluate.sample(dit, wanted, guidance, steps=STEPS[model])


def distances(model: str, work: Path, samples: int | None, guidance: float | None) -> dict[str, Any]:
    """Measure Fréchet distances to held-out images, and add them to the model's metrics.

    Args:
        model: one of MODELS.
        work: the directory of the data.
        samples: number of images; None: SAMPLES.
        guidance: weight of classifier-free guidance; None: GUIDANCE.

    Returns:
        The distances with both numbers of images.

    Raises:
        ValueError: fewer than 2 images are asked for, or more prompts than there are held-out images.
    """
    n = SAMPLES[model] if samples is None else samples
    weight = GUIDANCE[model] if guidance is None else guidance
    values = (_text_distances if model == "embedded-t2i" else _class_distances)(work / "data", n, weight)
    add(model, "distance_at", f"{weight:g}", values)
    return values


def _class_distances(directory: Path, n: int, guidance: float) -> dict[str, Any]:
    from bench.embedded import data, evaluate

    _check_samples(n, None)
    dataset = data.load(directory)
    wanted = evaluate.like(dataset.split("heldout")[1], n)
    return evaluate.distances(dataset, sampled("embedded", wanted, guidance), wanted)


def _text_distances(directory: Path, n: int, guidance: float) -> dict[str, Any]:
    from bench.embedded.text_to_image import emoji
    from bench.embedded.text_to_image import evaluate as text_evaluate

    dataset = emoji.load(directory)
    _check_samples(n, len(dataset.rows("names")))
    rows = text_evaluate.choose(dataset, "names", n)
    images = sampled("embedded-t2i", text_evaluate.prompts_of(dataset, rows), guidance)
    return text_evaluate.distances(dataset, images, rows)


def _check_samples(n: int, most: int | None) -> None:
    if n < 2 or (most is not None and n > most):
        raise ValueError(f"--samples: {n}; allowed: 2 or more{f', at most {most}' if most else ''}")


def recognition(model: str, work: Path, each: int, guidance: float | None) -> dict[str, Any]:
    """Measure how many samples are recognised as their class, and add it to the model's metrics.

    Args:
        model: one of MODELS.
        work: the directory of the data.
        each: number of images of a class.
        guidance: weight of classifier-free guidance; None: GUIDANCE.

    Returns:
        The shares over all and by class, with the numbers of images.

    Raises:
        ValueError: `each` is below 1.
    """
    from bench.embedded import recognition as recognise
    from bench.embedded.extractor import extract
    from bench.embedded.text_to_image import emoji
    from bench.embedded.text_to_image import evaluate as text_evaluate

    if each < 1:
        raise ValueError(f"--each: {each}; allowed: 1 or more")
    weight = GUIDANCE[model] if guidance is None else guidance
    if model == "embedded-t2i":
        dataset = emoji.load(work / "data")
        rows, labels = recognise.signs_by_class(dataset, each)
        images = sampled(model, text_evaluate.prompts_of(dataset, rows), weight)
    else:
        labels = recognise.balanced(each)
        images = sampled(model, labels, weight)
    values = recognise.recognised(extract(images), labels)
    add(model, "recognised", f"{weight:g}", values)
    add("embedded", "recognised", "real", recognise.real())
    return values
