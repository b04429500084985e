"""A calibration as a page: the plans, their cost and drift, and how they generalise to held-out images."""

# ruff: noqa: RUF001 - the sign × is meant

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from bench.report.escape import escape
from bench.report.page import render, write_csv
from bench.report.plots.style import canvas, error_bar, method_style, save, style
from bench.studies.calibrate.study import WrittenPlan
from dqar.plan import BOTH, CONDITIONAL, NONE

COLOURS = {NONE: "#ececec", CONDITIONAL: "#8fb8d8", BOTH: "#0b3c5d"}
NAMES = {NONE: "skipped", CONDITIONAL: "conditional branch", BOTH: "both branches"}


def write_report(plans: Sequence[WrittenPlan], facts: Mapping[str, Any], out: Path) -> Path:
    """Write the study's page, its plots and its table.

    Args:
        plans: the plans, at least one, the slowest first.
        facts: what was calibrated on what.
        out: the directory of page, plots and tables.

    Returns:
        The page, README.md.
    """
    out.mkdir(parents=True, exist_ok=True)
    plot(plans, facts, out)
    plot_plans(plans, out)
    write_csv(out / "plans.csv", [_row(f) for f in plans])
    rows = [(f, counts(f)) for f in plans]
    title = (
        f"calibrate: plans for {escape(facts['solver'])} on model {escape(facts['model'])}, "
        f"{facts['plan_steps']} steps, guidance {facts['guidance']:g}"
    )
    content = {"found": rows, "facts": facts}
    return render("calibrate.md.j2", title, headline(plans, facts), content).write(out)


def counts(measured: WrittenPlan) -> dict[str, int]:
    """Count the kinds of steps of a plan.

    Args:
        measured: the plan with what was measured of it.

    Returns:
        How many steps run which branches, and how many reuse layers.
    """
    branches = measured.plan.branches
    return {
        "both": int((branches == BOTH).sum()),
        "conditional_only": int((branches == CONDITIONAL).sum()),
        "skipped": int((branches == NONE).sum()),
        "layers": int(measured.plan.reuse.any(axis=1).sum()),
    }


def _row(measured: WrittenPlan) -> dict[str, Any]:
    """A plan as a line of the table."""
    facts = measured.plan.facts
    metrics = {name: facts[name] for name in ("drift", "held_out", "other_guidance", "baseline")}
    return {"plan": measured.file.name, "speedup": measured.speedup, **counts(measured), **metrics}


def headline(plans: Sequence[WrittenPlan], facts: Mapping[str, Any]) -> str:
    """Sum the study up by its lowest-drift and its fastest plan, on held-out images.

    Args:
        plans: the plans, the slowest first.
        facts: what was calibrated on what.

    Returns:
        One sentence.
    """
    first, last = plans[0], plans[-1]
    return (
        f"plans for {facts['solver']} at {facts['plan_steps']} steps go from {first.speedup:.2f}× by FLOPs "
        f"at a drift of {first.held_out.mean:.3f} to {last.speedup:.2f}× at {last.held_out.mean:.3f} from "
        f"the {facts['target']} images, on seeds and labels that the search never saw."
    )


def plot(plans: Sequence[WrittenPlan], facts: Mapping[str, Any], out: Path) -> Path:
    """Plot the speedup that FLOPs allow against drift: of the calibration images, held out, and other
    guidance.

    Args:
        plans: the plans.
        facts: what was calibrated on what.
        out: the directory of the plot or page.

    Returns:
        The file.
    """
    with style():
        figure = canvas(5.6, 3.6)
        ax = figure.subplots()
        ax.grid(True)
        speed, colour = [f.speedup for f in plans], method_style("dqar").colour
        ax.plot(speed, [f.drift for f in plans], "o--", mfc="white", color=colour, label="calibration images")
        held = [f.held_out for f in plans]
        means = [m.mean for m in held]
        bars = np.hstack([error_bar(m) for m in held])
        ax.errorbar(speed, means, yerr=bars, fmt="o-", color=colour, label="held out")
        other = [f.other_guidance.mean for f in plans]
        ax.plot(speed, other, "^:", color="#555555", label="held out, half the guidance")
        ax.set_yscale("log")
        ax.set_xlabel("speedup that FLOPs allow (×)")
        ax.set_ylabel(f"drift from the {facts['target']} images (relative L2)")
        ax.legend(loc="upper left")  # drift grows with speed: that corner is free
        return save(figure, out / "front.webp")


def plot_plans(plans: Sequence[WrittenPlan], out: Path) -> Path:
    """Plot each plan as a strip over the steps.

    Args:
        plans: the plans.
        out: the directory of the plot or page.

    Returns:
        The file.
    """
    table = np.array([f.plan.branches for f in plans])
    with style():
        figure = canvas(6.4, 0.9 + 0.24 * len(plans))
        ax = figure.subplots()
        ax.pcolormesh(
            table, cmap=ListedColormap(list(COLOURS.values())), vmin=-0.5, vmax=2.5, ec="white", lw=0.4
        )
        ax.set_yticks(np.arange(len(plans)) + 0.5, [f.file.stem for f in plans])
        ax.invert_yaxis()
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.set_xlabel("step")
        patches = [Patch(fc=COLOURS[kind], ec="#999999", label=NAMES[kind]) for kind in COLOURS]
        ax.legend(handles=patches, loc="lower left", bbox_to_anchor=(0, 1), ncols=3)
        return save(figure, out / "plans.webp")
