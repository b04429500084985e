"""Goals that a suite states: the figure reached beside the one wanted, and whether that is sure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import pandas as pd

from bench.record import Mean, Median, Record
from bench.report.tables.columns import Column, Table, figures, lookup, middle
from bench.spec.suite_file import Goal

Verdict = Literal["met", "missed", "unclear"]

COLUMNS = [
    Column("goal", "goal", ""),
    Column("configuration", "name", ""),
    Column("wanted", "wanted", ""),
    Column("reached", "reached", "", figures(3)),
    Column("verdict", "verdict", ""),
]


class Reached(NamedTuple):
    """A figure with its interval; of one that has none, both ends are the figure."""

    middle: float
    low: float
    high: float

    def over(self, other: Reached) -> Reached:
        """The ratio, as wide as both intervals make it."""
        return Reached(self.middle / other.middle, self.low / other.high, self.high / other.low)


def goals_table(goals: Sequence[Goal], records: Sequence[Record]) -> Table:
    """A row for each goal."""
    named = {record.name: record for record in records}
    rows = [_row(goal, reached(goal, named)) for goal in goals]
    return Table("goals", COLUMNS, pd.DataFrame(rows))


def reached(goal: Goal, named: dict[str, Record]) -> Reached | None:
    """What a goal's figure came to; None where a run left no such figure."""
    found = _figure(named.get(goal.run), goal.metric)
    if found is None or not (goal.of or goal.over):
        return found
    divisor = _figure(named.get(goal.over or goal.run), goal.of or goal.metric)
    return found.over(divisor) if divisor and divisor.low > 0 else None


def verdict(goal: Goal, found: Reached | None) -> Verdict | Literal["not measured"]:
    """The verdict on what a goal's figure came to."""
    if found is None:
        return "not measured"
    if goal.at_least is not None:
        return judge(found.low, found.high, goal.at_least)
    assert goal.at_most is not None  # a goal has one of both
    return judge(-found.high, -found.low, -goal.at_most)


def judge(low: float, high: float, at_least: float) -> Verdict:
    """*met* by the whole interval, *missed* by all of it, else *unclear*."""
    if low >= at_least:
        return "met"
    return "missed" if high < at_least else "unclear"


def _figure(record: Record | None, path: str) -> Reached | None:
    found = None if record is None else lookup(record, path)
    if isinstance(found, Median | Mean):
        return Reached(middle(found), found.low, found.high)
    return None if found is None else Reached(found, found, found)


def _row(goal: Goal, found: Reached | None) -> dict[str, Any]:
    sign, bound = ("≥", goal.at_least) if goal.at_least is not None else ("≤", goal.at_most)
    row: dict[str, Any] = {"goal": goal.description, "name": goal.run, "wanted": f"{sign} {bound:g}"}
    if found:
        row["reached"] = found.middle
        if found.low != found.high:
            row |= {"reached_low": found.low, "reached_high": found.high}
    return row | {"verdict": verdict(goal, found)}
