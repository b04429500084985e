"""A tuning study as a page: the trials, their Pareto front, and a configuration file for each point."""

# ruff: noqa: RUF001 - the sign × is meant

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from bench.methods.dqar import config
from bench.report.escape import escape
from bench.report.page import render
from bench.report.plots.style import GREY, canvas, method_style, save, style
from bench.report.tables.columns import ends
from bench.studies.tune.search import Point


def write_report(
    points: Sequence[Point], trials: Sequence[Sequence[float]], facts: Mapping[str, Any], out: Path
) -> Path:
    """Write the study's page, its plot, its table and front-1.yaml, front-2.yaml and so on.

    Args:
        points: the points of the front, the fastest first.
        trials: the speedup and the drift of each.
        facts: what was tuned on what.
        out: the directory that they go to; configurations of an earlier front are removed.

    Returns:
        The page, README.md.
    """
    out.mkdir(parents=True, exist_ok=True)
    for old in out.glob("front-*.yaml"):
        old.unlink()
    for number, point in enumerate(points, 1):
        config(facts["shape"] | point.options).to_yaml(out / f"front-{number}.yaml")
    plot(points, trials, out)
    _table(points).to_csv(out / "front.csv", index=False, lineterminator="\n")
    title = f"tune: speedup against drift on {escape(facts['machine'])}"
    content = {"points": points, "trials": len(trials), "facts": facts}
    return render("tune.md.j2", title, headline(points, trials), content).write(out)


def _table(points: Sequence[Point]) -> pd.DataFrame:
    """The front with its values in full."""
    rows = [
        {"limit": p.limit, "drift": p.drift}
        | ends("speedup", p.speedup)
        | ends("unseen", p.held_out)
        | p.options
        for p in points
    ]
    return pd.DataFrame(rows)


def headline(points: Sequence[Point], trials: Sequence[Sequence[float]]) -> str:
    """Sum the study up by the front's two ends.

    Args:
        points: the points of the front, the fastest first.
        trials: the speedup and the drift of each.

    Returns:
        One sentence.
    """
    first, last = points[0], points[-1]
    return (
        f"Of {len(trials)} trials {len(points)} are on the front, from {first.limit:.3f}× by FLOPs at drift "
        f"of {first.held_out.mean:.3f} to {last.limit:.3f}× at {last.held_out.mean:.4f}, on unseen images."
    )


def plot(points: Sequence[Point], trials: Sequence[Sequence[float]], out: Path) -> Path:
    """Plot the speedup that FLOPs allow against drift: all trials, and the front.

    Args:
        points: the points of the front.
        trials: the speedup and the drift of each.
        out: the directory of the plot or page.

    Returns:
        The file.
    """
    with style():
        figure = canvas(5.6, 3.6)
        ax = figure.subplots()
        ax.grid(True)
        ax.plot([t[1] for t in trials], [t[0] for t in trials], ".", color=GREY, label="trials")
        front = method_style("dqar")
        drift, limit = [p.drift for p in points], [p.limit for p in points]
        ax.plot(drift, limit, color=front.colour, marker=front.marker, label="Pareto front")
        for number, point in enumerate(points, 1):
            ax.annotate(str(number), (point.drift, point.limit), xytext=(3, -9), textcoords="offset points")
        ax.set_xscale("symlog", linthresh=1e-3)
        ax.set_xlabel("drift of the final latent (relative L2)")
        ax.set_ylabel("speedup that FLOPs allow (×)")
        ax.legend()
        return save(figure, out / "front.webp")
