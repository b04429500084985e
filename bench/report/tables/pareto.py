"""The fronts as tables: who is fastest at each level, and who is on a front."""

# ruff: noqa: RUF001 - the sign × is meant

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import Any

import pandas as pd

from bench.record import Median, Record
from bench.report.pareto import Duel, Front, Fronts, Level
from bench.report.selection import lost_nothing
from bench.report.setup import solver, steps
from bench.report.tables.columns import DASH, Column, Table, figures, fixed, lookup, table
from bench.report.tables.runs import NAME

LOST_NOTHING = "°"


@dataclass(frozen=True)
class Contestant(Column):
    """A configuration by name, with its speedup; marked where it lost nothing."""

    def cell(self, row: dict[str, Any]) -> str:
        """`name`, speedup and interval."""
        figure = super().cell(row)
        if figure == DASH:
            return DASH
        mark = LOST_NOTHING if row.get(f"{self.key}_lost_nothing") else ""
        return f"`{row[self.key + '_name']}`{mark} {figure}"


@dataclass(frozen=True)
class Judged(Column):
    """A ratio with its verdict."""

    def cell(self, row: dict[str, Any]) -> str:
        """Ratio, interval, verdict."""
        figure, verdict = super().cell(row), row[f"{self.key}_verdict"]
        return DASH if verdict == "nobody" else verdict if figure == DASH else f"{figure} {verdict}"


@dataclass(frozen=True)
class Bound(Column):
    """A level; one that is the baseline's own says so."""

    def cell(self, row: dict[str, Any]) -> str:
        """The drift, and whose it is."""
        return self.show(row[self.key]) + (" (the baseline's own)" if row["own"] else "")


def levels_table(front: Front) -> Table:
    """The levels of one axis: the fastest, the runner-up, and DQAR beside its competitors."""
    speed = fixed(2)
    columns = [
        Bound("drift ≤", "level", "", figures(2)),
        Contestant("fastest (×)", "first", "", speed),
        Contestant("runner-up, another method (×)", "second", "", speed),
        Column("ratio", "lead", "", speed),
        Contestant("DQAR's fastest (×)", "dqar", "", speed),
        Contestant("competitor, usual solver (×)", "usual", "", speed),
        Judged(f"DQAR over it, goal {_goal(front, 'usual')}×", "over_usual", "", speed),
        Contestant("competitor, any solver (×)", "any", "", speed),
        Judged(f"DQAR over it, goal {_goal(front, 'any')}×", "over_any", "", speed),
    ]
    frame = pd.DataFrame([_level_row(front, level) for level in front.levels])
    return Table(front.axis.name, columns, frame)


def _goal(front: Front, duel: str) -> str:
    return f"{getattr(front.levels[0], duel).goal:g}"


def _level_row(front: Front, level: Level) -> dict[str, Any]:
    converged = front.axis.field == "drift_converged"
    row: dict[str, Any] = {"level": level.drift, "own": level.own}
    row |= _contestant("first", level.lead.first, converged)
    row |= _contestant("second", level.lead.second, converged) | _ends("lead", level.lead.ratio)
    row |= _contestant("dqar", level.any.first, converged)
    row |= _contestant("usual", level.usual.second, converged) | _ratio("over_usual", level.usual)
    row |= _contestant("any", level.any.second, converged) | _ratio("over_any", level.any)
    return row


def _contestant(key: str, record: Record | None, converged: bool) -> dict[str, Any]:
    found = {f"{key}_name": record and record.name, f"{key}_method": record and record.method}
    speed = lookup(record, "timing.speedup") if record else None
    return (
        found
        | _ends(key, speed)
        | ({f"{key}_lost_nothing": record and lost_nothing(record)} if converged else {})
    )


def _ratio(key: str, duel: Duel) -> dict[str, Any]:
    return _ends(key, duel.ratio) | {f"{key}_verdict": duel.verdict}


def _ends(key: str, value: Median | None) -> dict[str, Any]:
    if value is None:
        return {key: None, f"{key}_low": None, f"{key}_high": None}
    return {key: value.median, f"{key}_low": value.low, f"{key}_high": value.high}


def of_limit(record: Record) -> float | None:
    """The measured speedup as a share of the one that FLOPs allow."""
    if record.timing is None or record.limits is None:
        return None
    return record.timing.speedup.median / record.limits.speedup_limit


def front_table(fronts: Fronts) -> Table:
    """Every configuration compared, the fastest first, with the fronts that it is on."""
    columns = [
        *NAME,
        Column("solver", "solver", "", of=solver),
        Column("steps", "steps", "", fixed(0), of=steps),
        Column("speedup ↑ (×)", "speedup", "timing.speedup", fixed(2)),
        Column("limit (×)", "limit", "limits.speedup_limit", fixed(2)),
        Column("limit realised (%)", "realised_percent", "limits.realised", fixed(0), 100),
        Column("of limit (%)", "of_limit_percent", "", fixed(0), 100, of=of_limit),
        Column("drift ↓", "drift", "quality.drift", figures(3), interval="±"),
        Column("its median", "drift_median", "", figures(3), of=_median),
        Column("drift from converged ↓", "converged", "quality.drift_converged", figures(3), interval="±"),
        Column("lost nothing", "lost_nothing", "", of=lambda record: _yes(lost_nothing(record))),
        Column("KID ↓", "kid", "quality.to_reference.kid", figures(2)),
        *[_mark(fronts, front) for front in fronts.fronts],
    ]
    return table("front", columns, sorted(fronts.records, key=_speed, reverse=True))


def _median(record: Record) -> float | None:
    """The drift of the middle picture: a mean is drawn up by single pictures that end elsewhere."""
    return median(record.quality.drift_per_image) if record.quality else None


def _mark(fronts: Fronts, front: Front) -> Column:
    mark = front.axis.mark
    title, key = f"on front ({mark})", f"front_{mark}"
    return Column(title, key, "", of=lambda record: _yes(mark in fronts.marks(record)))


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _speed(record: Record) -> float:
    return float(lookup(record, "timing.speedup.median"))
