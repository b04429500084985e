"""The fronts as tables: who is fastest at each level, how far DQAR is ahead, and who is on a front."""

# ruff: noqa: RUF001 - the sign × is meant

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import gmean

from bench.record import Record
from bench.report.curves import Axis, Comparison, Floats
from bench.report.escape import code
from bench.report.pareto import LEVELS, Front, Fronts
from bench.report.setup import solver, steps
from bench.report.tables.columns import (
    DASH,
    Column,
    Show,
    Table,
    ends,
    fixed,
    grid,
    lookup,
    significant,
    table,
    whole,
)
from bench.report.tables.runs import NAME

ELSEWHERE = 0.2  # drift above which an image counts as another one


@dataclass(frozen=True)
class Candidate(Column):
    """A configuration by name, with its speedup."""

    def cell(self, row: dict[str, Any]) -> str:
        """Show `name`, speedup and interval.

        Args:
            row: values of one row by their columns in the CSV.

        Returns:
            The text; a dash where there is no configuration.
        """
        shown = super().cell(row)
        return DASH if shown == DASH else f"{code(row[self.key + '_name'])} {shown}"


def levels_table(front: Front) -> Table:
    """Compare the fastest at each level of drift.

    Args:
        front: the front of one axis.

    Returns:
        A row a level: the fastest, the runner-up, DQAR's and its competitors' fastest.
    """
    speed = fixed(2)
    columns = [
        Column("drift ≤", "level", "", significant(2)),
        Candidate("fastest (×)", "first", "", speed),
        Candidate("runner-up, another method (×)", "second", "", speed),
        Candidate("DQAR's fastest (×)", "dqar", "", speed),
        Candidate("competitor, baseline's solver (×)", "usual", "", speed),
        Candidate("competitor, any solver (×)", "any", "", speed),
    ]
    rows = [
        {"level": level.drift}
        | _candidate("first", level.first)
        | _candidate("second", level.second)
        | _candidate("dqar", level.ours)
        | _candidate("usual", level.usual)
        | _candidate("any", level.any)
        for level in front.levels
    ]
    return Table(front.axis.name, columns, pd.DataFrame(rows))


def _candidate(key: str, record: Record | None) -> dict[str, Any]:
    names = {f"{key}_name": record and record.name, f"{key}_method": record and record.method}
    return names | ends(key, lookup(record, "timing.speedup") if record else None)


def ratio_table(axis: Axis, compared: list[Comparison]) -> Table:
    """Tabulate DQAR's speed over its competitors' on the whole grid of drifts.

    Args:
        axis: the drift that is compared on.
        compared: the comparisons on that axis.

    Returns:
        A row a drift and comparison.
    """
    values = ("drift", "ratio", "ratio_low", "ratio_high")
    rows = [
        {"average": c.average, "speed_by": c.measure, "competitors_on": c.against, "goal": c.goal}
        | {name: float(f"{value:.5g}") for name, value in zip(values, point, strict=True)}  # they are many
        for c in compared
        for point in zip(*c.curve, strict=True)
    ]
    columns = [
        Column("average", "average", ""),
        Column("speed by", "speed_by", ""),
        Column("competitors on", "competitors_on", ""),
        Column("drift", "drift", "", significant(3)),
        Column("ratio", "ratio", "", fixed(2)),
    ]
    return Table(axis.name.replace("front-", "ratio-"), columns, pd.DataFrame(rows))


def ratio_grid(compared: list[Comparison]) -> str:
    """Show the same ratios at few drifts.

    Args:
        compared: the comparisons on one axis, at least one.

    Returns:
        A Markdown table: a row a drift, a column a comparison; outside its range a dash.
    """
    titles = ["drift", *[f"{c.measure}, {c.against} (goal {c.goal:g}×)" for c in compared]]
    bounds = {float(c.curve.drift[i]) for c in compared for i in (0, -1)}
    drifts = sorted({*bounds, *[d for d in LEVELS if min(bounds) < d < max(bounds)]})
    return grid(titles, [[significant(3)(drift), *[_at(c, drift) for c in compared]] for drift in drifts])


def _at(comparison: Comparison, drift: float) -> str:
    if not comparison.curve.drift[0] <= drift <= comparison.curve.drift[-1]:
        return DASH
    ratio, low, high = comparison.at(drift)
    return f"{ratio:.2f} [{low:.2f}, {high:.2f}]"


def of_limit(record: Record) -> float | None:
    """Compute the measured speedup as a share of the one that FLOPs allow.

    Args:
        record: the record of one configuration.

    Returns:
        The share, 1 at the limit; None where either is missing.
    """
    if record.timing is None or record.limits is None:
        return None
    return record.timing.speedup.median / record.limits.speedup_limit


def front_table(fronts: Fronts, shown: bool = False) -> Table:
    """Tabulate every configuration compared, with the fronts that it is on.

    Args:
        fronts: the suite's fronts, one an axis.
        shown: whether to keep only those on a front, as the page shows them; the CSV has all.

    Returns:
        A row a configuration, the fastest first.
    """
    columns = [
        *NAME,
        Column("solver", "solver", "", of=solver),
        Column("steps", "steps", "", whole, of=steps),
        Column("speedup ↑ (×)", "speedup", "timing.speedup", fixed(2)),
        Column("limit (×)", "limit", "limits.speedup_limit", fixed(2)),
        Column("limit realised (%)", "realised_percent", "limits.realised", fixed(0), 100),
        Column("of limit (%)", "of_limit_percent", "", fixed(0), 100, of=of_limit),
        Column("drift ↓", "drift", "quality.drift", significant(3), interval="±"),
        *_spread("", "drift", "drift_per_image"),
        Column(
            "drift from converged ↓", "converged", "quality.drift_converged", significant(3), interval="±"
        ),
        *_spread("of converged: ", "converged", "drift_converged_per_image"),
        Column("loss", "loss", "", of=lambda record: fronts.selection.loss(record).verdict),
        Column("KID ↓", "kid", "quality.to_reference.kid", significant(2)),
        *[_mark(fronts, front) for front in fronts.fronts],
    ]
    kept = [r for r in fronts.records if fronts.marks(r)] if shown else fronts.records
    return table("front", columns, sorted(kept, key=_speed, reverse=True))


def _spread(title: str, key: str, field: str) -> list[Column]:
    """How the drift of single images is spread: those that end elsewhere decide its mean.

    Args:
        title: what stands before each column's title.
        key: what stands before each column's name.
        field: of a record's quality, the drift of each image.
    """
    statistics: list[tuple[str, str, Show, float, Callable[[Floats], float]]] = [
        ("its median", "median", significant(3), 1, lambda drifts: float(np.median(drifts))),
        ("geometric mean", "geometric", significant(3), 1, gmean),
        (
            f"> {ELSEWHERE:g} (%)",
            "elsewhere",
            fixed(0),
            100,
            _elsewhere,
        ),
    ]
    return [
        Column(title + shown, f"{key}_{name}", "", show, scale, of=_of_images(field, statistic))
        for shown, name, show, scale, statistic in statistics
    ]


def _of_images(field: str, statistic: Callable[[Floats], float]) -> Callable[[Record], float | None]:
    def of(record: Record) -> float | None:
        drifts = getattr(record.quality, field, None)
        return statistic(np.array(drifts, dtype=float)) if drifts else None

    return of


def _elsewhere(drifts: Floats) -> float:
    """The share of images that end elsewhere."""
    return float((drifts > ELSEWHERE).mean())


def _mark(fronts: Fronts, front: Front) -> Column:
    mark = front.axis.mark
    title, key = f"on front ({mark})", f"front_{mark}"
    return Column(title, key, "", of=lambda record: "yes" if mark in fronts.marks(record) else "no")


def _speed(record: Record) -> float:
    return float(lookup(record, "timing.speedup.median"))
