"""What commands share that end in a report: whose records, and the page of a suite."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tabulate import tabulate

from bench.errors import BadInput
from bench.machine import provenance
from bench.record import Record
from bench.report.tables.columns import interval
from bench.spec.suite import Suite

if TYPE_CHECKING:
    from bench.report.suite_report import SuiteReport

HEADERS = ("run", "speedup [95 %]", "verdict", "drift", "PSNR dB", "reused", "limit")


def measured_on(suite_dir: Path) -> str:
    """Find the machine whose records are meant.

    Args:
        suite_dir: a suite's directory of results, which has one for each machine.

    Returns:
        This machine if it has records there, or none has; else the only one that has.

    Raises:
        BadInput: where several others have records.
    """
    here = provenance.machine()
    others = sorted(p.name for p in suite_dir.glob("*") if p.is_dir())
    if here in others or not others:
        return here
    if len(others) > 1:
        raise BadInput(f"results: {suite_dir}: --machine is needed; allowed: {', '.join(others)}")
    return others[0]


def report_of(suite: Suite, records: list[Record], records_dir: Path, out: Path) -> Path:
    """Write the report of a suite to `out`, and the index of all reports next to it.

    Args:
        suite: the suite that the records are of.
        records: in the order to be shown.
        records_dir: where they and their images are.
        out: the report's directory.

    Returns:
        The path of the report.

    Raises:
        BadInput: where no run was measured, or `out` cannot be written.
    """
    from bench.report.page import writable, write_index

    if not records:
        raise BadInput(f"results: {records_dir}: no complete record; needed: records with their images")
    if all(record.status == "skipped" for record in records):
        raise BadInput(f"results: {records_dir}: every run was skipped: {records[0].reason}")
    writable(out)
    written = suite_report(suite, records, records_dir).write(out)
    write_index(out.parent)
    return written


def suite_report(suite: Suite, records: list[Record], records_dir: Path) -> SuiteReport:
    """Prepare the report of a suite, not yet written.

    Args:
        suite: the suite, under what the command line changed of it.
        records: those that the report shows.
        records_dir: their directory, which holds images as well.

    Returns:
        The report.
    """
    from bench.report.suite_report import SuiteReport
    from bench.report.text.provenance import command

    asked = {spec.name: spec.public() for spec in suite.without_overrides.configurations}
    made_by = command(suite.name, asked, records)
    file = suite.file
    return SuiteReport(
        records, records_dir, made_by, suite.title, suite.goals, file.no_loss_margin, file.subject
    )


def table(records: Sequence[Record]) -> str:
    """Draw the table that a run ends with.

    Args:
        records: its configurations in order.

    Returns:
        Text, one row a configuration.
    """
    return str(tabulate([row(record) for record in records], headers=HEADERS, disable_numparse=True))


def row(record: Record) -> tuple[str, ...]:
    """Fill a row of that table.

    Args:
        record: the record of one configuration.

    Returns:
        Name, speedup, verdict, drift, PSNR, reuse and limit; or name, status and reason where it has no
        values.
    """
    if record.status != "ok":
        return record.name, record.status, record.reason or ""
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
