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

app = typer.Typer(help=__doc__, no_args_is_help=True)
command = commands(app)

CONFIG = Path(__file__).parents[1] / "regression" / "asv.conf.json"
# Of this checkout: asv's results name its commits.
STORED = tuple(provenance.ROOT / root / "asv" for root in (RESULTS, PUBLISHED_RESULTS))
PAGES = provenance.ROOT / REPORTS / "asv"
PASSES = 3  # over all benchmarks: a slow spell of the machine hits some samples of each, not all of one


@command
def run(
    bench: Annotated[str, typer.Option(help="Run only benchmarks that match this regular expression.")] = "",
    passes: Annotated[int, typer.Option(min=1, help="Number of passes over the benchmarks.")] = PASSES,
) -> None:
    """Run the benchmarks in this environment and store their samples under results/local/asv."""
    with tempfile.TemporaryDirectory() as folder:
        _benchmark(written(Path(folder), CONFIG), _clean_commit(), dict(os.environ), bench, passes)


@command
def check(
    repetitions: Annotated[int, typer.Option(min=1, help="Repetitions of the same code.")] = 10,
    slowdown: Annotated[float, typer.Option(min=1, help="How many times as long the last run takes.")] = 1.2,
    passes: Annotated[int, typer.Option(min=1, help="Passes over the benchmarks in each run.")] = PASSES,
    results: Results = RESULTS,
    reports: Reports = REPORTS,
) -> None:
    """Try the gate: repetitions must raise no alarm, a planted slowdown must raise one. Some 20 minutes.

    Exit code 0: so it is; 1: it is not.
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
    """Make pages of what is stored, here and published, under reports/local/asv; they need no network.

    Where that fails the pages before stay as they were.
    """
    with tempfile.TemporaryDirectory() as folder:
        made, stored = Path(folder) / "pages", Path(folder) / "results"
        for directory in reversed(STORED):  # what was measured here in place of what is published
            if directory.is_dir():
                shutil.copytree(directory, stored, dirs_exist_ok=True)
        _asv(written(Path(folder), CONFIG, html_dir=made, results_dir=stored), "publish")
        make_offline(made)
        replace_tree(made, PAGES)


@command
def compare(
    base: Annotated[str, typer.Argument(metavar="BASE", help="The commit to compare with.")],
    new: Annotated[str, typer.Argument(metavar="NEW", help="The commit that is judged.")] = "HEAD",
    results: Annotated[
        Path | None, typer.Option(help="Directory of asv's results [default: this checkout's].")
    ] = None,
    machine: Annotated[str | None, typer.Option(help="The machine measured [default: this one].")] = None,
    environment: Annotated[
        str | None,
        typer.Option(help="Such as here-py3.12 [default: this Python's, else the only common one]."),
    ] = None,
) -> None:
    """Compare two commits by the stored samples.

    Exit code 0: no regression; 1: a regression; 2: something could not be compared.
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
    found = provenance.git()
    if found["commit"] is None:
        raise BadInput("asv run: no git repository; needed: a commit to store results under")
    if found["dirty"]:
        raise BadInput(
            "asv run: the tree is dirty: results would be stored under a commit that they are not of"
        )
    return str(found["commit"])


def _commit(name: str) -> str:
    found = commit_of(name)
    if found is None:
        raise BadInput(f"asv compare: {name!r} is no commit; allowed: a revision of git")
    return found
