"""The commands that search: for options, for timesteps, for plans; run again, each continues its search."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.options import (
    Guidance,
    Model,
    PromptsOption,
    Reports,
    Results,
    commands,
    numbers,
    prompts_of,
)
from bench.cli.placement import DeviceKind, On, Workers, trial_workers
from bench.errors import BadInput
from bench.machine import provenance
from bench.record import Target
from bench.spec.run_spec import shown_model
from bench.store.places import REPORTS, RESULTS

if TYPE_CHECKING:  # which loads torch
    from bench.run.placement import Placement
    from bench.studies.tune.candidate import Task

app = typer.Typer()
command = commands(app)
Steps = Annotated[int, typer.Option(min=4, max=250, help="Number of denoising steps of the baseline.")]
Images = Annotated[int, typer.Option(min=2, help="Number of images to search on.")]


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
        with trial_workers(on, workers, device_kind) as placed:
            _tune_methods(task, method, trials, results, reports, placed)
        return
    from bench.methods.dqar import shape_of
    from bench.studies.tune.report import write_report
    from bench.studies.tune.search import Tuner

    storage = results / "tune" / provenance.machine() / ".cache" / "study.db"
    tuner = Tuner(model, steps, images, guidance, storage, prompts_of(prompts))
    with trial_workers(on, workers, device_kind) as placed:
        tuner.search(trials, placed)
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
    steps: Steps = 50,
    images: Images = 4,
    guidance: Guidance = 4.0,
    results: Results = RESULTS,
    on: On = "local",
    workers: Workers = None,
    device_kind: DeviceKind = None,
) -> None:
    """Search where solvers take their steps: dynamic programming (GITS, OptimalSteps) and evolution.

    Workers on Ray share the searches, one a solver and budget; the trials of one depend on each other.
    """
    from bench.studies.timesteps.report import table
    from bench.studies.timesteps.study import Study, parsed
    from bench.studies.tune.candidate import Task

    chosen_solvers = parsed(solvers)
    counts = [round(n) for n in numbers(budgets, "timesteps: --budgets", above=1, below=2 * steps)]
    task = Task(model=model, steps=steps, images=images, guidance=guidance, prompts=prompts_of(prompts))
    with trial_workers(on, workers, device_kind) as placed:
        written = Study(task, results).run(chosen_solvers, counts, trials, out, placed)
    typer.echo(f"{table(written)}\n\nfiles: {out}")


@command
def masks(
    out: Annotated[Path, typer.Option(help="File that the runs go to, as a suite has them (YAML).")],
    solvers: Annotated[
        str,
        typer.Option(
            help="Solvers, separated by commas: own, ddim, dpm_solver++, unipc or deis; :25 behind one gives "
            "its number of steps in place of --steps."
        ),
    ] = "dpm_solver++",
    budgets: Annotated[str, typer.Option(help="Numbers of steps that run, separated by commas.")] = "12,16",
    iterations: Annotated[
        int,
        typer.Option(
            min=0, max=10000, help="Number of masks that simulated annealing tries; 0: equal distances."
        ),
    ] = 200,
    model: Model = "embedded",
    prompts: PromptsOption = None,
    steps: Steps = 50,
    images: Images = 2,
    guidance: Guidance = 4.0,
    results: Results = RESULTS,
    on: On = "local",
    workers: Workers = None,
    device_kind: DeviceKind = None,
) -> None:
    """Search which steps BudCache runs, by annealing and hill climbing, and write them as a suite's runs.

    Workers on Ray share the searches, one a solver and budget; the masks of one depend on each other.
    """
    from bench.machine.files import write_atomic
    from bench.studies.masks import Study, parsed, runs, table
    from bench.studies.tune.candidate import Task

    chosen = parsed(solvers)
    counts = [round(n) for n in numbers(budgets, "masks: --budgets", above=0, below=1001)]
    task = Task(model=model, steps=steps, images=images, guidance=guidance, prompts=prompts_of(prompts))
    with trial_workers(on, workers, device_kind) as placed:
        found = Study(task, results).run(chosen, counts, iterations, placed)
    write_atomic(out, runs(found).encode())
    typer.echo(f"{table(found)}\n\nruns: {out}")


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
    with trial_workers(on, workers, device_kind) as placed:
        plans = study.run(trials, wanted, out, start, placed)
    page = write_report(plans, study.facts, reports / "calibrate" / study.name)
    typer.echo(f"{page.read_text()}\nplans:  {out}\nreport: {page}")
