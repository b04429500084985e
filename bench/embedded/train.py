"""`python -m bench.embedded.train`: everything from the images to the shipped model."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from bench.embedded import classifier, data, dit, export, metrics_file, shipped, vae
from bench.embedded.loop import Budget, parse_until
from bench.embedded.text_to_image import emoji, mmdit_training, scorer_training

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"max_content_width": 100},
)

Work = Annotated[Path, typer.Option(help="Directory of the data and the checkpoints.")]
Minutes = Annotated[float, typer.Option(help="Time in minutes to train for, pauses not counted; above 0.")]
Until = Annotated[
    str, typer.Option(help="Local time (HH:MM) at which training ends at the latest.", show_default="none")
]
Steps = Annotated[
    int | None, typer.Option(help="Number of steps, in place of the minutes; 1 or more.", show_default="none")
]
Weights = Annotated[
    Path | None,
    typer.Option(
        help="Directory of a trained transformer to go on from, such as bench/embedded/model/transformer.",
        show_default="new weights",
    ),
]
Model = Annotated[str, typer.Option(help="The model to sample: embedded or embedded-t2i.")]
Guidance = Annotated[
    float | None,
    typer.Option(help="Weight of classifier-free guidance.", show_default="1.5; embedded-t2i 3"),
]
WORK = Path(".embedded-training")
HERE = Path(__file__).parent


def command(name: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A decorator that registers a function as the command `name`.

    Args:
        name: the word that calls it.

    Returns:
        The decorator; a list of commands shows the first line of the function's docstring whole.
    """
    return lambda function: app.command(name, short_help=function.__doc__)(function)


def budget(minutes: float, until: str, steps: int | None) -> Budget:
    """The budget that the options name.

    Args:
        minutes: busy minutes to train for, above 0.
        until: local time HH:MM at which training ends at the latest; empty: no limit.
        steps: number of steps in place of the minutes, 1 or more; None: the minutes count.

    Returns:
        The budget, nothing of it spent.
    """
    moment: datetime | None = parse_until(until) if until else None
    return Budget(minutes=minutes, until=moment, steps=steps)


@app.callback()
def main() -> None:
    """Train the models of bench/embedded; each part resumes from its checkpoint."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1 if "WORLD_SIZE" in os.environ else 2)  # torchrun's processes share the cores


@command("data")
def data_command(work: Work = WORK) -> None:
    """Fetch the images with `npm pack`, and write the dataset."""
    data.load(work / "data")


@command("vae")
def vae_command(minutes: Minutes = 14, until: Until = "", steps: Steps = None, work: Work = WORK) -> None:
    """Train the autoencoder of both models."""
    vae.train(data.load(work / "data"), work, budget(minutes, until, steps))


@command("dit")
def dit_command(
    minutes: Minutes = 60,
    until: Until = "",
    steps: Steps = None,
    work: Work = WORK,
    weights: Weights = None,
) -> None:
    """Train the class-conditional transformer on the autoencoder's latents."""
    dataset = data.load(work / "data")
    dit.train(dataset, vae.load_folded(dataset, work), work, budget(minutes, until, steps), weights)


@command("extractor")
def extractor_command(
    minutes: Minutes = 1.7, until: Until = "", steps: Steps = None, work: Work = WORK
) -> None:
    """Train the feature extractor, and write it and the reference features."""
    dataset = data.load(work / "data")
    classifier.train(dataset, work, budget(minutes, until, steps))
    classifier.export(dataset, work)
    accuracy = classifier.accuracy(classifier.load(work), dataset)
    metrics_file.put("embedded", "extractor_accuracy_heldout", accuracy)


@command("export")
def export_command(work: Work = WORK) -> None:
    """Write the class-conditional pipeline's directory from the checkpoints."""
    export.write_model(data.load(work / "data"), work)


@command("evaluate")
def evaluate_command(
    samples: Annotated[int, typer.Option(help="Number of images to generate; 1 or more.")] = 1000,
    guidance: Annotated[float, typer.Option(help="Weight of classifier-free guidance.")] = 4.0,
    work: Work = WORK,
) -> None:
    """Measure the class-conditional values of the README, and draw its grid."""
    from bench.embedded import evaluate

    dataset = data.load(work / "data")
    wanted = evaluate.like(dataset.split("heldout")[1], samples)
    painted = shipped.sampled("embedded", wanted, guidance)
    evaluate.grid(painted, wanted).save(HERE / "samples.webp", quality=70, method=6)
    values = evaluate.metrics(dataset, painted, wanted, work)
    print(metrics_file.write(HERE, {"guidance": guidance, "steps": shipped.STEPS["embedded"], **values}))


@command("distance")
def distance_command(
    model: Model = "embedded",
    samples: Annotated[
        int | None, typer.Option(help="Number of images to generate.", show_default="1000; embedded-t2i 500")
    ] = None,
    guidance: Guidance = None,
    work: Work = WORK,
) -> None:
    """Measure the Fréchet distances of a model's samples at any guidance, and add them to its metrics."""
    shipped.check(model)
    values = shipped.distances(model, work, samples, guidance)
    print(json.dumps(values, indent=2))


@command("recognise")
def recognise_command(
    model: Model = "embedded",
    each: Annotated[int, typer.Option(help="Number of images of each class; 1 or more.")] = 8,
    guidance: Guidance = None,
    work: Work = WORK,
) -> None:
    """Measure how many of a model's samples are recognised as their class, and add it to its metrics."""
    shipped.check(model)
    print(json.dumps(shipped.recognition(model, work, each, guidance), indent=2))


@command("mmdit")
def mmdit_command(minutes: Minutes = 90, until: Until = "", steps: Steps = None, work: Work = WORK) -> None:
    """Train the text-to-image transformer and its text encoders on the autoencoder's latents."""
    mmdit_training.train(emoji.load(work / "data"), work, budget(minutes, until, steps))


@command("scorer")
def scorer_command(minutes: Minutes = 8, until: Until = "", steps: Steps = None, work: Work = WORK) -> None:
    """Train the scorer of images against prompts, and write it."""
    scorer_training.train(emoji.load(work / "data"), work, budget(minutes, until, steps))
    scorer_training.export(work)


@command("export-text")
def export_text_command(work: Work = WORK) -> None:
    """Write the text-to-image pipeline's directory from the checkpoint, and its reference features."""
    from bench.embedded.text_to_image import export as text_export
    from bench.embedded.text_to_image import reference

    text_export.write_model(work)
    reference.write(emoji.load(work / "data"))


@command("evaluate-text")
def evaluate_text_command(
    samples: Annotated[
        int, typer.Option(help="Number of images to generate for each split; 1 or more.")
    ] = 500,
    work: Work = WORK,
) -> None:
    """Measure the text-to-image values of the README, and draw its grid."""
    from bench.embedded.text_to_image import evaluate as text_evaluate

    print(text_evaluate.write(emoji.load(work / "data"), samples))


@command("text")
def text_command(work: Work = WORK) -> None:
    """Run every part of the text-to-image model in order, for the times of the shipped one."""
    for part in (scorer_command, mmdit_command, export_text_command, evaluate_text_command):
        part(work=work)


@command("all")
def all_command(work: Work = WORK) -> None:
    """Run every part of the class-conditional model in order, for the times of the shipped one."""
    parts: tuple[Callable[..., Any], ...] = (
        data_command,
        vae_command,
        extractor_command,
        dit_command,
        export_command,
        evaluate_command,
    )
    for part in parts:
        part(work=work)


if __name__ == "__main__":
    try:
        app()
    except (ValueError, OSError, subprocess.CalledProcessError) as error:
        print(error, file=sys.stderr)
        sys.exit(2)
