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

from bench.embedded import classifier, data, dit, export, vae
from bench.embedded.loop import Budget, parse_until
from bench.embedded.text_to_image import emoji, mmdit, scorer_training

app = typer.Typer(no_args_is_help=True, add_completion=False)

Work = Annotated[Path, typer.Option(help="Directory of the data and the checkpoints.")]
Minutes = Annotated[float, typer.Option(help="Busy minutes to train.")]
Until = Annotated[str, typer.Option(help="Local time HH:MM at which training must have ended.")]
Steps = Annotated[int | None, typer.Option(help="Fixed number of steps in place of minutes.")]
WORK = Path(".embedded-training")
HERE = Path(__file__).parent


def budget(minutes: float, until: str, steps: int | None) -> Budget:
    """The budget that the options name."""
    moment: datetime | None = parse_until(until) if until else None
    return Budget(minutes=minutes, until=moment, steps=steps)


@app.callback()
def main() -> None:
    """Train the model of bench/embedded; each part resumes from its checkpoint."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1 if "WORLD_SIZE" in os.environ else 2)  # torchrun's processes share the cores


@app.command("data")
def data_command(work: Work = WORK) -> None:
    """Fetch the images with `npm pack` and build the dataset."""
    data.load(work / "data")


@app.command("vae")
def vae_command(minutes: Minutes = 14, until: Until = "", steps: Steps = None, work: Work = WORK) -> None:
    """Train the autoencoder."""
    vae.train(data.load(work / "data"), work, budget(minutes, until, steps))


@app.command("dit")
def dit_command(minutes: Minutes = 60, until: Until = "", steps: Steps = None, work: Work = WORK) -> None:
    """Train the transformer on the autoencoder's latents."""
    dataset = data.load(work / "data")
    dit.train(dataset, vae.load_folded(dataset, work), work, budget(minutes, until, steps))


@app.command("extractor")
def extractor_command(
    minutes: Minutes = 1.7, until: Until = "", steps: Steps = None, work: Work = WORK
) -> None:
    """Train the feature extractor; write it and the reference features."""
    dataset = data.load(work / "data")
    classifier.train(dataset, work, budget(minutes, until, steps))
    classifier.export(dataset, work)


@app.command("export")
def export_command(work: Work = WORK) -> None:
    """Write the pipeline directory from the checkpoints."""
    export.write_model(data.load(work / "data"), work)


@app.command("evaluate")
def evaluate_command(
    samples: Annotated[int, typer.Option(help="How many images to generate.")] = 1000,
    guidance: Annotated[float, typer.Option(help="Guidance scale.")] = 4.0,
    work: Work = WORK,
) -> None:
    """Measure the figures of the README and draw the grid, on bfloat16 samples."""
    from bench.embedded import evaluate, load_pipeline

    dataset = data.load(work / "data")
    wanted = evaluate.like(dataset.split("heldout")[1], samples)
    painted = evaluate.sample(load_pipeline(torch.bfloat16), wanted, guidance)
    evaluate.grid(painted, wanted).save(HERE / "samples.webp", quality=70, method=6)
    found = evaluate.figures(dataset, painted, wanted, work)
    text = json.dumps({"guidance": guidance, "steps": evaluate.STEPS, **found}, indent=2)
    (HERE / "figures.json").write_text(text + "\n")
    print(text)


@app.command("mmdit")
def mmdit_command(minutes: Minutes = 90, until: Until = "", steps: Steps = None, work: Work = WORK) -> None:
    """Train the text-to-image transformer and its text encoders on the shipped autoencoder's latents."""
    mmdit.train(emoji.load(work / "data"), work, budget(minutes, until, steps))


@app.command("scorer")
def scorer_command(minutes: Minutes = 8, until: Until = "", steps: Steps = None, work: Work = WORK) -> None:
    """Train the scorer of images against prompts; write it."""
    scorer_training.train(emoji.load(work / "data"), work, budget(minutes, until, steps))
    scorer_training.export(work)


@app.command("export-text")
def export_text_command(work: Work = WORK) -> None:
    """Write the text-to-image pipeline directory from the checkpoint."""
    from bench.embedded.text_to_image import export as text_export
    from bench.embedded.text_to_image import reference

    text_export.write_model(work)
    reference.write(emoji.load(work / "data"))


@app.command("evaluate-text")
def evaluate_text_command(
    samples: Annotated[int, typer.Option(help="How many images to generate for each split.")] = 500,
    work: Work = WORK,
) -> None:
    """Measure the text-to-image values of the README and draw its grid, on bfloat16 samples."""
    from bench.embedded.text_to_image import evaluate as text_evaluate

    print(text_evaluate.write(emoji.load(work / "data"), samples))


@app.command("text")
def text_command(work: Work = WORK) -> None:
    """Every step of the text-to-image model in order, with the times of the shipped one."""
    for part in (scorer_command, mmdit_command, export_text_command, evaluate_text_command):
        part(work=work)


@app.command("all")
def all_command(work: Work = WORK) -> None:
    """Every step of the class-conditional model in order, with the times of the shipped one."""
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
