"""Write a suite's report, and the index of all reports: Markdown, pictures and CSV.

A report is a function of its records alone: the same records give the same bytes.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from bench.record import Record
from bench.report import selection
from bench.report.goals import goals_table
from bench.report.pareto import Fronts, compare, drawn
from bench.report.plots import samples, speed
from bench.report.plots.memory import plot_memory
from bench.report.plots.pareto import plot_fronts
from bench.report.plots.reuse_maps import plot_maps
from bench.report.setup import setting
from bench.report.tables import runs
from bench.report.tables.columns import DASH, Table, escape, figures, interval
from bench.report.tables.pareto import front_table, levels_table
from bench.report.text import pareto, provenance, recommendation
from bench.report.text.missing_values import missing_lines
from bench.spec.suite_file import Goal

_MARK = "**In one sentence:** "
_FIRST = ("front", "a100", "embedded", "gate")
_log = logging.getLogger(__name__)


def write_report(
    records: list[Record],
    results_dir: Path,
    out_dir: Path,
    command: str,
    question: str = "",
    goals: Sequence[Goal] = (),
) -> Path:
    """Write README.md, its pictures and its CSV files to `out_dir`, from records in the order given.

    `results_dir` holds the records and the pictures that they name; `command` is shown as what made
    them, `question` as what the suite asks, and `goals` with what came of them. Raises ValueError without
    records. Returns the path of README.md.
    """
    if all(record.status == "left_out" for record in records):
        raise ValueError("records: none given; a report needs at least one")
    out_dir.mkdir(parents=True, exist_ok=True)
    _clear(out_dir)
    run = [record for record in records if record.status != "left_out"]
    ordered = sorted(run, key=lambda record: record.method != "baseline")  # stable otherwise
    fronts = compare(ordered)
    built = _tables(ordered) | {"goals": goals_table(goals, ordered)}
    ahead = _fronts(fronts, out_dir) if fronts else {"fronts": []}
    for table in [*built.values(), *ahead.get("tables", [])]:
        if not table.frame.empty:
            table.write(out_dir)
    made = _draw(ordered, fronts, results_dir, out_dir)
    said = {"command": command, "question": question}
    content = _words(ordered, fronts) | built | made | ahead | said
    links = [(r.name, _link(results_dir / f"{r.name}-{r.key}.json", out_dir)) for r in ordered]
    return write_page(
        out_dir / "README.md", "report.md.j2", content | {"links": links, "left_out": _left_out(records)}
    )


def _left_out(records: Sequence[Record]) -> dict[str, str]:
    """Why configurations were left out, with their names."""
    found: dict[str, list[str]] = {}
    for record in records:
        if record.status == "left_out":
            found.setdefault(escape(record.reason), []).append(f"`{record.name}`")
    return {why: ", ".join(names) for why, names in found.items()}


def write_index(reports_dir: Path) -> Path:
    """Write README.md of `reports_dir`: every report below it with its one sentence."""
    pages = {p.parent.relative_to(reports_dir).as_posix(): p for p in reports_dir.glob("*/**/README.md")}
    entries = [(name, f"{name}/README.md", *_headline(pages[name])) for name in sorted(pages, key=_rank)]
    reports = [entry for entry in entries if entry[-1]]
    return write_page(reports_dir / "README.md", "index.md.j2", {"reports": reports})


def _rank(name: str) -> tuple[int, str]:
    """Those that say which configuration to use come first, the others by name."""
    return (_FIRST.index(name) if name in _FIRST else len(_FIRST), name)


def _tables(records: Sequence[Record]) -> dict[str, Table]:
    return {
        "main": runs.main_table(records),
        "distances": runs.distance_table(records),
        "options": runs.options_table(records),
        "reasons": runs.reasons_table(records),
        "memory": runs.memory_table(records),
        "limits": runs.limits_table(records),
    }


def _fronts(fronts: Fronts, out_dir: Path) -> dict[str, Any]:
    """What a suite of several methods has beyond the rest: plots, levels and who is ahead."""
    levels = [levels_table(front) for front in fronts.fronts]
    paths = plot_fronts(fronts, out_dir)
    shown = zip([front.axis for front in fronts.fronts], [path.name for path in paths], levels, strict=True)
    on_fronts = front_table(fronts)
    return {
        "fronts": list(shown),
        "on_fronts": on_fronts,
        "verdict": pareto.verdict(fronts),
        "tables": [*levels, on_fronts],
    }


def _draw(
    records: Sequence[Record], fronts: Fronts | None, results_dir: Path, out_dir: Path
) -> dict[str, Any]:
    """The plots; of a suite with fronts, those that have a row for each configuration show a few."""
    few = drawn(fronts) if fronts else records
    paths = {
        "pareto": None if fronts else speed.plot_pareto(records, out_dir),
        "speedups": speed.plot_speedups(few, out_dir),
        "maps": plot_maps(few, out_dir),
        "peaks": plot_memory(records, out_dir),
    }
    pages = samples.plot_pictures(few, results_dir, out_dir)
    names: dict[str, Any] = {key: path.name if path else None for key, path in paths.items()}
    chosen = [record.name for record in few if record.method != "baseline"]
    return names | {"pictures": [page.name for page in pages], "few": chosen if fronts else []}


def _words(records: Sequence[Record], fronts: Fronts | None) -> dict[str, Any]:
    """Everything that is said in words, and the constants that the words need."""
    where = setting(records)
    own = selection.yardstick(records)
    return {
        "suite": records[0].suite,
        "records": records,
        "setting": where,
        "random": any(record.config.get("weights") == "random" for record in records),
        "warnings": selection.warnings(records) + provenance.mixed(records),
        "sentence": pareto.sentence(fronts, where) if fronts else selection.sentence(records, where),
        "answers": recommendation.answers(records),
        "yardstick": f" ({figures(3)(own.mean)} here)" if own else "",
        "eager": _baselines(records),
        "counts": _counts(records),
        "missing": missing_lines(records, [*runs.main_columns(records), *runs.DISTANCE_DETAILS]),
        "controls": selection.controls(records),
        "failed": [record for record in records if record.status == "failed"],
        "header": provenance.header(records),
        "common": provenance.common(records),
        "differing": provenance.differing(records),
        "amplification": samples.AMPLIFICATION,
        "cases": samples.CASES,
        "dash": DASH,
    }


def _baselines(records: Sequence[Record]) -> str:
    """What the speedups are over: eager, compiled, or several."""
    return " and ".join(dict.fromkeys(r.timing.baseline for r in records if r.timing))


def _counts(records: Sequence[Record]) -> str:
    """Over how many pictures drift was measured."""
    measured = [record.quality for record in records if record.quality]
    pictures = " or ".join(dict.fromkeys(str(quality.n) for quality in measured))
    converged = " or ".join(dict.fromkeys(str(quality.n_converged) for quality in measured))
    return f"{pictures} pictures, {converged} for the converged trajectory" if measured else ""


def _clear(out_dir: Path) -> None:
    """Remove what an earlier report left, so that no stale picture stays beside a new text."""
    for old in [*out_dir.glob("*.png"), *out_dir.glob("*.csv")]:
        old.unlink()


def _link(target: Path, out_dir: Path) -> str:
    return Path(os.path.relpath(target.resolve(), out_dir.resolve())).as_posix()


def _headline(report: Path) -> tuple[str, str]:
    """What a report asks, else its title, and its sentence; empty where it is no report."""
    text = report.read_text(encoding="utf-8")
    title = re.search(r"^\*([^*].*)\*$", text, re.MULTILINE) or re.match(r"# (?:[^:\n]*: )?(.*)", text)
    sentence = re.search(re.escape(_MARK) + "(.*)", text)
    said = sentence[1] if sentence else ""
    return (title[1] if title else "", said[:1].upper() + said[1:])


def write_page(path: Path, template: str, content: dict[str, Any]) -> Path:
    """Fill in a template of this folder and write it to `path`; returns `path`."""
    text = _environment().get_template(template).render(content)
    path.write_text(re.sub(r"\n{3,}", "\n\n", text).rstrip() + "\n", encoding="utf-8")
    _log.info("wrote %s", path.name)
    return path


def write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """Write a table with its figures in full to `path`, a column for each leaf; returns `path`."""
    pd.json_normalize(rows).to_csv(path, index=False, lineterminator="\n")
    return path


def _environment() -> Environment:
    loader = FileSystemLoader(Path(__file__).parent / "templates")
    environment = Environment(loader=loader, undefined=StrictUndefined, autoescape=False)
    environment.filters["cell"] = escape
    environment.globals["interval"] = interval
    return environment
