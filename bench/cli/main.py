"""`python -m bench`: run suites, report and compare their records, say what can be measured."""

from __future__ import annotations

import logging
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer
from tabulate import tabulate

from bench.cli import studies
from bench.cli.options import OK, REGRESSED, Reports, Results, SuiteName, chosen, commands
from bench.cli.policy import app as policy_app
from bench.cli.regression import app as asv_app
from bench.errors import BadInput
from bench.machine import provenance
from bench.record import Record
from bench.report.tables.columns import interval
from bench.run import preflight
from bench.spec import suite
from bench.spec.suite import RunSpec
from bench.store import validation
from bench.store.records import Store

app = typer.Typer(
    help=__doc__,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
command = commands(app)

# Seconds besides timing, on two cores: a process to start; a configuration to warm up, count and compare; and
# the process that measures its memory.
PROCESS_S, BESIDES_S, MEMORY_S = 10, 6, 8

# Suites whose page is their own.
STUDIES = {"control": "bench.studies.control", "reproduce": "bench.studies.reproduce"}


@command
def run(
    name: SuiteName,
    results: Results = Path("results"),
    reports: Reports = Path("reports"),
    only: Annotated[str | None, typer.Option(help="Run this configuration alone.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the first picture.")] = None,
    model: Annotated[str | None, typer.Option(help="A directory or a hub id instead.")] = None,
    images: Annotated[int | None, typer.Option(min=0, help="Pictures that quality is measured on.")] = None,
    inception_weights: Annotated[
        str | None, typer.Option(help="torch-fidelity's Inception weights (.pth): FID in place of FD.")
    ] = None,
    reference: Annotated[
        str | None, typer.Option(help="Real pictures: a folder, or ADM's .npz (arr_0; mu and sigma).")
    ] = None,
    lpips_weights: Annotated[
        str | None, typer.Option(help="Folder with the weights of LPIPS; default: torch hub's cache.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Measure again what is finished.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Keep what is finished: the default.")] = False,
) -> None:
    """Run a suite: one record a configuration, then the report. Resumes where it was stopped.

    Exit code 0: all done; 1: a run failed (its record says why); 2: bad input.
    """
    if force and resume:
        raise BadInput("run: --force: not allowed with --resume; allowed: one of them")
    path = suite.find(chosen(name))
    files = (inception_weights, reference, lpips_weights)
    quality = dict(zip(suite.FILES, files, strict=True)) | {"n": images}
    loaded = suite.load(path, seed=seed, model=model, quality=quality)
    for line in preflight.check(loaded.quality):
        typer.echo(line)
    from bench.run.runner import run_suite

    folder = run_suite(path, loaded, results, only, force)
    records = folder.records([spec.name for spec in suite.expanded(path, loaded)])
    written = report_of(records, folder.folder, page_folder(reports, path, folder.folder), path)
    typer.echo(table(records))
    typer.echo(f"records: {folder.folder}\nreport:  {written}")
    failed = [r.name for r in records if r.status == "failed" and only in (None, r.name)]
    raise typer.Exit(REGRESSED if failed else OK)


@command
def report(
    name: SuiteName,
    results: Results = Path("results"),
    reports: Reports = Path("reports"),
    machine: Annotated[str | None, typer.Option(help="Whose records; default: this one's.")] = None,
) -> None:
    """Write a suite's report again from its records."""
    from bench.report.page import write_index

    path = suite.find(chosen(name))
    kept = Store(results, path.stem, machine or measured_on(results / path.stem))
    studied = STUDIES.get(path.stem)
    records = kept.records(None if studied else names_of(path))
    if not records:
        made_by = path.stem if studied else f"run {name}"
        raise BadInput(f"results: {kept.folder}: no sound records; first: python -m bench {made_by}")
    if studied:
        typer.echo(import_module(studied).write_report(records, reports / path.stem))
        write_index(reports)
    else:
        typer.echo(report_of(records, kept.folder, page_folder(reports, path, kept.folder), path))


@command
def show(name: SuiteName) -> None:
    """Show a suite's configurations, how many there are, and an estimate of their time."""
    path = suite.find(chosen(name))
    loaded = suite.load(path)
    specs = suite.specs(path, loaded)
    rows = [(s.name, s.method, ", ".join(f"{k}={v}" for k, v in s.options.items())) for s in specs]
    typer.echo(f"{path.stem}: {loaded.title}\n")
    typer.echo(tabulate(rows, headers=("run", "method", "options")))
    typer.echo(f"\n{len(specs)} runs of at least {loaded.timing.min_pairs} pairs; {estimate(specs)}")


@command
def list_() -> None:
    """List the suites."""
    found = {name: suite.load(path) for name, path in suite.available().items()}
    rows = [(name, len(suite.expanded(suite.find(name), s)), s.title) for name, s in found.items()]
    typer.echo(tabulate(rows, headers=("suite", "runs", "title")))


@command
def doctor() -> None:
    """Say what this machine can measure, and what not and why."""
    from bench.cli.doctor import checks

    rows = [("yes" if found.there else "no", found.what, found.why) for found in checks()]
    typer.echo(tabulate(rows, headers=("", "what", "why"), maxcolwidths=[None, None, 80]))


@command
def validate(folder: Annotated[Path, typer.Argument(metavar="DIR")]) -> None:
    """Name every record under DIR that is truncated, foreign or tampered with; 1 if there are."""
    if not folder.is_dir():
        raise BadInput(f"validate: {folder}: no such folder")
    files = validation.record_files(folder)
    flaws = [(path, why) for path in files if (why := validation.flaw(path))]
    for path, why in flaws:
        typer.echo(f"{path}: {why}")
    typer.echo(f"{len(files) - len(flaws)} of {len(files)} records are sound")
    raise typer.Exit(REGRESSED if flaws else OK)


@command
def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="Before: a folder of records, or a revision.")],
    b: Annotated[str, typer.Argument(metavar="B", help="After: a folder of records, or a revision.")],
    metric: Annotated[str, typer.Option(help="Dotted field of a record.")] = "timing.speedup",
    threshold: Annotated[float, typer.Option(help="Smallest relative change that counts.")] = 0.02,
    cross_machine: Annotated[bool, typer.Option(help="Though the machines differ.")] = False,
) -> None:
    """Compare two folders, or the results/ of two git revisions, configuration by configuration.

    Exit code 0: all the same or better; 1: something regressed; 2: something could not be compared.
    """
    from bench.report.compare import compared, exit_code
    from bench.store.git import folder_of

    with folder_of(a) as before, folder_of(b) as after:
        rows = compared(before, after, metric, threshold, cross_machine)
    typer.echo(tabulate([row.cells() for row in rows], headers=("run", "A", "B", "verdict", "reason")))
    raise typer.Exit(exit_code(rows))


def names_of(path: Path) -> list[str]:
    """The names of a suite's configurations, in order."""
    return [spec.name for spec in suite.expanded(path, suite.load(path))]


def measured_on(folder: Path) -> str:
    """This machine if it has records there, else the only one that has; BadInput if several."""
    here = provenance.machine()
    others = sorted(p.name for p in folder.glob("*") if p.is_dir())
    if here in others or not others:
        return here
    if len(others) > 1:
        raise BadInput(f"results: {folder}: --machine is needed; allowed: {', '.join(others)}")
    return others[0]


def page_folder(reports: Path, path: Path, records: Path) -> Path:
    """Where a suite's report goes: named after the suite, or after the machine of its records."""
    return reports / (records.name if suite.load(path).report == "machine" else path.stem)


def report_of(records: list[Record], folder: Path, out: Path, path: Path) -> Path:
    """Write the report and the index of all reports; the report's path. `path` is the suite's file."""
    from bench.report.page import write_index, write_report
    from bench.report.text.provenance import command

    if all(record.status == "left_out" for record in records):
        raise BadInput(f"results: {folder}: every run was left out: {records[0].reason}")
    loaded = suite.load(path)
    asked = {spec.name: spec.public() for spec in suite.expanded(path, loaded)}
    made_by = command(path.stem, asked, records)
    try:
        out.mkdir(parents=True, exist_ok=True)
        written = write_report(records, folder, out, made_by, loaded.title, loaded.goals)
        write_index(out.parent)
    except OSError as error:
        raise BadInput(
            f"reports: {out} cannot be written: {error.strerror}; needed: a writable folder"
        ) from error
    return written


def estimate(specs: list[RunSpec]) -> str:
    """How long the suite takes: a slow model's least number of pairs may exceed the budget."""
    limit = sum(spec.timeout_s for spec in specs) / 60
    return f"about {minutes(specs):.0f} minutes where the budgets suffice, at most {limit:.0f}"


def minutes(specs: list[RunSpec]) -> float:
    """What timing may take, and what each process and configuration takes besides."""
    return sum(map(_seconds, suite.groups(specs))) / 60


def _seconds(group: list[RunSpec]) -> float:
    """Of n configurations a round is n + 1 generations, where pairs of their own would be 2 n."""
    n, budget = len(group), sum(spec.timing.budget_s for spec in group)
    return PROCESS_S + budget * (n + 1) / (2 * n) + sum(BESIDES_S + spec.memory * MEMORY_S for spec in group)


def table(records: list[Record]) -> str:
    """The final table: one row a configuration."""
    headers = ("run", "speedup [95 %]", "verdict", "drift", "PSNR dB", "reused", "limit")
    rows = [row(record) for record in records]
    return tabulate(rows, headers=headers, disable_numparse=True)


def row(record: Record) -> tuple[str, ...]:
    """A configuration's row in the final table."""
    if record.status != "ok":
        return record.name, record.status.replace("_", " "), record.reason or ""
    timing, quality, reuse, limits = record.timing, record.quality, record.reuse, record.limits
    ratio = timing and timing.speedup
    return (
        record.name,
        interval(ratio, 3) if ratio else "",
        timing.verdict if timing else "",
        f"{quality.drift.mean:.4f}" if quality else "",
        f"{quality.psnr_db.mean:.1f}" if quality and quality.psnr_db else "",
        f"{reuse.ratio:.1%}" if reuse else "",
        f"{limits.speedup_limit:.3f}" if limits else "",
    )


app.add_typer(studies.app)
app.add_typer(policy_app, name="policy")
app.add_typer(asv_app, name="asv")
logging.basicConfig(format="%(message)s", level=logging.WARNING)
