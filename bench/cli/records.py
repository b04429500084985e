"""The commands on what was measured: report it, publish it, validate it, compare it."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer
from tabulate import tabulate

from bench.cli.options import OK, REGRESSED, Reports, Results, SuiteName, chosen, commands
from bench.cli.reporting import measured_on, report_of
from bench.errors import BadInput
from bench.spec.suite import Suite
from bench.store import validation
from bench.store.places import REPORTS, RESULTS
from bench.store.records import Store

app = typer.Typer()
command = commands(app)


@command
def report(
    name: SuiteName,
    results: Results = RESULTS,
    reports: Reports = REPORTS,
    machine: Annotated[
        str | None,
        typer.Option(
            help="Machine that made the records, as their directory is named.",
            show_default="this one, else the only one",
        ),
    ] = None,
) -> None:
    """Write a suite's report again from its records."""
    from bench.report.page import write_index

    suite = Suite.load(chosen(name))
    store = Store(results, suite.name, machine or measured_on(results / suite.name))
    records = store.records(None if suite.command else suite.names)
    if not records:
        made_by = suite.command or f"run {name}"
        raise BadInput(f"results: {store.directory}: no valid records; first: python -m bench {made_by}")
    if suite.command:
        page = import_module(f"bench.studies.{suite.command}").write_report(records, reports / suite.name)
        write_index(reports)
        typer.echo(page)
    else:
        out = suite.report_dir(reports, store.machine)
        typer.echo(report_of(suite, records, store.directory, out))


@command
def publish(
    name: Annotated[
        str,
        typer.Argument(metavar="SUITE", help="Suite or study, or all to write every published page again."),
    ],
) -> None:
    """Move the local records of a suite to results/published, and write its page under reports.

    Without local records, the published page is written again. Only this command changes committed files.
    """
    from bench.cli.publish import publish as published

    for page in published(name):
        typer.echo(page)


@command
def validate(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="Directory whose records are checked, at any depth.")
    ],
) -> None:
    """Check the records in a directory, and name those that are truncated, misplaced or altered.

    The exit code is 0 when all are valid, 1 when some are not, and 2 on bad input.
    """
    if not directory.is_dir():
        raise BadInput(f"validate: {directory}: no such directory")
    files = validation.files(directory)
    errors = [(path, why) for path in files if (why := validation.validation_error(path))]
    for path, why in errors:
        typer.echo(f"{path}: {why}")
    typer.echo(f"{len(files) - len(errors)} of {len(files)} records are valid")
    raise typer.Exit(REGRESSED if errors else OK)


@command
def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="Before: a directory of records or a git revision.")],
    b: Annotated[str, typer.Argument(metavar="B", help="After: a directory of records or a git revision.")],
    metric: Annotated[
        str, typer.Option(help="Field of the records to compare, with dots between its parts.")
    ] = "timing.speedup",
    threshold: Annotated[
        float, typer.Option(help="Smallest relative change that counts; above 0, below 1.")
    ] = 0.02,
    cross_machine: Annotated[bool, typer.Option(help="Compare even if the machines differ.")] = False,
) -> None:
    """Compare the records of two directories, or those published in two git revisions, run by run.

    The exit code is 0 when all is the same or better, 1 when something regressed, and 2 when something could
    not be compared.
    """
    from bench.report.compare import compared, exit_code
    from bench.store.git import directory_of

    with directory_of(a) as before, directory_of(b) as after:
        rows = compared(before, after, metric, threshold, cross_machine)
    typer.echo(tabulate([row.cells() for row in rows], headers=("run", "A", "B", "verdict", "reason")))
    raise typer.Exit(exit_code(rows))
