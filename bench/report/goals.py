"""Goals that a suite states: the value reached, the value wanted, and whether that is certain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import pandas as pd

from bench.record import Estimate, Interval, Record
from bench.report.tables.columns import Column, Table, ends, lookup, significant
from bench.spec.suite_file import Goal

Verdict = Literal["met", "missed", "unclear"]

COLUMNS = [
    Column("goal", "goal", ""),
    Column("configuration", "name", ""),
    Column("wanted", "wanted", ""),
    Column("reached", "reached", "", significant(3)),
    Column("verdict", "verdict", ""),
]


def goals_table(goals: Sequence[Goal], records: Sequence[Record]) -> Table:
    """A row for each goal."""
    named = {record.name: record for record in records}
    rows = [_row(goal, reached(goal, named)) for goal in goals]
    return Table("goals", COLUMNS, pd.DataFrame(rows))


def reached(goal: Goal, named: dict[str, Record]) -> Interval | None:
    """The value of a goal's metric; None where a run has none."""
    found = _metric(named.get(goal.run), goal.metric)
    if found is None or not (goal.of or goal.over):
        return found
    divisor = _metric(named.get(goal.over or goal.run), goal.of or goal.metric)
    return found.over(divisor) if divisor and divisor.low > 0 else None


def verdict(goal: Goal, found: Interval | None) -> Verdict | Literal["not measured"]:
    """The verdict on the value of a goal's metric."""
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


def _metric(record: Record | None, path: str) -> Interval | None:
    found = None if record is None else lookup(record, path)
    return found if found is None or isinstance(found, Interval) else Estimate.exact(found)


def _row(goal: Goal, found: Interval | None) -> dict[str, Any]:
    sign, bound = ("≥", goal.at_least) if goal.at_least is not None else ("≤", goal.at_most)
    row: dict[str, Any] = {"goal": goal.description, "name": goal.run, "wanted": f"{sign} {bound:g}"}
    if found:
        row |= ends("reached", found) if found.low != found.high else {"reached": found.value}
    return row | {"verdict": verdict(goal, found)}
