"""The searches of all methods as a page: each one's front, and its settings as the runs of a suite."""

# ruff: noqa: RUF001 - the sign × is meant

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from bench.machine.files import write_atomic
from bench.report.escape import escape
from bench.report.page import render
from bench.report.plots.style import canvas, method_style, save, style
from bench.report.tables.columns import grid
from bench.studies.tune.candidate import Outcome
from bench.studies.tune.methods import Trial, front

LEVELS = (0.03, 0.05, 0.07, 0.1, 0.15)  # of drift, at which the page names the cheapest method


def trials_of(rows: pd.DataFrame) -> list[Trial]:
    """Read the trials of a table.

    Args:
        rows: as `methods.rows` made them.

    Returns:
        The trials, in order.
    """
    drifts = [name for name in rows.columns if name.startswith("drift_")]
    return [
        Trial(
            row["search"],
            row["method"],
            json.loads(row["options"]),
            None
            if pd.isna(row["evaluations"])
            else Outcome(row["evaluations"], row["speedup"], tuple(row[drifts].astype(float))),
            "" if pd.isna(row["error"]) else str(row["error"]),
        )
        for _, row in rows.iterrows()
    ]


def write_report(rows: pd.DataFrame, facts: Mapping[str, Any], out: Path) -> Path:
    """Write the study's page, its plot and the fronts as a suite's runs.

    Args:
        rows: as `methods.rows` made them.
        facts: what was tuned on what.
        out: the directory of page, plots and tables.

    Returns:
        The page, README.md.
    """
    trials = trials_of(rows)
    names = dict.fromkeys(trial.search for trial in trials)
    searches = {name: [trial for trial in trials if trial.search == name] for name in names}
    fronts = {name: front(each) for name, each in searches.items()}
    plot(fronts, out)
    write_atomic(out / "runs.yaml", runs(fronts).encode())
    title = f"tune: every method's options on model {escape(facts['model'])}, {facts['steps']} steps"
    content = {
        "facts": facts,
        "table": table(searches, fronts),
        "settings": settings(fronts),
        "failed": sorted({f"{t.search}: {escape(t.error)}" for t in trials if t.error}),
    }
    return render("tune_methods.md.j2", title, headline(fronts), content).write(out)


def headline(fronts: Mapping[str, Sequence[Trial]]) -> str:
    """Sum the study up by the cheapest search at each level of drift.

    Args:
        fronts: the front of each search, by the search's name.

    Returns:
        One sentence.
    """
    texts = []
    for level in LEVELS:
        costs = {name: cost for name, each in fronts.items() if (cost := cost_at(each, level)) is not None}
        if costs:
            best = min(costs, key=lambda name: costs[name])
            texts.append(f"{level:g}: {best} at {costs[best]:.1f}")
    text = "; ".join(texts)
    return f"the fewest evaluations at each drift, on the images searched on: {text or 'nothing was judged'}."


def cost_at(points: Sequence[Trial], level: float) -> float | None:
    """Find the cheapest candidate that drifts by at most so much.

    Args:
        points: the trials of one front.
        level: the largest drift that counts.

    Returns:
        Its evaluations of the model; None where none drifts so little.
    """
    costs = [t.outcome.evaluations for t in points if t.outcome and t.outcome.score <= level]
    return min(costs, default=None)


def table(searches: Mapping[str, Sequence[Trial]], fronts: Mapping[str, Sequence[Trial]]) -> str:
    """Tabulate the searches.

    Args:
        searches: the trials of each search, by its name.
        fronts: the front of each search, by the search's name.

    Returns:
        A Markdown table, a row a search: how many trials, and its cheapest candidate at each level of drift.
    """
    titles = ["search", "trials", "failed", "on its front", *[f"drift ≤ {level:g}" for level in LEVELS]]
    cells = []
    for name, trials in searches.items():
        costs = [cost_at(fronts[name], level) for level in LEVELS]
        failed = sum(trial.outcome is None for trial in trials)
        shown = ["–" if cost is None else f"{cost:.1f}" for cost in costs]
        cells.append([name, str(len(trials)), str(failed), str(len(fronts[name])), *shown])
    return grid(titles, cells)


def settings(fronts: Mapping[str, Sequence[Trial]]) -> str:
    """Tabulate the candidates on the fronts.

    Args:
        fronts: the front of each search, by the search's name.

    Returns:
        A Markdown table, a row a candidate.
    """
    titles = [
        "search",
        "options",
        "evaluations",
        "speedup by FLOPs (×)",
        "geometric mean",
        "mean",
        "median",
        "> 0.2",
    ]
    cells = []
    for name, trials in fronts.items():
        for trial in trials:
            if (outcome := trial.outcome) is not None:
                drifts = np.array(outcome.drifts)
                values = [outcome.score, drifts.mean(), float(np.median(drifts)), outcome.elsewhere]
                options = ", ".join(f"{key} = {value}" for key, value in trial.options.items())
                numbers = [f"{value:.3g}" for value in values]
                cells.append(
                    [name, options, f"{outcome.evaluations:.1f}", f"{outcome.speedup:.2f}", *numbers]
                )
    return grid(titles, cells)


def runs(fronts: Mapping[str, Sequence[Trial]]) -> str:
    """Write the fronts as a suite's `runs`.

    Args:
        fronts: the front of each search, by the search's name.

    Returns:
        YAML.
    """
    entries = [
        {"name": f"tuned-{name.replace('+', '')}-{number}", "method": trial.method, "options": trial.options}
        for name, trials in fronts.items()
        for number, trial in enumerate(trials, 1)
    ]
    return str(yaml.safe_dump({"runs": entries}, sort_keys=False, width=110))


def plot(fronts: Mapping[str, Sequence[Trial]], out: Path) -> Path:
    """Plot each search's front: evaluations against drift.

    Args:
        fronts: the front of each search, by the search's name.
        out: the directory of the plot or page.

    Returns:
        The file.
    """
    with style():
        figure = canvas(5.6, 4.0)
        ax = figure.subplots()
        ax.grid(True)
        for number, (name, trials) in enumerate(fronts.items()):
            points = [t.outcome for t in trials if t.outcome]
            if points:
                look = method_style(trials[0].method)
                marker = "sdph<"[number % 5] if trials[0].method == "fewer_steps" else look.marker
                xs, ys = [p.evaluations for p in points], [p.score for p in points]
                ax.plot(xs, ys, ls=look.line, marker=marker, ms=4, lw=1, color=look.colour, label=name)
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.set_xlabel("model evaluations with guidance (by FLOPs)")
        ax.set_ylabel("drift from the converged trajectory, geometric mean")
        ax.legend(fontsize=6.5)
        return save(figure, out / "front.webp")
