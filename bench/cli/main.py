"""`python -m bench`: run suites, list them, write images, tell what is measurable; and the other commands."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from tabulate import tabulate

from bench.cli import records, searches, studies
from bench.cli.options import (
    OK,
    REGRESSED,
    SUITES,
    WIDTH,
    Guidance,
    Model,
    ModelOverride,
    PromptsOption,
    PromptsOverride,
    Reports,
    Results,
    Seed,
    SuiteName,
    all_chosen,
    chosen,
    commands,
    prompts_of,
)
from bench.cli.placement import Dashboard, DeviceKind, On, Workers, placement
from bench.cli.policy import app as policy_app
from bench.cli.regression import app as asv_app
from bench.cli.reporting import report_of, table
from bench.errors import BadInput
from bench.pipeline import models
from bench.pipeline.architectures import ARCHITECTURES
from bench.pipeline.facts import ModelFacts
from bench.run import preflight
from bench.run.estimate import estimate
from bench.spec.run_spec import RunSpec
from bench.spec.settings import FILES
from bench.spec.suite import Suite, available
from bench.store.places import REPORTS, RESULTS

if TYPE_CHECKING:  # which loads torch
    from bench.run.placement import Placement

app = typer.Typer(
    help="Measure methods that speed up diffusion transformers, and report what they gain and lose.",
    context_settings={"max_content_width": WIDTH},
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
command = commands(app)


@command
def run(
    name: SuiteName,
    results: Results = RESULTS,
    reports: Reports = REPORTS,
    only: Annotated[
        str | None, typer.Option(help="Name of the one configuration to run.", show_default="all")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of the first image; image i takes seed + i.", show_default=SUITES)
    ] = None,
    model: ModelOverride = None,
    prompts: PromptsOverride = None,
    images: Annotated[
        int | None,
        typer.Option(
            min=0, help="Number of images that quality is measured on; 0: none.", show_default=SUITES
        ),
    ] = None,
    inception_weights: Annotated[
        str | None,
        typer.Option(
            help="File (.pth) of torch-fidelity's Inception weights, which give FID in place of FD.",
            show_default=SUITES,
        ),
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(
            help="Real images to compare with: a directory, or an .npz file as ADM publishes them.",
            show_default=SUITES,
        ),
    ] = None,
    lpips_weights: Annotated[
        str | None,
        typer.Option(
            help="Directory of the weights of LPIPS.", show_default="the suite's, else torch hub's cache"
        ),
    ] = None,
    clip_weights: Annotated[
        str | None,
        typer.Option(
            help="Directory of a transformers CLIP model, which makes text scores CLIP scores.",
            show_default=SUITES,
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Measure finished configurations again.")] = False,
    keep_images: Annotated[
        Path | None,
        typer.Option(
            help="Directory on each machine that makes images, for its configurations' as"
            " SUITE/CONFIGURATION/SEED.png.",
            show_default="none is kept",
        ),
    ] = None,
    on: On = "local",
    workers: Workers = None,
    device_kind: DeviceKind = None,
    dashboard: Dashboard = False,
) -> None:
    """Measure a suite's configurations, store one record each, and write the report.

    A run that was stopped is resumed. On a CPU, auto means the suites of both models that ship, or the first
    of them with --model, --prompts or --only. The study gpu-check is run too; other studies have commands of
    their own. The exit code is 0 when all is done, 1 when a run failed (its record states why), and 2 on bad
    input.
    """
    files = (inception_weights, reference, lpips_weights, clip_weights)
    if name in STUDIES:
        flags = (force or None, dashboard or None)
        others = (only, seed, model, prompts, images, *files, workers, device_kind, keep_images, *flags)
        plain = on == "local" and all(other is None for other in others)
        _run_study(name, results, reports, plain)
    quality = dict(zip(FILES, files, strict=True)) | {"n": images}
    names = all_chosen(name) if model is prompts is only is None else (chosen(name),)
    suites = [Suite.load(one, seed=seed, model=model, prompts=prompts, quality=quality) for one in names]
    with placement(on, workers, device_kind, dashboard) as placed:
        failed = [_measured(suite, results, reports, only, force, keep_images, placed) for suite in suites]
    raise typer.Exit(REGRESSED if any(failed) else OK)


def _run_study(name: str, results: Path, reports: Path, plain: bool) -> None:
    """Run the check of a device, where no other option is given; name the command of any other study."""
    if name != "gpu-check" or not plain:
        raise BadInput(f"run: {name!r} is not a suite; allowed: its own command, python -m bench {name}")
    studies.gpu_check(results=results, reports=reports)


def _measured(
    suite: Suite,
    results: Path,
    reports: Path,
    only: str | None,
    force: bool,
    keep_images: Path | None,
    placed: Placement,
) -> bool:
    """Run one suite and write its report; whether a configuration that was asked for failed."""
    if suite.command:
        raise BadInput(
            f"run: {suite.name!r} is not allowed; allowed: its own command, python -m bench {suite.command}"
        )
    for line in preflight.check(suite.file.quality):
        typer.echo(line)
    from bench.run.suite_run import SuiteRun

    suite_run = SuiteRun.of_suite(suite, results, only, force, placed)
    typer.echo(suite_run.opening)
    measured, store = suite_run.run(keep_images), suite_run.store
    written = report_of(suite, measured, store.directory, suite.report_dir(reports, store.machine))
    typer.echo(table(measured))
    typer.echo(suite_run.closing(measured))
    typer.echo(f"records: {store.directory}\nreport:  {written}")
    return any(record.status == "failed" and only in (None, record.name) for record in measured)


@command
def show(name: SuiteName) -> None:
    """List a suite's configurations and which do not run on its model, and estimate how long they take."""
    suite = Suite.load(chosen(name))
    specs = suite.specs()
    rows = [(s.name, s.method, ", ".join(f"{k}={v}" for k, v in s.options.items())) for s in specs]
    typer.echo(f"{suite.name}: {suite.title}\n")
    typer.echo(tabulate(rows, headers=("run", "method", "options")))
    typer.echo("".join(f"\nskipped: {run}: {why}" for run, why in _gaps(specs)))
    time = estimate(specs)
    typer.echo(
        f"{len(specs)} runs{_pairs(specs[0])}; {time.text} on {time.device}"
        " (estimated from budgets and FLOPs)"
    )


def _gaps(specs: list[RunSpec]) -> Iterator[tuple[str, str]]:
    """What does not run on a suite's model and why, as far as that is known without fetching the model."""
    from bench.run.runner import gap

    away = models.is_hub_id(specs[0].model)
    if away and specs[0].prompts and specs[0].model not in ARCHITECTURES:
        return
    with suppress(BadInput):  # no such directory: nothing is known of it
        for spec in specs:
            if why := gap(spec.model_copy(update={"weights": "random" if away else "trained"})):
                yield spec.name, why


def _pairs(spec: RunSpec) -> str:
    return f" of at least {spec.timing.min_pairs} pairs" if spec.timing.asked else ", nothing timed"


@command
def list_() -> None:
    """List the suites, each with its number of configurations and its title."""
    suites = [Suite.load(name) for name in available()]
    rows = [(suite.name, len(suite.configurations), suite.title) for suite in suites]
    typer.echo(tabulate(rows, headers=("suite", "runs", "title")))


@command
def generate(
    out: Annotated[Path, typer.Option(help="Directory that the images go to.")] = Path("outputs"),
    model: Model = "embedded",
    n: Annotated[
        int, typer.Option("--images", "--n", min=1, help="Number of images, generated as one batch.")
    ] = 8,
    classes: Annotated[
        str,
        typer.Option(
            help="Class names or numbers, separated by commas, that the images cycle through.",
            show_default="all",
        ),
    ] = "",
    prompts: PromptsOption = None,
    dqar: Annotated[
        str | None,
        typer.Option(help="Preset of DQAR, or a .yaml file of its fields.", show_default="no reuse"),
    ] = None,
    steps: Annotated[int, typer.Option(min=1, max=1000, help="Number of denoising steps.")] = 50,
    guidance: Guidance = 4.0,
    seed: Seed = 0,
) -> None:
    """Write images as PNG files, and a grid of them, with or without DQAR."""
    from bench.cli.generate import config, labels_of
    from bench.cli.generate import generate as make

    if dqar is not None:
        config(dqar)  # before the model is looked for
    spec = RunSpec(
        suite="generate", name="generate", method="baseline", model=model, batch_size=n, seed=seed,
        num_inference_steps=steps, guidance_scale=guidance, prompts=prompts_of(prompts),
    )  # fmt: skip
    models.check_settings(spec)
    labels = labels_of(classes, ModelFacts.of(models.directory(model)))
    result = make(spec, dqar, labels, out)
    typer.echo(f"{len(result.files)} images in {result.seconds:.1f} s: {result.files[0].parent}")
    typer.echo(f"grid: {result.grid}")
    if result.summary:
        typer.echo(result.summary)


@command
def doctor() -> None:
    """List what this machine can measure, and why it cannot measure the rest."""
    from bench.cli.doctor import checks

    rows = [("yes" if check.there else "no", check.what, check.why) for check in checks()]
    typer.echo(tabulate(rows, headers=("", "what", "why"), maxcolwidths=[None, None, 80]))


# Studies that are no suites: each is a command.
STUDIES = {
    each.name for group in (studies.app, searches.app) for each in group.registered_commands
} - available().keys() | {"policy"}
app.add_typer(records.app)
app.add_typer(studies.app)
app.add_typer(searches.app)
app.add_typer(policy_app, name="policy")
app.add_typer(asv_app, name="asv")
logging.basicConfig(format="%(message)s", level=logging.WARNING)
