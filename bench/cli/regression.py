"""`python -m bench asv`: run the benchmarks of this commit, publish them, compare two commits."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Annotated

import psutil
import typer
from tabulate import tabulate

from bench.cli.options import OK, REGRESSED, Reports, Results, commands
from bench.errors import BadInput
from bench.machine import provenance
from bench.machine.files import replace_tree
from bench.regression.config import written
from bench.regression.offline import make_offline
from bench.store.git import commit_of
from bench.store.places import PUBLISHED_RESULTS, REPORTS, RESULTS

HELP = "Run the regression benchmarks of this commit, make pages of them, and compare two commits."
app = typer.Typer(help=HELP, short_help=HELP, no_args_is_help=True)
command = commands(app)

CONFIG = Path(__file__).parents[1] / "regression" / "asv.conf.json"
# Of this checkout: asv's results name its commits.
STORED = tuple(provenance.ROOT / root / "asv" for root in (RESULTS, PUBLISHED_RESULTS))
PAGES = provenance.ROOT / REPORTS / "asv"
PASSES = 3  # over all benchmarks: a slow spell of the machine hits some samples of each, not all of one


@command
def run(
    bench: Annotated[
        str,
        typer.Option(help="Regular expression that the benchmarks to run match.", show_default="all"),
    ] = "",
    passes: Annotated[int, typer.Option(min=1, help="Number of passes over the benchmarks.")] = PASSES,
) -> None:
    """Run the benchmarks in this environment, and store their samples under results/local/asv."""
    with tempfile.TemporaryDirectory() as temporary:
        _benchmark(written(Path(temporary), CONFIG), _clean_commit(), dict(os.environ), bench, passes)


@command
def check(
    repetitions: Annotated[int, typer.Option(min=1, help="Number of repetitions of the same code.")] = 10,
    slowdown: Annotated[float, typer.Option(min=1, help="Factor that the last run is slowed by.")] = 1.2,
    passes: Annotated[int, typer.Option(min=1, help="Number of passes over the benchmarks.")] = PASSES,
    results: Results = RESULTS,
    reports: Reports = REPORTS,
) -> None:
    """Check that repetitions of the same code raise no alarm and a planted slowdown does, in 20 minutes.

    The exit code is 0 when that holds, 1 when it does not, and 2 on bad input.
    """
    from bench.regression import check as gate_check

    run = partial(_benchmark, bench=gate_check.BENCH, passes=passes)
    rows = gate_check.check(run, CONFIG, repetitions, slowdown)
    machine = provenance.machine()
    path = results / "asv-check" / machine / "verdicts.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    rows.to_csv(path, index=False, lineterminator="\n")
    page = gate_check.write_report(rows, slowdown, machine, reports / "asv-check")
    typer.echo(f"{page.read_text()}\nverdicts: {path}\nreport:   {page}")
    raise typer.Exit(OK if gate_check.holds(rows) else REGRESSED)


@command
def html() -> None:
    """Write pages of the local and the published results to reports/local/asv; they need no network.

    When that fails, the former pages stay as they were.
    """
    with tempfile.TemporaryDirectory() as temporary:
        pages, stored = Path(temporary) / "pages", Path(temporary) / "results"
        for directory in reversed(STORED):  # what was measured here in place of what is published
            if directory.is_dir():
                shutil.copytree(directory, stored, dirs_exist_ok=True)
        _asv(written(Path(temporary), CONFIG, html_dir=pages, results_dir=stored), "publish")
        make_offline(pages)
        replace_tree(pages, PAGES)


@command
def compare(
    base: Annotated[str, typer.Argument(metavar="BASE", help="Commit to compare with.")],
    new: Annotated[str, typer.Argument(metavar="NEW", help="Commit that is judged.")] = "HEAD",
    results: Annotated[
        Path | None, typer.Option(help="Root directory of asv's results.", show_default="this checkout's")
    ] = None,
    machine: Annotated[
        str | None, typer.Option(help="Machine that was measured.", show_default="this one")
    ] = None,
    environment: Annotated[
        str | None,
        typer.Option(
            help="Environment of asv, such as here-py3.12.",
            show_default="this Python's, else the only common one",
        ),
    ] = None,
) -> None:
    """Compare two commits by their stored samples, benchmark by benchmark.

    The exit code is 0 without a regression, 1 with one, and 2 when something could not be compared.
    """
    from bench.regression.gate import compared, exit_code

    rows = compared(
        [results] if results else STORED,
        machine or provenance.machine(),
        _commit(base),
        _commit(new),
        environment,
    )
    typer.echo(
        tabulate([row.cells() for row in rows], headers=("benchmark", "base", "new", "verdict", "reason"))
    )
    raise typer.Exit(exit_code(rows))


def _benchmark(
    config: Path, commit: str, given: dict[str, str], bench: str = "", passes: int = PASSES
) -> None:
    """Run the benchmarks under an environment `given` and store them under a commit."""
    machine = provenance.machine()
    _asv(config, "machine", *_machine(machine))
    chosen = ["--bench", bench] if bench else []
    for _ in range(passes):
        _asv(
            config, "run", "-E", "here:same", "--set-commit-hash", commit, "--machine", machine,
            "--append-samples", "--show-stderr", *chosen, given=given,
        )  # fmt: skip


def _asv(config: Path, *arguments: str, given: dict[str, str] | None = None) -> None:
    command = [sys.executable, "-m", "asv", "--config", str(config), *arguments]
    # What is measured is this checkout, whose commit names the results, whichever one is installed.
    env = (given or dict(os.environ)) | {"ASV_PYTHONPATH": str(provenance.ROOT)}
    if subprocess.run(command, check=False, env=env).returncode:
        raise typer.Exit(REGRESSED)


def _machine(name: str) -> list[str]:
    """What asv wants to know of a machine, so that it asks no questions; nothing names the host."""
    cpu = provenance.cpu()
    known = {
        "machine": name,
        "os": sys.platform,
        "arch": "",
        "cpu": cpu["model"],
        "num_cpu": str(cpu["cores"]),
        "ram": str(psutil.virtual_memory().total),
    }
    return [part for key, value in known.items() for part in (f"--{key}", value)]


def _clean_commit() -> str:
    """The commit that runs; BadInput where tracked files differ from it, for its name would lie."""
    state = provenance.git()
    if state["commit"] is None:
        raise BadInput("asv run: no git repository; needed: a commit to store results under")
    if state["dirty"]:
        raise BadInput(
            "asv run: the tree is dirty: results would be stored under a commit that they are not of"
        )
    return str(state["commit"])


def _commit(name: str) -> str:
    commit = commit_of(name)
    if commit is None:
        raise BadInput(f"asv compare: {name!r} is no commit; allowed: a revision of git")
    return commit
