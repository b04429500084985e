"""`python -m bench publish`: the one command that changes committed files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

import typer

from bench.cli.reporting import measured_on, report_of, suite_report
from bench.errors import BadInput
from bench.machine import provenance
from bench.machine.files import replace_tree
from bench.record import Record
from bench.report.earlier_weights import earlier_pages
from bench.report.page import write_index
from bench.spec.suite import Suite, available
from bench.store.places import PUBLISHED_REPORTS, PUBLISHED_RESULTS, REPORTS, RESULTS
from bench.store.publishing import publish_records, publish_tree
from bench.store.records import Store
from bench.studies.gpu_check.step import TOY
from dqar.utils.foreign import read_json

ALL = "all"


def publish(name: str) -> list[Path]:
    """Move what this machine measured for a suite or a study to the committed evidence, and write its page.

    Without local records the page of what is published is written again; for `all`, every such page.

    Args:
        name: a suite's or a study's; `all` for every published one.

    Returns:
        The pages that were written.

    Raises:
        BadInput: nothing is there to publish, or a suite is not finished.
    """
    if name == ALL:
        pages = [page for each in _published() for page in _written(each, _suite(each))]
        _write_index()
        return pages
    suite = _suite(name)
    if suite is None:
        _publish_study(name)
    else:
        _publish_suite(suite)
        name = suite.name
    pages = _written(name, suite)
    if not pages:
        raise BadInput(f"publish: {name!r} has no records in {RESULTS} or {PUBLISHED_RESULTS}; first run it")
    _write_index()
    return pages


def _write_index() -> None:
    write_index(PUBLISHED_REPORTS, earlier_pages(PUBLISHED_RESULTS))


def _suite(name: str) -> Suite | None:
    return Suite.load(name) if name in available() or name.endswith((".yaml", ".yml")) else None


def _publish_suite(suite: Suite) -> None:
    """Move the records of this machine, where there are any."""
    local = Store(RESULTS, suite.name, provenance.machine())
    if records := local.records(None if suite.command else suite.names):
        _check_finished(suite, records)
        shown = () if suite.command else _shown(suite, records, local)
        publish_records(local, Store(PUBLISHED_RESULTS, suite.name, local.machine), shown)


def _published() -> list[str]:
    return sorted(path.name for path in PUBLISHED_RESULTS.glob("*") if path.is_dir())


def _check_finished(suite: Suite, records: Sequence[Record]) -> None:
    lacking = [] if suite.command else sorted({*suite.names} - {record.name for record in records})
    if lacking:
        raise BadInput(
            f"publish: {suite.name}: not measured: {', '.join(lacking[:5])}; needed: all configurations;"
            f" first: python -m bench run {suite.name}"
        )
    if any(record.environment.get("git", {}).get("dirty") for record in records):
        typer.echo(f"{suite.name}: measured on changed sources, as its report states", err=True)


def _shown(suite: Suite, records: list[Record], store: Store) -> set[str]:
    """The configurations whose images the report shows."""
    if not suite.file.publish_images:
        return set()
    return {record.name for record in suite_report(suite, records, store.directory).few}


def _publish_study(name: str) -> None:
    """Move the data of a study that keeps no records, and its pages."""
    if name in MACHINE_PAGES:  # pages are written again, those of machines published before too
        for path in _machines(RESULTS / name):
            publish_tree(path, PUBLISHED_RESULTS / name / path.name)
        return
    publish_tree(RESULTS / name, PUBLISHED_RESULTS / name)
    if (REPORTS / name).is_dir() and name != "asv":  # asv's pages are made on demand
        replace_tree(REPORTS / name, PUBLISHED_REPORTS / name)


def _written(name: str, suite: Suite | None) -> list[Path]:
    """Write the page of a published suite or study again; its path, or none where nothing is published."""
    directory = PUBLISHED_RESULTS / name
    machines = _machines(directory)
    if not machines:  # a study of pages alone, as families is, or nothing
        page = PUBLISHED_REPORTS / name / "README.md"
        return [page] if suite is None and page.exists() else []
    if name in MACHINE_PAGES:
        return [MACHINE_PAGES[name](path) for path in machines]
    if suite is None:
        pages = sorted((PUBLISHED_REPORTS / name).rglob("README.md"))
        written = STUDY_PAGES.get(name)
        return [written(directory / measured_on(directory))] if written else pages or [directory]
    if suite.file.report == "machine":
        return [_suite_page(suite, path.name) for path in machines]
    return [_suite_page(suite, measured_on(directory))]


def _machines(directory: Path) -> list[Path]:
    """The machines' directories, without those of trials at toy size, which are no evidence."""
    return [path for path in sorted(directory.glob("*")) if path.is_dir() and not path.name.endswith(TOY)]


def _suite_page(suite: Suite, machine: str) -> Path:
    store = Store(PUBLISHED_RESULTS, suite.name, machine)
    records = store.records(None if suite.command else suite.names)
    if suite.command:
        module = import_module(f"bench.studies.{suite.command}")
        page: Path = module.write_report(records, PUBLISHED_REPORTS / suite.name)
        return page
    return report_of(suite, records, store.directory, suite.report_dir(PUBLISHED_REPORTS, machine))


def _signals(directory: Path) -> Path:
    from bench.studies.signals.report import write_report
    from bench.studies.signals.rows import Study

    study = Study.load(directory)
    return write_report(study.rows, study.facts, PUBLISHED_REPORTS / "signals")


def _prompt_length(directory: Path) -> Path:
    from bench.studies.prompt_length.report import write_report
    from bench.studies.signals.rows import Study

    study = Study.load(directory)
    return write_report(study.rows, study.facts, PUBLISHED_REPORTS / "prompt-length")


def _tune(directory: Path) -> Path:
    """The pages of the searches of methods' options, one a model; the last one's path."""
    from bench.studies.tune.methods_report import write_report
    from bench.studies.tune.stored import TRIALS, StoredTrials

    page = PUBLISHED_REPORTS / "tune"
    for rows in sorted(directory.rglob(TRIALS)):
        study = StoredTrials.load(rows.parent)
        page = write_report(study.rows, study.facts, PUBLISHED_REPORTS / "tune" / rows.parent.name)
    return page


def _generality(directory: Path) -> Path:
    from bench.studies.generality.report import write_report
    from bench.studies.generality.rows import load

    return write_report(load(directory), directory.name, PUBLISHED_REPORTS / "generality")


def _policy(directory: Path) -> Path:
    from bench.studies.policy.report import write_report

    comparison = read_json(directory / "comparison.json", "comparison")
    return write_report(comparison, PUBLISHED_REPORTS / "policy")


def _scaling(directory: Path) -> Path:
    from bench.studies.scaling.report import write_report

    return write_report(directory, PUBLISHED_REPORTS / "scaling")


def _gpu_check(directory: Path) -> Path:
    from bench.studies.gpu_check.report import write_report
    from bench.studies.gpu_check.supervisor import results

    machine = directory.name
    return write_report(results(directory), machine, PUBLISHED_REPORTS / "gpu-check" / machine)


# Studies that have a page for each machine.
MACHINE_PAGES: dict[str, Callable[[Path], Path]] = {"gpu-check": _gpu_check}
# Studies without records whose page can be written again from what they measured, in a machine's directory.
STUDY_PAGES: dict[str, Callable[[Path], Path]] = {
    "signals": _signals,
    "prompt-length": _prompt_length,
    "generality": _generality,
    "policy": _policy,
    "scaling": _scaling,
    "tune": _tune,
}
