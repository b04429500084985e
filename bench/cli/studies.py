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
    numbers,
    parts,
    prompts_of,
)
from bench.cli.placement import DeviceKind, On, Workers, placement
from bench.errors import BadInput
from bench.machine import provenance
from bench.machine.device import device_type
from bench.pipeline import models
from bench.pipeline.facts import ModelFacts
from bench.record import Target
from bench.run.preflight import check_model
from bench.spec.run_spec import RunSpec, shown_model
from bench.spec.suite import Suite
from bench.store.places import REPORTS, RESULTS

if TYPE_CHECKING:  # which loads torch
    from bench.run.placement import Placement
    from bench.studies.signals.rows import Study as Rows
    from bench.studies.tune.candidate import Task

app = typer.Typer()
command = commands(app)


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
    results: Results = RESULTS,
    reports: Reports = REPORTS,
) -> None:
    """Show the published tables of the original specification next to what is measured here.

    The exit code is 0 when every reuse ratio agrees, 1 when one does not or a run failed, and 2 on bad input.
    """
    from bench.run.suite_run import SuiteRun
    from bench.studies.reproduce import SUITE, agree, write_report

    suite_run = SuiteRun.of_suite(Suite.load(SUITE, model=model), results)
    typer.echo(suite_run.opening)
    records = suite_run.run()
    page = write_report(records, reports / SUITE)
    typer.echo(f"{page.read_text()}\n{suite_run.closing(records)}")
    typer.echo(f"records: {suite_run.store.directory}\nreport:  {page}")
    done = all(record.status != "failed" for record in records)
    raise typer.Exit(OK if agree() and done else REGRESSED)


@command
def families(
    reports: Reports = Path("reports"),
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

    The report goes to a committed directory. The exit code is 0 when that holds, 1 when something is wrong or
    crashed (it is named), and 2 on bad input.
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
    folder = results / "generality" / provenance.machine()
    from bench.studies.generality.measure import measured

    for name in [model] if model else SETTINGS:
        typer.echo(f"rows:   {save(measured(name, images), folder)}")
    page = write_report(load(folder), folder.name, reports / "generality")
    typer.echo(f"{page.read_text()}\nreport: {page}")


def _finish(study: Rows, name: str, write_report: Callable[..., Path], results: Path, reports: Path) -> None:
    """Keep a study's rows, write its page and print it."""
    path = study.save(results / name / provenance.machine())
    page = write_report(study.rows, study.facts, reports / name)
    typer.echo(f"{page.read_text()}\nrows:   {path}\nreport: {page}")


@command
def tune(
    trials: Annotated[
        int,
        typer.Option(
            min=1, help="Number of trials to add to the study; with --method, of each search in all."
        ),
    ] = 40,
    method: Annotated[
        str | None,
        typer.Option(
            help="Method whose options are searched, or all, by evaluations of the model in place of time.",
            show_default="DQAR's fields, timed",
        ),
    ] = None,
    model: Model = "embedded",
    prompts: PromptsOption = None,
    steps: Annotated[int, typer.Option(min=2, max=1000, help="Number of denoising steps.")] = 25,
    images: Annotated[
        int, typer.Option(min=2, help="Number of images of a trial, and as many unseen ones for the front.")
    ] = 4,
    pairs: Annotated[
        int, typer.Option(min=2, help="Number of timed pairs per point of the front; not with --method.")
    ] = 6,
    guidance: Guidance = 4.0,
    results: Results = RESULTS,
    reports: Reports = REPORTS,
    on: On = "local",
    workers: Workers = None,
    device_kind: DeviceKind = None,
) -> None:
    """Search DQAR's fields, or methods' options, for the Pareto front of speedup and drift, and report it.

    Run again, the command continues the same study.
    """
    if method is not None:
        from bench.studies.tune.candidate import Task

        given = prompts_of(prompts)
        task = Task(model=model, steps=steps, images=images, guidance=guidance, prompts=given)
        with placement(on, workers, device_kind) as placed:
            _tune_methods(task, method, trials, results, reports, None if on == "local" else placed)
        return
    from bench.methods.dqar import shape_of
    from bench.studies.tune.report import write_report
    from bench.studies.tune.search import Tuner

    storage = results / "tune" / provenance.machine() / ".cache" / "study.db"
    tuner = Tuner(model, steps, images, guidance, storage, prompts_of(prompts))
    with placement(on, workers, device_kind) as placed:
        tuner.search(trials, None if on == "local" else placed)
    facts = {
        "machine": provenance.machine(), "model": shown_model(model), "steps": steps, "pairs": pairs,
        "images": images, "guidance": guidance, "shape": shape_of(tuner.session.pipe),
    }  # fmt: skip
    done = [trial.values for trial in tuner.study.trials if trial.values]
    page = write_report(tuner.front(pairs), done, facts, reports / "tune")
    typer.echo(f"{page.read_text()}\nreport: {page}\nstudy:  {storage}")


def _tune_methods(
    task: Task, method: str, trials: int, results: Path, reports: Path, placed: Placement | None
) -> None:
    """Search the methods' options, keep the trials and write their page."""
    from bench.studies.tune.methods import rows, run
    from bench.studies.tune.methods_report import write_report

    study = rows(run(task, method, trials, results, placed), task)
    path = study.save(results / "tune" / provenance.machine() / study.facts["model"])
    page = write_report(study.rows, study.facts, reports / "tune" / study.facts["model"])
    typer.echo(f"{page.read_text()}\ntrials: {path}\nruns:   {page.parent / 'runs.yaml'}\nreport: {page}")


@command
def timesteps(
    out: Annotated[Path, typer.Option(help="Directory that the files of timesteps go to.")],
    solvers: Annotated[
        str, typer.Option(help="Solvers with their order, separated by commas, such as unipc:2.")
    ] = "dpm_solver++:2,unipc:2",
    budgets: Annotated[str, typer.Option(help="Numbers of steps, separated by commas.")] = "8,12,16",
    trials: Annotated[
        int, typer.Option(min=0, help="Number of trials for each solver and budget, the starts apart.")
    ] = 12,
    model: Model = "embedded",
    prompts: PromptsOption = None,
    steps: Annotated[
        int, typer.Option(min=4, max=250, help="Number of denoising steps of the baseline.")
    ] = 50,
    images: Annotated[int, typer.Option(min=2, help="Number of images to search on.")] = 4,
    guidance: Guidance = 4.0,
    results: Results = RESULTS,
) -> None:
    """Search where solvers take their steps, by dynamic programming and by evolution, and write the best."""
    from bench.studies.timesteps.report import table
    from bench.studies.timesteps.study import Study, parsed
    from bench.studies.tune.candidate import Task

    chosen_solvers = parsed(solvers)
    counts = [round(n) for n in numbers(budgets, "timesteps: --budgets", above=1, below=2 * steps)]
    task = Task(model=model, steps=steps, images=images, guidance=guidance, prompts=prompts_of(prompts))
    found = Study(task, results).run(chosen_solvers, counts, trials, out)
    typer.echo(f"{table(found)}\n\nfiles: {out}")


@command
def calibrate(
    out: Annotated[Path, typer.Option(help="Directory that the plans go to.")],
    solver: Annotated[
        str, typer.Option(help="Solver: ddim, dpm_solver++, unipc or deis; own is the model's scheduler.")
    ] = "dpm_solver++",
    target: Annotated[Target, typer.Option(help="Trajectory that drift is measured from.")] = "converged",
    trials: Annotated[
        int, typer.Option(min=0, help="Number of plans to evaluate, in addition to those of earlier runs.")
    ] = 200,
    speedups: Annotated[
        str, typer.Option(help="Speedups by FLOPs, separated by commas, each above 1; one plan for each.")
    ] = "1.5,2,2.5,3,3.5,4,5,6",
    start: Annotated[
        Path | None, typer.Option(help="Directory of initial plans.", show_default="none")
    ] = None,
    model: Model = "embedded",
    prompts: PromptsOption = None,
    steps: Annotated[
        int, typer.Option(min=4, max=1000, help="Number of denoising steps of the baseline.")
    ] = 50,
    plan_steps: Annotated[
        int | None,
        typer.Option(
            min=4,
            max=1000,
            help="Number of steps of the plan, skipped ones included.",
            show_default="--steps",
        ),
    ] = None,
    images: Annotated[
        int, typer.Option(min=2, help="Number of images to calibrate on, and as many held-out ones.")
    ] = 24,
    guidance: Guidance = 4.0,
    results: Results = RESULTS,
    reports: Reports = REPORTS,
    on: On = "local",
    workers: Workers = None,
    device_kind: DeviceKind = None,
) -> None:
    """Search for the plans of least drift at each speedup, write them to files, and report them.

    Run again, the command adds trials to those of the same study.
    """
    from bench.methods.scheduler import OWN, SCHEDULERS

    if solver not in (*SCHEDULERS, OWN):
        raise BadInput(
            f"calibrate: --solver: {solver!r} is not known; allowed: {', '.join(SCHEDULERS)}, {OWN}"
        )
    wanted = numbers(speedups, "calibrate: --speedups", above=1)
    from bench.studies.calibrate.report import write_report
    from bench.studies.calibrate.study import Study

    study = Study(
        model=model, solver=solver, target=target, steps=steps, plan_steps=plan_steps or steps,
        images=images, guidance=guidance, results=results, prompts=prompts_of(prompts),
    )  # fmt: skip
    with placement(on, workers, device_kind) as placed:
        plans = study.run(trials, wanted, out, start, None if on == "local" else placed)
    page = write_report(plans, study.facts, reports / "calibrate" / study.name)
    typer.echo(f"{page.read_text()}\nplans:  {out}\nreport: {page}")


@command
def control(
    repetitions: Annotated[int, typer.Option(min=1, help="Number of times that the baseline is timed.")] = 40,
    results: Results = RESULTS,
    reports: Reports = REPORTS,
) -> None:
    """Time the baseline against itself, and count how often the 95 % interval of its speedup holds 1.

    The exit code is 0 when it does in at least 90 % of the repetitions, 1 when in fewer or one failed, and 2
    on bad input.
    """
    from bench.run.suite_run import SuiteRun
    from bench.studies.control import SUITE, specs, study, write_report

    suite_run = SuiteRun.of(specs(repetitions), results)
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
        float, typer.Option(min=1, help="Time in seconds that the whole check may take.")
    ] = 360,
    results: Results = RESULTS,
    reports: Reports = REPORTS,
) -> None:
    """Check the goals that need a CUDA device, the most important first, within six minutes.

    The exit code is 0 when every step has a result and no goal is missed, 1 otherwise, and 2 on bad input.
    """
    from bench.studies.gpu_check.plan import STEPS
    from bench.studies.gpu_check.report import write_report
    from bench.studies.gpu_check.supervisor import run_check

    names = parts(steps)
    known = [step.name for step in STEPS]
    for name in names:
        if name not in known:
            raise BadInput(f"gpu-check: --steps: {name!r} is not a step; allowed: {', '.join(known)}")
    if not toy and device_type() != "cuda":
        raise BadInput("gpu-check: torch finds no CUDA device; allowed: a CUDA device, or --toy on a CPU")
    machine = provenance.machine() + ("-toy" if toy else "")
    out = results / "gpu-check" / machine
    step_results = run_check(out, names, toy, budget, typer.echo)
    page = write_report(step_results, machine, reports / "gpu-check" / machine)
    typer.echo(f"results: {out}\nreport:  {page}")
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
    batches: Annotated[int, typer.Option(min=1, help="Batches of 16 images in a shard, with --rates.")] = 8,
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
            measured.append(measure.rate(place, count, 3, batches, results, Path(written)))
    folder_kept = keep(machine, empty, measured, results)
    page = write_report(folder_kept, reports / "scaling")
    typer.echo(f"{page.read_text()}\nmeasured: {folder_kept}\nreport:   {page}")
