"""The study as a page: what disagrees first, what holds on both, then the tables. A function of the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from bench import stats
from bench.report.page import render, write_csv
from bench.report.plots.style import canvas, error_bar, save, style
from bench.report.tables.columns import interval
from bench.studies.generality.analysis import (
    TRANSFERS,
    VERDICTS,
    Data,
    Finding,
    by_axis,
    difference,
    findings,
    measured,
    named,
    percent,
    transferred,
    verdict,
)
from dqar.presets import BALANCED

COLOURS = ("#0b3c5d", "#D55E00")


def write_report(models: Mapping[str, Data], machine: str, out: Path) -> Path:
    """Write the study's page, its plot and its tables.

    Args:
        models: What was measured, by model.
        machine: That it was measured on.
        out: The page's directory.

    Returns:
        The page, README.md.
    """
    out.mkdir(parents=True, exist_ok=True)
    results = findings(models)
    plot(models, out / "models.webp")
    write_csv(out / "runs.csv", [_run(m, data, run) for m, data in models.items() for run in data["runs"]])
    content = {
        "models": models,
        "machine": machine,
        "findings": results,
        "alone": len(models) < 2,
        "disagreements": [each for each in results if not each.agreed],
        "configurations": {m: configurations(data) for m, data in models.items()},
        "matrix": matrix(models),
        "conditions": list(TRANSFERS),
        "axis": axis(models),
        "moving": moving(models),
        "interval": interval,
        "without_default": [model for model, data in models.items() if not measured(data, BALANCED)],
    }
    title = f"generality: what holds on both models that ship, on {machine}"
    return render("generality.md.j2", title, headline(results), content).write(out)


def headline(results: Sequence[Finding]) -> str:
    """Sum the study up: how many findings hold on both models, and the first of them.

    Args:
        results: the findings.

    Returns:
        One or two sentences.
    """
    shown = {model for each in results for model in each.values}
    if len(shown) < 2:
        return f"Measured on {', '.join(shown)} alone: whether it holds on both models is open."
    both = [each for each in results if len(each.verdicts) > 1]
    differ = [each for each in both if not each.agreed]
    counts = f"{len(both) - len(differ)} of {len(both)} findings hold on both models"
    text = f"{counts}; on the other {len(differ)} they disagree." if differ else f"{counts}; none differs."
    decided = [each for each in both if each.agreed and each.holds != VERDICTS["inconclusive"]]
    return f"{text} {_in_words(decided[0])}" if decided else text


def _in_words(finding: Finding) -> str:
    """A finding that holds on both models, as a sentence."""
    values = ", ".join(f"{value} on {model}" for model, value in finding.values.items())
    return f"{finding.question}: {finding.holds} ({values})."


def configurations(data: Data) -> list[dict[str, Any]]:
    """Tabulate the runs at home that are no plans.

    Args:
        data: what was measured on a model.

    Returns:
        A row a run: evaluations, FLOPs, drift, and the difference to the baseline.
    """
    base = named(data, "baseline")
    rows = []
    for run in data["runs"]:
        if run["condition"] != "home" or run["name"] in _plans(data):
            continue
        row = {
            "name": run["name"],
            "evaluations": run["evaluations"],
            "speedup": None if run["flops"] is None else 1 / run["flops"],
            "drift": stats.mean_interval(run["drifts"]),
            "difference": None if run is base else difference(run, base),
        }
        rows.append(row)
    return sorted(rows, key=lambda row: float(row["drift"].mean))


def _plans(data: Data) -> set[str]:
    return {run["name"] for run in data["runs"] if "compared_with" in run["facts"]}


def matrix(models: Mapping[str, Data]) -> list[dict[str, Any]]:
    """Tabulate plans and the models that they are used on.

    Args:
        models: what was measured, by model.

    Returns:
        A row a plan and model, a cell a condition.
    """
    return [
        {
            "made_for": made_for,
            "used_on": model,
            "cells": [_cell(data, made_for, condition) for condition in TRANSFERS],
        }
        for made_for in [name for data in models.values() for name in data["facts"]["plans"]]
        for model, data in models.items()
    ]


def _cell(data: Data, made_for: str, condition: str) -> str:
    change = transferred(data, made_for, condition)
    return "–" if change is None else percent(change)  # noqa: RUF001 - a dash


def axis(models: Mapping[str, Data]) -> dict[str, dict[str, str]]:
    """Compare plans moved by log-SNR with the same moved by their share of the steps.

    Args:
        models: what was measured, by model.

    Returns:
        The differences as text, by model and condition.
    """
    return {
        model: {condition: percent(by_axis(data, condition)) for condition in ("steps", "solver")}
        for model, data in models.items()
    }


def moving(models: Mapping[str, Data]) -> str:
    """State whether moving plans by log-SNR is worth an option of the runtime.

    Args:
        models: what was measured, by model.

    Returns:
        One or more sentences.
    """
    cells = [
        transferred(data, model, condition)
        for model, data in models.items()
        for condition in ("steps", "solver")
    ]
    verdicts = [verdict(cell) for cell in cells if cell is not None]
    counts = ", ".join(f"{VERDICTS[v]} in {verdicts.count(v)}" for v in VERDICTS)
    if verdicts.count("less") > len(verdicts) / 2 and "more" not in verdicts:
        return (
            f"A plan moved by log-SNR beats the plain spread on images that no search saw: {counts}. The"
            " runtime has no option for it yet."
        )
    return (
        f"A plan moved by log-SNR does not beat the plain spread everywhere ({counts} of {len(verdicts)}), "
        "and so it is no option of the runtime."
    )


def _run(model: str, data: Data, run: Mapping[str, Any]) -> dict[str, Any]:
    drift = stats.mean_interval(run["drifts"])
    facts = {name: run[name] for name in ("name", "condition", "evaluations", "flops")}
    return {"model": model} | facts | {"drift": drift.mean, "low": drift.low, "high": drift.high}


def plot(models: Mapping[str, Data], path: Path) -> Path:
    """Plot drift over evaluations, and the plans' differences to the plain spread.

    Both panels share one legend below them, where no value can lie.

    Args:
        models: what was measured, by model.
        path: the file that the plot goes to.

    Returns:
        The file.
    """
    with style():
        figure = canvas(9.0, 3.8)
        left, right = figure.subplots(1, 2)
        for number, (model, data) in enumerate(models.items()):
            _curves(left, data, model, COLOURS[number])
            _differences(right, data, COLOURS[number], shift=0.16 * number - 0.08)
        left.set_title("Skipped steps (spread) against fewer steps")
        left.set_xlabel("evaluations of the model")
        left.set_ylabel("drift from converged")
        left.set_ylim(bottom=0)
        left.xaxis.set_major_locator(MaxNLocator(integer=True))
        right.set_title("The model's own plan against the plain spread, by condition")
        right.axhline(0, color="#555555", linewidth=0.8)
        right.set_xticks(range(len(TRANSFERS)), list(TRANSFERS))
        right.set_ylabel("difference in drift (%)")
        figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=4)
        return save(figure, path)


def _curves(ax: Any, data: Data, model: str, colour: str) -> None:
    for kind, line, marker in (("spread ", "-", "o"), ("fewer ", "--", "s")):
        runs = [named(data, "baseline")] + [
            run
            for run in data["runs"]
            if run["condition"] == "home" and run["name"].startswith(kind) and "over" not in run["name"]
        ]
        runs = sorted(runs, key=lambda run: float(run["evaluations"]))
        means = [float(np.mean(run["drifts"])) for run in runs]
        label = f"{model}, {kind.strip()}"
        ax.plot([run["evaluations"] for run in runs], means, line, marker=marker, color=colour, label=label)


def _differences(ax: Any, data: Data, colour: str, shift: float) -> None:
    model = data["facts"]["model"]
    changes = [(i, transferred(data, model, condition)) for i, condition in enumerate(TRANSFERS)]
    for i, value in changes:
        if value is not None:
            bars = 100 * np.array(error_bar(value))
            ax.errorbar(i + shift, 100 * value.mean, yerr=bars, fmt="o", color=colour)
