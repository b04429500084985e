"""`python -m bench`: run suites, report and compare their records, say what can be measured."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from tabulate import tabulate
from tqdm import tqdm

from bench import assets, models, store, suite
from bench.asv.cli import app as asv_app
from bench.errors import BadInput
from bench.measure import environment
from bench.policy.cli import app as policy_app
from bench.record import Record
from bench.suite import RunSpec

OK, REGRESSED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130

app = typer.Typer(
    help=__doc__,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

SuiteName = Annotated[str, typer.Argument(metavar="SUITE", help="A name from `list`, or auto.")]
Results = Annotated[Path, typer.Option(help="Folder of the records.")]
Reports = Annotated[Path, typer.Option(help="Folder of the reports.")]


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Bad input is one line on stderr and exit code 2, without a traceback."""
    try:
        yield
    except BadInput as error:
        print(error, file=sys.stderr)
        raise typer.Exit(BAD_INPUT) from error
    except KeyboardInterrupt:
        print("interrupted: run it again to resume", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None


def command(function: Callable[..., Any]) -> Callable[..., Any]:
    """Register a command whose bad input is told in one line."""
    name = function.__name__.removesuffix("_")  # `list_` is called list
    return app.command(name)(one_line_errors()(function))


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
    assets.check(loaded.quality)
    weights = models.with_weights(loaded)
    specs = suite.specs(path, loaded, only)
    folder = store.Store(results, path.stem, environment.machine())
    measured([spec.model_copy(update={"weights": weights}) for spec in specs], folder, results, force)
    records = folder.records([spec.name for spec in suite.expanded(path, loaded)])
    written = report_of(records, folder.folder, reports / path.stem, path.stem)
    print(table(records))
    print(f"records: {folder.folder}\nreport:  {written}")
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
    path = suite.find(chosen(name))
    folder = store.Store(results, path.stem, machine or measured_on(results / path.stem)).folder
    records = store.Store(results, path.stem, folder.name).records(names_of(path))
    if not records:
        raise BadInput(f"results: {folder}: no sound records; first: python -m bench run {name}")
    print(report_of(records, folder, reports / path.stem, path.stem))


@command
def show(name: SuiteName) -> None:
    """Show a suite's configurations, how many there are, and the most time they may take."""
    path = suite.find(chosen(name))
    loaded = suite.load(path)
    specs = suite.specs(path, loaded)
    rows = [(s.name, s.method, ", ".join(f"{k}={v}" for k, v in s.options.items())) for s in specs]
    print(f"{path.stem}: {loaded.title}\n")
    print(tabulate(rows, headers=("run", "method", "options")))
    print(f"\n{len(specs)} runs of at least {loaded.timing.min_pairs} pairs; {estimate(specs)}")


@command
def list_() -> None:
    """List the suites."""
    found = {name: suite.load(path) for name, path in suite.available().items()}
    rows = [(name, len(suite.expanded(suite.find(name), s)), s.title) for name, s in found.items()]
    print(tabulate(rows, headers=("suite", "runs", "title")))


@command
def doctor() -> None:
    """Say what this machine can measure, and what not and why."""
    from bench.doctor import checks

    rows = [("yes" if found.there else "no", found.what, found.why) for found in checks()]
    print(tabulate(rows, headers=("", "what", "why"), maxcolwidths=[None, None, 80]))


@command
def generate(
    out: Annotated[Path, typer.Option(help="Folder of the pictures.")] = Path("outputs"),
    model: Annotated[str, typer.Option(help="embedded, a directory, or a hub id.")] = "embedded",
    n: Annotated[int, typer.Option(min=1, help="Pictures, made as one batch.")] = 8,
    classes: Annotated[str, typer.Option(help="Names or numbers, with commas; default: all in turn.")] = "",
    dqar: Annotated[str | None, typer.Option(help="A preset or a .yaml file; default: untouched.")] = None,
    steps: Annotated[int, typer.Option(min=1, max=1000, help="Denoising steps.")] = 50,
    guidance: Annotated[float, typer.Option(min=0, help="Weight of classifier-free guidance.")] = 4.0,
    seed: Annotated[int, typer.Option(min=0, help="Of the first picture; the next has the next.")] = 0,
) -> None:
    """Make pictures, PNG files and a grid, with or without DQAR."""
    from bench.generate import generate as make

    models.check(models.directory(model))
    spec = RunSpec(
        suite="generate", name="generate", method="baseline", model=model, batch_size=n, seed=seed,
        num_inference_steps=steps, guidance_scale=guidance,
    )  # fmt: skip
    made = make(spec, dqar, [name.strip() for name in classes.split(",") if name.strip()], out)
    print(f"{len(made.files)} pictures in {made.seconds:.1f} s: {made.files[0].parent}\ngrid: {made.grid}")
    if made.summary:
        print(made.summary)


@command
def reproduce(
    model: Annotated[str | None, typer.Option(help="embedded, a directory, or a hub id.")] = None,
    results: Results = Path("results"),
    reports: Reports = Path("reports"),
) -> None:
    """Run the seed's published tables and print published beside measured.

    Exit code 0: every reuse ratio agrees; 1: one does not, or a run failed; 2: bad input.
    """
    from bench.reproduce import SUITE, agree, write_report

    path = suite.find(SUITE)
    loaded = suite.load(path, model=model)
    weights = models.with_weights(loaded)
    specs = [spec.model_copy(update={"weights": weights}) for spec in suite.specs(path, loaded)]
    folder = store.Store(results, SUITE, environment.machine())
    records = measured(specs, folder, results, force=False)
    page = write_report(records, reports / SUITE)
    print(f"{page.read_text()}\nrecords: {folder.folder}\nreport:  {page}")
    done = all(record.status == "ok" for record in records)
    raise typer.Exit(OK if agree() and done else REGRESSED)


@command
def signals(
    model: Annotated[str, typer.Option(help="embedded, a directory, or a hub id.")] = "embedded",
    pictures: Annotated[int, typer.Option(min=4, help="Each of a class and seed of its own.")] = 44,
    steps: Annotated[int, typer.Option(min=4, max=1000, help="Denoising steps.")] = 50,
    guidance: Annotated[float, typer.Option(min=0, help="Weight of classifier-free guidance.")] = 4.0,
    seed: Annotated[int, typer.Option(min=0, help="Of the first picture.")] = 0,
    results: Results = Path("results"),
    reports: Reports = Path("reports"),
) -> None:
    """Measure what entropy, SNR and the latent's norm know of the error that reuse would make."""
    from bench.signals.report import write_report
    from bench.signals.rows import Study

    study = Study.measured(model, pictures, steps, guidance, seed)
    path = study.save(results / "signals" / environment.machine())
    page = write_report(study.rows, study.facts, reports / "signals")
    print(f"{page.read_text()}\nrows:   {path}\nreport: {page}")


@command
def tune(
    trials: Annotated[int, typer.Option(min=1, help="Trials to add to the study.")] = 40,
    model: Annotated[str, typer.Option(help="embedded, a directory, or a hub id.")] = "embedded",
    steps: Annotated[int, typer.Option(min=2, max=1000, help="Denoising steps.")] = 25,
    pictures: Annotated[int, typer.Option(min=2, help="A trial's, and as many unseen ones.")] = 4,
    pairs: Annotated[int, typer.Option(min=2, help="Timed for each point of the front.")] = 6,
    guidance: Annotated[float, typer.Option(min=0, help="Weight of classifier-free guidance.")] = 4.0,
    results: Results = Path("results"),
    reports: Reports = Path("reports"),
) -> None:
    """Search DQAR's fields for the front of speedup and drift. Resumes, and adds trials."""
    from bench.methods.dqar import shape_of
    from bench.report.tune import write_report
    from bench.tune import Tuner

    storage = results / "tune" / environment.machine() / ".cache" / "study.db"
    tuner = Tuner(model, steps, pictures, guidance, storage)
    tuner.search(trials)
    facts = {
        "machine": environment.machine(), "model": suite.shown_model(model), "steps": steps, "pairs": pairs,
        "pictures": pictures, "guidance": guidance, "shape": shape_of(tuner.session.pipe),
    }  # fmt: skip
    done = [trial.values for trial in tuner.study.trials if trial.values]
    page = write_report(tuner.front(pairs), done, facts, reports / "tune")
    print(f"{page.read_text()}\nreport: {page}\nstudy:  {storage}")


@command
def control(
    repetitions: Annotated[int, typer.Option(min=1, help="Of the baseline against itself.")] = 40,
    results: Results = Path("results"),
    reports: Reports = Path("reports"),
) -> None:
    """Time the baseline against itself again and again: does the 95 % interval hold 1.0?

    Exit code 0: in at least 90 % of the repetitions; 1: in fewer, or one failed; 2: bad input.
    """
    from bench.control import SUITE, specs, study, write_report

    chosen = specs(repetitions)
    folder = store.Store(results, SUITE, environment.machine())
    records = measured(chosen, folder, results, force=False)
    page = write_report(records, reports / SUITE)
    print(f"{page.read_text()}\nrecords: {folder.folder}\nreport:  {page}")
    done = all(record.status == "ok" for record in records)
    raise typer.Exit(OK if done and study(records).holds else REGRESSED)


@command
def validate(folder: Annotated[Path, typer.Argument(metavar="DIR")]) -> None:
    """Name every record under DIR that is truncated, foreign or tampered with; 1 if there are."""
    if not folder.is_dir():
        raise BadInput(f"validate: {folder}: no such folder")
    files = store.record_files(folder)
    flaws = [(path, why) for path in files if (why := store.flaw(path))]
    for path, why in flaws:
        print(f"{path}: {why}")
    print(f"{len(files) - len(flaws)} of {len(files)} records are sound")
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
    from bench.compare import compared, exit_code
    from bench.revision import folder_of

    with folder_of(a) as before, folder_of(b) as after:
        rows = compared(before, after, metric, threshold, cross_machine)
    print(tabulate([row.cells() for row in rows], headers=("run", "A", "B", "verdict", "reason")))
    raise typer.Exit(exit_code(rows))


def measured(specs: list[RunSpec], folder: store.Store, results: Path, force: bool) -> list[Record]:
    """Run what is not finished, with a progress bar; the records of all."""
    from bench.runner import Runner

    folder.prepare()
    with tqdm(total=len(specs), unit="run", disable=None, file=sys.stderr) as bar:
        runner = Runner(results=results, force=force, say=bar.set_description_str)
        for spec in specs:
            runner.run(spec)
            bar.update()
    return folder.records([spec.name for spec in specs])


def chosen(name: str) -> str:
    """The suite that `auto` means here."""
    if name != "auto":
        return name
    return "a100" if models.device() == "cuda" else "embedded"


def names_of(path: Path) -> list[str]:
    """The names of a suite's configurations, in order."""
    return [spec.name for spec in suite.expanded(path, suite.load(path))]


def measured_on(folder: Path) -> str:
    """This machine if it has records there, else the only one that has; BadInput if several."""
    here = environment.machine()
    others = sorted(p.name for p in folder.glob("*") if p.is_dir())
    if here in others or not others:
        return here
    if len(others) > 1:
        raise BadInput(f"results: {folder}: --machine is needed; allowed: {', '.join(others)}")
    return others[0]


def report_of(records: list[Record], folder: Path, out: Path, name: str) -> Path:
    """Write the report and the index of all reports; the report's path."""
    from bench.report.render import write_index, write_report

    try:
        out.mkdir(parents=True, exist_ok=True)
        written = write_report(records, folder, out, f"python -m bench run {name}")
        write_index(out.parent)
    except OSError as error:
        raise BadInput(
            f"reports: {out} cannot be written: {error.strerror}; needed: a writable folder"
        ) from error
    return written


def estimate(specs: list[RunSpec]) -> str:
    """What the suite allows itself, in minutes."""
    most = sum(spec.timing.budget_s for spec in specs) / 60
    limit = sum(spec.timeout_s for spec in specs) / 60
    return f"about {most:.0f} minutes of timing, at most {limit:.0f} in all"


def table(records: list[Record]) -> str:
    """The final table: one row a configuration."""
    headers = ("run", "speedup [95 %]", "verdict", "drift", "PSNR dB", "reused", "limit")
    rows = [row(record) for record in records]
    return tabulate(rows, headers=headers, disable_numparse=True)


def row(record: Record) -> tuple[str, ...]:
    """A configuration's row in the final table."""
    if record.status == "failed":
        return record.name, "failed", record.reason or ""
    timing, quality, reuse, limits = record.timing, record.quality, record.reuse, record.limits
    ratio = timing and timing.speedup
    return (
        record.name,
        f"{ratio.median:.3f} [{ratio.low:.3f}, {ratio.high:.3f}]" if ratio else "",
        timing.verdict if timing else "",
        f"{quality.drift.mean:.4f}" if quality else "",
        f"{quality.psnr_db.mean:.1f}" if quality and quality.psnr_db else "",
        f"{reuse.ratio:.1%}" if reuse else "",
        f"{limits.speedup_limit:.3f}" if limits else "",
    )


app.add_typer(policy_app, name="policy")
app.add_typer(asv_app, name="asv")
logging.basicConfig(format="%(message)s", level=logging.WARNING)
