"""The report of a suite: one page with its tables as CSV and its plots.

A report is a function of its records, and of whether a shipped model's weights are still those measured: as
long as they are, the same records give the same bytes.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from bench.record import Record
from bench.report import earlier_weights
from bench.report.escape import code, escape
from bench.report.goals import goals_table
from bench.report.page import Page, render
from bench.report.pareto import Fronts, compare, drawn
from bench.report.plots import pareto as pareto_plots
from bench.report.plots import samples, speed
from bench.report.plots.memory import plot_memory
from bench.report.plots.reuse_maps import plot_maps
from bench.report.selection import NO_LOSS_MARGIN, Selection
from bench.report.setup import converged_by, setup
from bench.report.tables import pareto as pareto_tables
from bench.report.tables import runs
from bench.report.tables.columns import DASH, Table
from bench.report.tables.composition import composition_table
from bench.report.text import checks, distances, pareto, provenance, recommendation, summary
from bench.report.text.missing_values import missing_lines
from bench.report.text.phrases import three
from bench.spec.suite_file import Goal
from bench.store import record_files

_HEADLINES = {
    "speed": summary.headline,
    "memory": summary.memory_headline,
    "distances": distances.headline,
}


@dataclass(frozen=True)
class SuiteReport:
    """What a report is made from, and its parts."""

    records: Sequence[Record]  # in the suite's order
    results: Path  # the directory of the records and of the images that they name
    command: str  # what made them
    question: str = ""  # the suite's title
    goals: Sequence[Goal] = ()
    margin: float = NO_LOSS_MARGIN
    subject: str = "speed"  # what the headline is about: a key of _HEADLINES

    @cached_property
    def ran(self) -> list[Record]:
        """The records of runs that were not skipped, the control first."""
        run = [record for record in self.records if record.status != "skipped"]
        return sorted(run, key=lambda record: record.method != "baseline")  # stable otherwise

    @cached_property
    def selection(self) -> Selection:
        """What follows from the records."""
        return Selection(self.ran, self.margin)

    @cached_property
    def fronts(self) -> Fronts | None:
        """The fronts, of a suite that compares several methods."""
        return compare(self.ran, self.margin)

    @cached_property
    def few(self) -> list[Record]:
        """The records that plots with a row for each configuration show."""
        return drawn(self.fronts) if self.fronts else self.ran

    def write(self, out: Path) -> Path:
        """Write README.md, its plots and its CSV files to `out`.

        Args:
            out: The page's directory, made where it is missing.

        Returns:
            The path of README.md.

        Raises:
            ValueError: No run finished or failed, so there is nothing to report.
        """
        if not self.ran:
            raise ValueError("records: none given; a report needs at least one")
        out.mkdir(parents=True, exist_ok=True)
        for old in [
            path for kind in ("png", "webp", "csv") for path in out.glob(f"*.{kind}")
        ]:  # no stale plot stays with a new text
            old.unlink()
        for table in [*self.tables.values(), *self.front_tables]:
            if not table.frame.empty:
                table.write(out)
        return self.page(self.plots(out), out).write(out)

    @cached_property
    def tables(self) -> dict[str, Table]:
        """The tables that every report has, by their names in the template."""
        return {
            "main": runs.main_table(self.ran),
            "distances": runs.distance_table(self.ran),
            "options": runs.options_table(self.ran),
            "reasons": runs.reasons_table(self.ran),
            "memory": runs.memory_table(self.ran),
            "limits": runs.limits_table(self.ran),
            "goals": goals_table(self.goals, self.ran),
            "composition": composition_table(self.ran),
        }

    @cached_property
    def front_tables(self) -> list[Table]:
        """Levels and ratios of each axis, and every configuration with its fronts."""
        if self.fronts is None:
            return []
        fronts = self.fronts.fronts
        levels = [pareto_tables.levels_table(front) for front in fronts]
        ratios = [
            pareto_tables.ratio_table(front.axis, [*front.comparisons, *front.geometric]) for front in fronts
        ]
        return [*levels, *ratios, pareto_tables.front_table(self.fronts)]

    def plots(self, out: Path) -> dict[str, Any]:
        """Draw the plots.

        Args:
            out: the report's directory.

        Returns:
            The names of their files by what they show; None for what there is nothing to draw of.
        """
        fronts = self.fronts
        paths = {
            "pareto": None if fronts else speed.plot_pareto(self.selection, out),
            "ratios": pareto_plots.plot_ratios(fronts, out) if fronts else None,
            "speedups": speed.plot_speedups(self.few, out),
            "maps": plot_maps(self.few, out),
            "peaks": plot_memory(self.ran, out),
        }
        names: dict[str, Any] = {key: path.name if path else None for key, path in paths.items()}
        drawn_fronts = pareto_plots.plot_fronts(fronts, out) if fronts else []
        worst = samples.plot_samples(self.few, self.results, out)
        return names | {"front_plots": [p.name for p in drawn_fronts], "samples": [p.name for p in worst]}

    def page(self, plots: dict[str, Any], out: Path) -> Page:
        """Fill in the page.

        Args:
            plots: names of files, as `plots` returns them.
            out: the report's directory, where its links start.

        Returns:
            The page, not yet written.
        """
        where = setup(self.ran)
        n = len(self.ran)
        fallback = f"{escape(self.ran[0].suite)}: {n} configuration{'s' * (n != 1)}"
        links = [(r.name, _link(record_files.place(self.results, r), out)) for r in self.ran]
        differ = any(r.quality and r.quality.image and not r.quality.identical for r in self.ran)
        more = {"links": links, "images_differ": differ}
        content = self._text(where) | self.tables | plots | self._front_content() | more
        return render(
            "report.md.j2",
            escape(self.question) or fallback,
            _HEADLINES[self.subject](self.selection, where),
            content,
        )

    def _front_content(self) -> dict[str, Any]:
        if self.fronts is None:
            return {"fronts": [], "lead": []}
        fronts = self.fronts.fronts
        levels = [pareto_tables.levels_table(front) for front in fronts]
        shown = [
            {
                "axis": front.axis,
                "levels": table,
                "grid": pareto_tables.ratio_grid(front.comparisons) if front.comparisons else "",
                "geometric": pareto_tables.ratio_grid(front.geometric) if front.geometric else "",
                "basis": pareto.basis(front),
                "ratios": pareto_tables.ratio_table(front.axis, []).name,
            }
            for front, table in zip(fronts, levels, strict=True)
        ]
        return {
            "fronts": shown,
            "on_fronts": pareto_tables.front_table(self.fronts, shown=True),
            "compared": len(self.fronts.records),
            "verdicts": pareto.verdicts(self.fronts),
            "lead": pareto.lead(self.fronts),
        }

    def _text(self, where: str) -> dict[str, Any]:
        """All text, and the constants that it needs."""
        records, drift = self.ran, self.selection.baseline_drift
        chosen = [record.name for record in self.few if record.method != "baseline"]
        return {
            "command": self.command,
            "records": records,
            "setup": where,
            "skipped": _skipped(self.records),
            "few": chosen if self.fronts else [],
            "random": any(record.config.get("weights") == "random" for record in records),
            "warnings": [
                *checks.warnings(self.selection),
                *provenance.mixed(records),
                *earlier_weights.warnings(records),
            ],
            "answers": recommendation.answers(self.selection),
            "baseline_drift": f" ({three(drift.mean)} here)" if drift else "",
            "converged_by": converged_by(records) or "with more steps",
            "timed": any(record.timing for record in records),
            "margin": f"{100 * self.margin:g} %",
            "eager": " and ".join(dict.fromkeys(r.timing.baseline for r in records if r.timing)),
            "counts": _counts(records),
            "missing": missing_lines(records, [*runs.main_columns(records), *runs.DISTANCE_DETAILS]),
            "controls": checks.controls(self.selection),
            "failed": [record for record in records if record.status == "failed"],
            "header": provenance.header(records),
            "common": provenance.common(records),
            "differing": provenance.differing(records),
            "amplification": samples.AMPLIFICATION,
            "cases": samples.CASES,
            "dash": DASH,
        }


def _skipped(records: Sequence[Record]) -> dict[str, str]:
    """Why runs were skipped, with their names."""
    by_reason: dict[str, list[str]] = {}
    for record in records:
        if record.status == "skipped":
            by_reason.setdefault(escape(record.reason), []).append(code(record.name))
    return {why: ", ".join(names) for why, names in by_reason.items()}


def _counts(records: Sequence[Record]) -> str:
    """Over how many images drift was measured."""
    measured = [record.quality for record in records if record.quality]
    images = " or ".join(dict.fromkeys(str(quality.n) for quality in measured))
    converged = " or ".join(dict.fromkeys(str(quality.n_converged) for quality in measured))
    return f"{images} images, {converged} for the converged trajectory" if measured else ""


def _link(target: Path, out: Path) -> str | None:
    """The way from a report to a record; None where it would name directories of this machine."""
    link = Path(os.path.relpath(target.resolve(), out.resolve()))
    within = [part for part in link.parts[:-3] if part != ".."]  # above suite/machine/file
    return link.as_posix() if set(within) <= {"results", "local", "published"} else None
