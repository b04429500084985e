"""The commands of studies that are more than a grid of configurations: each with a page of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.options import (
    OK,
    REGRESSED,
    SUITES,
    Guidance,
    Model,
    ModelOverride,
    PromptsOption,
    PromptsOverride,
    Reports,
    Results,
    Seed,
    SuiteName,
    chosen,
    commands,
    parts,
    prompts_of,
)
from bench.errors import BadInput
from bench.machine import provenance
from bench.machine.device import device_type
from bench.pipeline import models
from bench.run.preflight import check_model
from bench.spec.suite import Suite
from bench.store.places import REPORTS, RESULTS

if TYPE_CHECKING:  # which loads torch
    from bench.studies.signals.rows import Study as Rows

app = typer.Typer()
command = commands(app)


@command
def profile(
    name: SuiteName,
    run: Annotated[
        str, typer.Argument(metavar="NAME", help="Configuration of the suite, as `show` names it.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Directory that the report and the traces go to.",
            show_default="outputs/profile/SUITE-NAME",
        ),
    ] = None,
    model: ModelOverride = None,
    prompts: PromptsOverride = None,
    steps: Annotated[
        int | None,
        typer.Option(min=1, max=1000, help="Number of denoising steps.", show_default=SUITES),
    ] = None,
    repeats: Annotated[
        int, typer.Option(min=1, help="Number of generations of each arm, with the profiler and without.")
    ] = 3,
) -> None:
    """Show how long each part of a generation takes, for the baseline and a configuration; write traces."""
    suite = Suite.load(chosen(name), model=model, prompts=prompts)
    (spec,) = suite.specs(run)
    from bench.studies.profile import compare, page

    changes: dict[str, object] = {"weights": models.with_weights(spec)}
    check_model([spec.model_copy(update=changes)])
    if steps:
        changes["num_inference_steps"] = steps
    directory = out or Path("outputs/profile") / f"{suite.name}-{run}"
    written = page(compare(spec.model_copy(update=changes), directory, repeats)).write(directory)
    typer.echo(f"{written.read_text()}\nprofile: {written}")


@command
def reproduce(
    model: ModelOverride = None,
    prompts: PromptsOverride = None,
    results: Results = RESULTS,
    reports: Reports = REPORTS,
) -> None:
    """Show the published tables of the original specification next to what is measured here.

    The published rows are of class labels; what is measured here may be of prompts.

    The exit code is 0 when every reuse ratio agrees, 1 when one does not or a run failed, and 2 on bad input.
    """
    from bench.run.suite_run import SuiteRun
    from bench.studies.reproduce import SUITE, agree, write_report

    suite_run = SuiteRun.of_suite(Suite.load(SUITE, model=model, prompts=prompts), results)
    typer.echo(suite_run.opening)
    records = suite_run.run()
    page = write_report(records, reports / SUITE)
    typer.echo(f"{page.read_text()}\n{suite_run.closing(records)}")
    typer.echo(f"records: {suite_run.store.directory}\nreport:  {page}")
    done = all(record.status != "failed" for record in records)
    raise typer.Exit(OK if agree() and done else REGRESSED)


@command
def families(
    reports: Reports = REPORTS,
    only: Annotated[
        str,
        typer.Option(
            help="Part of a name: check those that have it, and write no report.", show_default="all"
        ),
    ] = "",
    processes: Annotated[
        int | None,
        typer.Option(
            min=1, help="Number of processes that share the work.", show_default="the cores, at most 4"
        ),
    ] = None,
) -> None:
    """Check that DQAR is right on every transformer class of diffusers and on tiny pipelines, or refuses.

    The exit code is 0 when that holds, 1 when something is wrong or crashed (it is named), 2 on bad input.
    """
    from bench.studies.families.report import outcomes_table, write_report
    from bench.studies.families.study import run

    classes, pipelines = run(only, processes)
    if not classes and not pipelines:
        raise BadInput(f"families: --only {only}: not found; allowed: a part of a name in the report")
    for outcomes in (classes, pipelines):
        typer.echo(outcomes_table(outcomes) + "\n")
    faults = [fault for row in (*classes, *pipelines) for fault in row.faults]
    typer.echo("\n".join(faults) or "nothing is wrong and nothing crashed")
    if not only:
        typer.echo(f"report: {write_report(classes, pipelines, reports / 'families')}")
    raise typer.Exit(REGRESSED if faults else OK)


@command
def signals(
    model: Model = "embedded",
    prompts: PromptsOption = None,
    images: Annotated[
        int, typer.Option(min=4, help="Number of images, each with its own class or prompt, and seed.")
    ] = 44,
    steps: Annotated[int, typer.Option(min=4, max=1000, help="Number of denoising steps.")] = 50,
    guidance: Guidance = 4.0,
    seed: Seed = 0,
    results: Results = RESULTS,
    reports: Reports = REPORTS,
) -> None:
    """Measure how well entropy, SNR and the latent's norm predict the reuse error."""
    from bench.studies.signals.report import write_report
    from bench.studies.signals.rows import Study

    study = Study.measured(model, images, steps, guidance, seed, prompts_of(prompts))
    _finish(study, "signals", write_report, results, reports)


@command
def prompt_length(
    model: Model = "embedded-t2i",
    prompts: PromptsOption = "lengths",
    steps: Annotated[int, typer.Option(min=4, max=1000, help="Number of denoising steps.")] = 28,
    guidance: Guidance = 4.0,
    seed: Seed = 0,
    results: Results = RESULTS,
    reports: Reports = REPORTS,
) -> None:
    """Measure whether entropy or the reuse error depends on a prompt's length.

    The first 1, 2, 4, 8 and 12 words of each prompt are compared, from the same noise.
    """
    from bench.studies.prompt_length.measure import check, measured
    from bench.studies.prompt_length.report import write_report
    from bench.studies.signals.rows import Study

    given = prompts_of(prompts)
    if given is None:
        raise BadInput("prompt-length: --prompts: not given; needed: a file with one a line")
    check(given)
    study = Study.measured(model, len(given.texts), steps, guidance, seed, given, measured)
    _finish(study, "prompt-length", write_report, results, reports)


@command
def generality(
    model: Annotated[
        str, typer.Option(help="Measure this model alone; the page shows all that was measured.")
    ] = "",
    images: Annotated[int, typer.Option(min=4, help="The number of images of a configuration.")] = 24,
    results: Results = RESULTS,
    reports: Reports = REPORTS,
) -> None:
    """Measure what holds on both models that ship: configurations, signals, and plans elsewhere."""
    from bench.studies.generality.report import write_report
    from bench.studies.generality.rows import load, save
    from bench.studies.generality.setting import SETTINGS

    if model and model not in SETTINGS:
        raise BadInput(f"generality: --model: {model!r} is not known; allowed: {', '.join(SETTINGS)}")
    directory = results / "generality" / provenance.machine()
    from bench.studies.generality.measure import measured

    for name in [model] if model else SETTINGS:
        typer.echo(f"rows:   {save(measured(name, images), directory)}")
    page = write_report(load(directory), directory.name, reports / "generality")
    typer.echo(f"{page.read_text()}\nreport: {page}")


def _finish(study: Rows, name: str, write_report: Callable[..., Path], results: Path, reports: Path) -> None:
    """Keep a study's rows, write its page and print it."""
    path = study.save(results / name / provenance.machine())
    page = write_report(study.rows, study.facts, reports / name)
    typer.echo(f"{page.read_text()}\nrows:   {path}\nreport: {page}")


@command
def control(
    repetitions: Annotated[int, typer.Option(min=1, help="Number of times that the baseline is timed.")] = 40,
    model: ModelOverride = None,
    prompts: PromptsOverride = None,
    results: Results = RESULTS,
    reports: Reports = REPORTS,
) -> None:
    """Time the baseline against itself, and count how often the 95 % interval of its speedup holds 1.

    The exit code is 0 when it does in at least 90 % of the repetitions, 1 when in fewer or one failed, and 2
    on bad input.
    """
    from bench.run.suite_run import SuiteRun
    from bench.studies.control import SUITE, specs, study, write_report

    repeated = specs(repetitions, model, prompts)
    check_model(repeated[:1])
    suite_run = SuiteRun.of(repeated, results)
    typer.echo(suite_run.opening)
    records = suite_run.run()
    page = write_report(records, reports / SUITE)
    typer.echo(f"{page.read_text()}\n{suite_run.closing(records)}")
    typer.echo(f"records: {suite_run.store.directory}\nreport:  {page}")
    done = all(record.status == "ok" for record in records)
    raise typer.Exit(OK if done and study(records).holds else REGRESSED)


@command
def gpu_check(
    steps: Annotated[
        str,
        typer.Option(help="Names of the check's steps, separated by commas.", show_default="all"),
    ] = "",
    toy: Annotated[
        bool,
        typer.Option("--toy", help="Try the code on a CPU, at a size at which the values mean nothing."),
    ] = False,
    budget: Annotated[
        float | None,
        typer.Option(
            min=1, help="Time in seconds that the whole check may take.", show_default="360; with --toy 3600"
        ),
    ] = None,
    results: Results = RESULTS,
    reports: Reports = REPORTS,
) -> None:
    """Check the goals that need a CUDA device, the most important first, within six minutes.

    The exit code is 0 when every step has a result and no goal is missed, 1 otherwise, and 2 on bad input.
    """
    from bench.studies.gpu_check.plan import CALL_S, STEPS, TOY_S
    from bench.studies.gpu_check.report import closing, write_report
    from bench.studies.gpu_check.step import TOY
    from bench.studies.gpu_check.supervisor import run_check

    names = parts(steps)
    known = [step.name for step in STEPS]
    for name in names:
        if name not in known:
            raise BadInput(f"gpu-check: --steps: {name!r} is not a step; allowed: {', '.join(known)}")
    if not toy and device_type() != "cuda":
        raise BadInput("gpu-check: torch finds no CUDA device; allowed: a CUDA device, or --toy on a CPU")
    machine = provenance.machine() + (TOY if toy else "")
    out = results / "gpu-check" / machine
    step_results = run_check(out, names, toy, budget or (TOY_S if toy else CALL_S), typer.echo)
    page = write_report(step_results, machine, reports / "gpu-check" / machine)
    typer.echo(f"results: {out}\nreport:  {page}\n{closing(step_results)}")
    missed = any(verdict == "missed" for result in step_results for verdict in result.goals.values())
    done = all(result.status == "ok" for result in step_results)
    raise typer.Exit(OK if done and (toy or not missed) else REGRESSED)


@command
def scaling(
    tasks: Annotated[int, typer.Option(min=5, help="Number of empty tasks to schedule.")] = 5000,
    workers: Annotated[int, typer.Option(min=1, help="Number of workers.")] = 2,
    rates: Annotated[
        bool, typer.Option("--rates", help="Measure the rate of shards by one worker and by all, too.")
    ] = False,
    batches: Annotated[int, typer.Option(min=1, help="Batches of 16 images in a shard, with --rates.")] = 1,
    results: Results = RESULTS,
    reports: Reports = REPORTS,
) -> None:
    """Measure what Ray costs here, and project an FID on 50,000 images on large clusters."""
    import tempfile

    from bench.run.ray import placed
    from bench.studies.scaling import measure
    from bench.studies.scaling.report import keep, write_report

    with placed(workers) as place, tempfile.TemporaryDirectory() as written:
        empty = measure.empty(place, tasks, Path(written))
        machine = place.machine
    measured = []
    for count in dict.fromkeys((1, workers)) if rates else ():
        with placed(count, threads=1) as place, tempfile.TemporaryDirectory() as written:
            measured.append(measure.rate(place, count, 2, batches, results, Path(written)))
    kept = keep(machine, empty, measured, results)
    page = write_report(kept, reports / "scaling")
    typer.echo(f"{page.read_text()}\nmeasured: {kept}\nreport:   {page}")
