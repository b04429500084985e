"""A table is a list of columns: where each finds its value in a record, and how it is shown.

The CSV of a table holds the values in full; its Markdown shows the same frame, rounded.
"""

# ruff: noqa: RUF001 - the signs × and – are meant

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from bench.record import Interval, Record
from bench.report.escape import escape

DASH = "–"
COLLAPSED_FROM = 30  # rows: a longer table is collapsed in the page
Show = Callable[[Any], str]


def fixed(digits: int, unit: str = "") -> Show:
    """Show a number with so many decimals.

    Args:
        digits: behind the point.
        unit: what stands behind the number, with its space.

    Returns:
        The way to show it.
    """
    return lambda value: f"{value:.{digits}f}{unit}"


def whole(value: float) -> str:
    """Show a count; one that is no whole number, which would be a fault, is shown with its decimals.

    Args:
        value: the count, which may be a float.

    Returns:
        The number as text.
    """
    return f"{value:g}"


def significant(digits: int) -> Show:
    """Show a number with so many significant digits: 0.120, 1234, 1.20e-05.

    Args:
        digits: at least 1; a number with more before the point is shown whole.

    Returns:
        The way to show it.
    """

    def show(value: float) -> str:
        if value == 0 or abs(value) >= 10**digits:
            return f"{value:.0f}"
        return f"{value:#.{digits}g}".rstrip(".")

    return show


def interval(value: Interval | None, digits: int) -> str:
    """Show a value with its interval, `1.20 [1.10, 1.30]`.

    Args:
        value: None: not measured.
        digits: decimals of each.

    Returns:
        The text; a dash where there is no value.
    """
    return shown_with_interval(value, fixed(digits))


def shown_with_interval(value: Interval | None, show: Show) -> str:
    """Show a value with its interval, each end as the value.

    Args:
        value: None: not measured.
        show: the way to show a number.

    Returns:
        The text; a dash where there is no value.
    """
    return f"{show(value.value)} [{show(value.low)}, {show(value.high)}]" if value else DASH


def ends(name: str, value: Interval | None) -> dict[str, float | None]:
    """Spread an interval over three columns of a CSV.

    Args:
        name: the value's column; the ends' columns are called after it.
        value: None: not measured.

    Returns:
        `name`, `name_low` and `name_high`, all None where there is no value.
    """
    values = (value.value, value.low, value.high) if value else (None, None, None)
    return dict(zip((name, f"{name}_low", f"{name}_high"), values, strict=True))


@dataclass(frozen=True)
class Column:
    """One column: header, key in the CSV, dotted path in the record, scale and way to show it."""

    title: str
    key: str
    path: str
    show: Show = escape
    scale: float = 1.0
    interval: str = "[]"  # "[]" shows [low, high], "±" half the interval's width
    of: Callable[[Record], Any] | None = None  # in place of `path`, how to calculate the value

    def find(self, record: Record) -> Any:
        """Look up what the column is made from.

        Args:
            record: the record of one configuration.

        Returns:
            A value or an interval, unscaled; None where the record has none.
        """
        return self.of(record) if self.of else lookup(record, self.path)

    def values(self, record: Record) -> dict[str, Any]:
        """Compute the column's values for one record.

        Args:
            record: the record of one configuration.

        Returns:
            The scaled values by their columns in the CSV: one, or three where it has an interval.
        """
        content = self.find(record)
        if isinstance(content, Interval):
            return {
                key: value * self.scale for key, value in ends(self.key, content).items() if value is not None
            }
        return {self.key: self._scaled(content)}

    def _scaled(self, value: Any) -> Any:
        return value * self.scale if isinstance(value, int | float) else value

    def cell(self, row: dict[str, Any]) -> str:
        """Show the column's cell.

        Args:
            row: values of one row by their columns in the CSV.

        Returns:
            The text; a dash where there is no value.
        """
        value = row.get(self.key)
        if value is None or pd.isna(value):
            return DASH
        low, high = row.get(f"{self.key}_low"), row.get(f"{self.key}_high")
        if low is None or high is None or pd.isna(low):
            return self.show(value)
        if self.interval == "±":
            return f"{self.show(value)} ±{self.show((high - low) / 2)}"
        return f"{self.show(value)} [{self.show(low)}, {self.show(high)}]"


def lookup(record: Record, path: str) -> Any:
    """Follow a dotted path through a record.

    Args:
        record: the record of one configuration.
        path: names of fields with dots between.

    Returns:
        The value; None as soon as anything on the path is None.
    """
    value: Any = record
    for name in path.split("."):
        value = None if value is None else getattr(value, name)
    return value


@dataclass(frozen=True)
class Table:
    """A named table: a frame with the values in full and the columns that show them."""

    name: str
    columns: Sequence[Column]
    frame: pd.DataFrame

    def shown(self) -> list[Column]:
        """Choose the columns to show.

        Returns:
            Those that hold anything at all.
        """
        return [c for c in self.columns if c.key in self.frame and self.frame[c.key].notna().any()]

    def rows(self) -> list[list[str]]:
        """Show the rows.

        Returns:
            The cells of the columns in `shown` as text, row by row.
        """
        shown = self.shown()
        return [[column.cell(row) for column in shown] for row in as_rows(self.frame)]

    def markdown(self) -> str:
        """Show the table in Markdown, collapsed where it is long.

        Returns:
            The table with a link to its CSV below; `None.` where it has no rows.
        """
        if self.frame.empty:
            return "None."
        titles, rows = [column.title for column in self.shown()], self.rows()
        shown = grid(titles, rows)
        if len(rows) > COLLAPSED_FROM:
            shown = f"<details><summary>{len(rows)} rows</summary>\n\n{shown}\n\n</details>"
        return f"{shown}\n\n[{self.name}.csv]({self.name}.csv)"

    def write(self, directory: Path) -> None:
        """Write the table as CSV, values in full.

        Args:
            directory: it goes to NAME.csv in there.
        """
        self.frame.to_csv(directory / f"{self.name}.csv", index=False, lineterminator="\n")


def as_rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Turn a frame into dictionaries.

    Args:
        frame: any frame.

    Returns:
        Its rows, each by its columns' names.
    """
    return [{str(key): value for key, value in row.items()} for row in frame.to_dict("records")]


def table(name: str, columns: Sequence[Column], records: Sequence[Record]) -> Table:
    """Collect the columns' values over the records.

    Args:
        name: the table's name, which its CSV has too.
        columns: in order.
        records: one for each row.

    Returns:
        The table.
    """
    rows = [{k: v for c in columns for k, v in c.values(r).items()} for r in records]
    keys = dict.fromkeys(key for c in columns for row in rows for key in row if _of(c, key))
    return Table(name, columns, pd.DataFrame(rows, columns=pd.Index(list(keys))))


def _of(column: Column, key: str) -> bool:
    return key in (column.key, f"{column.key}_low", f"{column.key}_high")


def grid(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Draw a Markdown table of finished cells: columns of numbers to the right, of text to the left.

    Args:
        titles: one for each column.
        rows: cells, as many in each row; they are not escaped.

    Returns:
        Lines of Markdown.
    """
    rule = [_rule([row[i] for row in rows]) for i in range(len(titles))]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [titles, rule, *rows])


def _rule(cells: Sequence[str]) -> str:
    numbers = all(cell == DASH or cell[:1].isdigit() or cell[:1] == "-" for cell in cells)
    return "--:" if numbers else ":--"
