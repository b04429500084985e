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
    """Judge the goals of a suite.

    Args:
        goals: the suite's goals, in order.
        records: the suite's records; those that goals name may be missing.

    Returns:
        A row for each goal.
    """
    named = {record.name: record for record in records}
    rows = [_row(goal, reached(goal, named)) for goal in goals]
    return Table("goals", COLUMNS, pd.DataFrame(rows))


def reached(goal: Goal, named: dict[str, Record]) -> Interval | None:
    """Look up the value of a goal's metric.

    Args:
        goal: the goal to judge.
        named: the records by name.

    Returns:
        The value with its interval, divided by another run's or metric's where the goal asks for it; None
        where a run has none, or the divisor's interval holds 0.
    """
    value = _metric(named.get(goal.run), goal.metric)
    if value is None or not (goal.of or goal.over):
        return value
    divisor = _metric(named.get(goal.over or goal.run), goal.of or goal.metric)
    return value.over(divisor) if divisor and divisor.low > 0 else None


def verdict(goal: Goal, value: Interval | None) -> Verdict | Literal["not measured"]:
    """Judge the value of a goal's metric.

    Args:
        goal: the goal; it has one bound.
        value: the value; None: not measured.

    Returns:
        Whether the bound is met by the interval.
    """
    if value is None:
        return "not measured"
    if goal.at_least is not None:
        return judge(value.low, value.high, goal.at_least)
    assert goal.at_most is not None  # a goal has one of both
    return judge(-value.high, -value.low, -goal.at_most)


def judge(low: float, high: float, at_least: float) -> Verdict:
    """Hold an interval against a bound.

    Args:
        low: the interval's lower end.
        high: the interval's upper end.
        at_least: the bound to keep.

    Returns:
        *met* by the whole interval, *missed* by all of it, else *unclear*.
    """
    if low >= at_least:
        return "met"
    return "missed" if high < at_least else "unclear"


def _metric(record: Record | None, path: str) -> Interval | None:
    value = None if record is None else lookup(record, path)
    return value if value is None or isinstance(value, Interval) else Estimate.exact(value)


def _row(goal: Goal, value: Interval | None) -> dict[str, Any]:
    sign, bound = ("≥", goal.at_least) if goal.at_least is not None else ("≤", goal.at_most)
    row: dict[str, Any] = {"goal": goal.description, "name": goal.run, "wanted": f"{sign} {bound:g}"}
    if value:
        row |= ends("reached", value) if value.low != value.high else {"reached": value.value}
    return row | {"verdict": verdict(goal, value)}
