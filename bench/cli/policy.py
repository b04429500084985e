"""`python -m bench policy`: trace a model, train its reuse policy, compare it at equal reuse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from tabulate import tabulate

from bench.cli.options import PromptsOption, Reports, Results, commands, numbers, prompts_of
from bench.errors import BadInput
from bench.machine import provenance
from bench.store.places import REPORTS, RESULTS

HELP = "Trace a model, train a reuse policy on the trace, and compare it with others at equal reuse."
app = typer.Typer(help=HELP, short_help=HELP, no_args_is_help=True)
command = commands(app)

Model = Annotated[
    str, typer.Option(help="Model: embedded, embedded-t2i, a pipeline's directory or a hub id.")
]
Steps = Annotated[int, typer.Option(help="Number of denoising steps; 2 to 1000.")]
Guidance = Annotated[float, typer.Option(help="Weight of classifier-free guidance; above 1.")]

SHIPPED = Path(__file__).parents[1] / "embedded" / "policy"


@command
def trace(
    model: Model = "embedded",
    prompts: PromptsOption = None,
    trajectories: Annotated[int, typer.Option(help="Number of trajectories, one per image; 2 or more.")] = 24,
    steps: Steps = 50,
    out: Annotated[
        Path | None, typer.Option(help="File that the trace goes to.", show_default="below --results")
    ] = None,
    seed: Annotated[
        int, typer.Option(help="Seed of the first trajectory, 0 or more; trajectory i takes seed + i.")
    ] = 0,
    guidance: Guidance = 4.0,
    finals: Annotated[
        int, typer.Option(help="Number of reuses per trajectory that are followed to the final latent.")
    ] = 16,
    results: Results = RESULTS,
) -> None:
    """Write a trace: for each layer and step, what the gate would see and the error of reusing there."""
    _at_least(trajectories=(trajectories, 2), steps=(steps, 2), finals=(finals, 0))
    from bench.studies.policy.session import open_session
    from bench.studies.policy.trace import rank_correlation
    from bench.studies.policy.trace import trace as run

    session = open_session(model, steps, guidance, seed, evaluation=False, prompts=prompts_of(prompts))
    rows = run(session, trajectories, finals)
    path = out or _trace_file(results)
    path.parent.mkdir(parents=True, exist_ok=True)
    rows.save(path)
    correlation, n = rank_correlation(rows)
    typer.echo(f"{len(rows.reuse_error)} rows, reuse error {rows.reuse_error.median():.4f} (median)")
    typer.echo(f"Spearman of a step's reuse error with the final latent's: {correlation:.3f}, n = {n}")
    typer.echo(f"trace: {path}")


@command
def train(
    trace: Annotated[
        Path | None, typer.Option(help="File of the trace.", show_default="the last one below --results")
    ] = None,
    budget: Annotated[
        float | None,
        typer.Option(
            help="Reuse error up to which reuse is safe; above 0.", show_default="a 0.3 quantile of the trace"
        ),
    ] = None,
    final: Annotated[
        bool,
        typer.Option(
            "--final/--step", help="Label a reuse by the error of the final latent, or by that of its step."
        ),
    ] = True,
    out: Annotated[
        Path | None, typer.Option(help="Directory that the policy goes to.", show_default="below --results")
    ] = None,
    seed: Annotated[
        int, typer.Option(help="Seed of the split into training and test, and of the initial weights.")
    ] = 0,
    results: Results = RESULTS,
) -> None:
    """Train both kinds of policy on a trace, and keep the one that is better on unseen trajectories."""
    from bench.studies.policy.train import load_trace
    from bench.studies.policy.train import train as run

    candidates = run(load_trace(trace or _trace_file(results)), budget, final, seed)
    fields = ("roc_auc", "reuse_ratio", "reuse_error", "best_ratio", "threshold", "epochs")
    rows = [(type(c.policy).__name__, *(getattr(c.metrics, name) for name in fields)) for c in candidates]
    typer.echo(tabulate(rows, headers=("policy", *fields), floatfmt=".4f"))
    typer.echo(
        f"budget {candidates[0].metrics.budget:.5f}; metrics of the held-out trajectories; kept: {rows[0][0]}"
    )
    known = candidates[0].policy.metrics["final_reuse_error"]
    typer.echo(
        f"Spearman with the final reuse error: the step's {known['spearman']:.3f} (n = {known['rows']}), "
        f"the label's {known['label_spearman']:.3f} on unseen trajectories (n = {known['label_rows']})"
    )
    directory = out or _directory(results) / "trained"
    candidates[0].policy.save(directory)
    typer.echo(f"policy: {directory}")


@command
def eval_(
    policy: Annotated[
        Path | None, typer.Option(help="Directory of the policy.", show_default="the one that ships")
    ] = None,
    model: Model = "embedded",
    prompts: PromptsOption = None,
    n: Annotated[int, typer.Option("--images", "--n", help="Number of images; 2 or more.")] = 8,
    steps: Steps = 50,
    targets: Annotated[
        str, typer.Option(help="Reuse ratios, separated by commas, each above 0 and below 1.")
    ] = "0.1,0.2",
    max_age: Annotated[
        int, typer.Option(help="Number of steps that an entry may be reused for; 1 or more.")
    ] = 2,
    seed: Annotated[
        int, typer.Option(help="Seed of the first image, beyond those of the trace; image i takes seed + i.")
    ] = 100_000,
    guidance: Guidance = 4.0,
    results: Results = RESULTS,
    reports: Reports = REPORTS,
) -> None:
    """Compare a policy with thresholds, the schedule and a random mask, at equal measured reuse."""
    _at_least(n=(n, 2), steps=(steps, 2), max_age=(max_age, 1))
    ratios = numbers(targets, "policy eval: --targets", above=0, below=1)
    from bench.machine.files import write_atomic
    from bench.studies.policy.evaluate import check_unseen, evaluate
    from bench.studies.policy.report import table, write_report
    from bench.studies.policy.session import open_session
    from bench.studies.policy.train import load_policy

    directory = policy or SHIPPED
    learned = load_policy(directory)
    check_unseen(learned, seed, n)
    session = open_session(model, steps, guidance, seed, evaluation=True, prompts=prompts_of(prompts))
    path = _directory(results) / "comparison.json"
    for comparison in evaluate(session, learned, directory, n, ratios, max_age):
        write_atomic(path, (json.dumps(comparison, indent=1) + "\n").encode())
        page = write_report(comparison, reports / "policy")
    typer.echo(table(comparison["rows"]))
    typer.echo(f"values: {path}\nreport: {page}")


def _directory(results: Path) -> Path:
    return results / "policy" / provenance.machine()


def _trace_file(results: Path) -> Path:
    return _directory(results) / ".cache" / "trace.safetensors"  # made again at will: never published


def _at_least(**given: tuple[int, int]) -> None:
    for name, (value, low) in given.items():
        if value < low:
            raise BadInput(f"{name}: {value} is not allowed; allowed: {low} or more")
