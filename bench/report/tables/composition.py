"""Whether gains multiply and losses add: a stack alone, reuse alone, and both together."""

# ruff: noqa: RUF001 - the sign × is meant

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import pandas as pd

from bench.record import Estimate, Interval, Record
from bench.report.tables.columns import Column, Table, ends, fixed, lookup, significant

REUSE = "dqar"  # the option of method `stack` that holds the reuse, and the method that is it alone


class Composed(NamedTuple):
    """A configuration with reuse and the two that it is composed of."""

    both: Record
    stack: Record
    reuse: Record


COLUMNS = [
    Column("stack", "name", ""),
    Column("alone (×)", "speedup_stack", "", fixed(3)),
    Column("reuse alone (×)", "speedup_reuse", "", fixed(3)),
    Column("product (×)", "speedup_product", "", fixed(3)),
    Column("together (×)", "speedup", "", fixed(3)),
    Column("of the product (%)", "percent_of_product", "", fixed(0)),
    Column("drift alone", "drift_stack", "", significant(3), interval="±"),
    Column("of reuse", "drift_reuse", "", significant(3), interval="±"),
    Column("sum", "drift_sum", "", significant(3), interval="±"),
    Column("together", "drift", "", significant(3), interval="±"),
]


def composition_table(records: Sequence[Record]) -> Table:
    """Tabulate the product of speedups and the sum of drifts next to what was measured together.

    Args:
        records: the suite's records; those of other methods than `stack` and `dqar` do not count.

    Returns:
        A row for each stack that was measured alone and with a reuse that was measured alone too.
    """
    return Table("composition", COLUMNS, pd.DataFrame([_row(found) for found in composed(records)]))


def composed(records: Sequence[Record]) -> Iterator[Composed]:
    """Find the configurations that are composed of two others, by their options.

    Args:
        records: the suite's records.

    Yields:
        Those of which all three were measured, in order.
    """
    measured = [record for record in records if record.status == "ok" and record.timing]
    for both in measured:
        options = dict(both.config.get("options") or {})
        if both.method != "stack" or REUSE not in options:
            continue
        own = options.pop(REUSE)
        stack, reuse = _find(measured, "stack", options), _find(measured, REUSE, own)
        if stack and reuse:
            yield Composed(both, stack, reuse)


def _find(records: Sequence[Record], method: str, options: dict[str, Any]) -> Record | None:
    return next((r for r in records if r.method == method and r.config.get("options") == options), None)


def _row(found: Composed) -> dict[str, Any]:
    speed = [lookup(record, "timing.speedup") for record in (found.stack, found.reuse)]
    drift = [lookup(record, "quality.drift") for record in (found.stack, found.reuse)]
    both, product = lookup(found.both, "timing.speedup"), _product(*speed)
    share = both.over(product)
    return {
        "name": found.stack.name,
        **ends("speedup_stack", speed[0]),
        **ends("speedup_reuse", speed[1]),
        **ends("speedup_product", product),
        **ends("speedup", both),
        **{key: 100 * (value or 0.0) for key, value in ends("percent_of_product", share).items()},
        **ends("drift_stack", drift[0]),
        **ends("drift_reuse", drift[1]),
        **ends("drift_sum", _sum(*drift)),
        **ends("drift", lookup(found.both, "quality.drift")),
    }


def _product(a: Interval, b: Interval) -> Estimate:
    """Of two positive values, as wide as both make it at worst."""
    return Estimate(estimate=a.value * b.value, low=a.low * b.low, high=a.high * b.high)


def _sum(a: Interval | None, b: Interval | None) -> Estimate | None:
    """As wide as both make it at worst; None where either was not measured."""
    if a is None or b is None:
        return None
    return Estimate(estimate=a.value + b.value, low=a.low + b.low, high=a.high + b.high)
