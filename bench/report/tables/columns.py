"""A table is a list of columns: where each finds its figure in a record, and how it is shown.

The CSV of a table holds the figures in full; its Markdown shows the same frame, rounded.
"""

# ruff: noqa: RUF001 - the signs × and – are meant

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from bench.record import Mean, Median, Record

DASH = "–"
Show = Callable[[Any], str]


def fixed(digits: int, unit: str = "") -> Show:
    """Show a number with so many decimals."""
    return lambda value: f"{value:.{digits}f}{unit}"


def figures(digits: int) -> Show:
    """Show a number with so many significant figures: 0.120, 1234, 1.20e-05."""

    def show(value: float) -> str:
        if value == 0 or abs(value) >= 10**digits:
            return f"{value:.0f}"
        return f"{value:#.{digits}g}".rstrip(".")

    return show


def middle(value: Mean | Median) -> float:
    """The figure that an interval is of."""
    return value.median if isinstance(value, Median) else value.mean


def interval(value: Mean | Median | None, digits: int) -> str:
    """A figure with its interval, `1.20 [1.10, 1.30]`, to so many decimals; a dash where there is none."""
    if value is None:
        return DASH
    return f"{middle(value):.{digits}f} [{value.low:.{digits}f}, {value.high:.{digits}f}]"


def escape(text: object) -> str:
    """Make any text safe for one cell of a Markdown table."""
    return " ".join(str(text).split()).replace("|", "\\|").replace("<", "&lt;")


@dataclass(frozen=True)
class Column:
    """One column: header, key in the CSV, dotted path in the record, scale and way to show it."""

    title: str
    key: str
    path: str
    show: Show = escape
    scale: float = 1.0
    interval: str = "[]"  # "[]" shows [low, high], "±" half the interval's width
    of: Callable[[Record], Any] | None = None  # in place of `path`, what must be worked out

    def find(self, record: Record) -> Any:
        """What the column is made from, in one record."""
        return self.of(record) if self.of else lookup(record, self.path)

    def values(self, record: Record) -> dict[str, Any]:
        """The column's figures in one record: one, or three where it has an interval."""
        found = self.find(record)
        if isinstance(found, Median | Mean):
            ends = {"": middle(found), "_low": found.low, "_high": found.high}
            return {self.key + end: value * self.scale for end, value in ends.items()}
        return {self.key: self._scaled(found)}

    def _scaled(self, value: Any) -> Any:
        return value * self.scale if isinstance(value, int | float) else value

    def cell(self, row: dict[str, Any]) -> str:
        """The column's cell, from the figures of one row."""
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
    """Follow a dotted path through a record; None as soon as anything on it is None."""
    found: Any = record
    for name in path.split("."):
        found = None if found is None else getattr(found, name)
    return found


@dataclass(frozen=True)
class Table:
    """A named table: a frame with the figures in full and the columns that show them."""

    name: str
    columns: Sequence[Column]
    frame: pd.DataFrame

    def shown(self) -> list[Column]:
        """The columns that hold anything at all."""
        return [c for c in self.columns if c.key in self.frame and self.frame[c.key].notna().any()]

    def rows(self) -> list[list[str]]:
        """The cells as text, row by row."""
        return [[column.cell(row) for column in self.shown()] for row in as_rows(self.frame)]

    def markdown(self) -> str:
        """The table in Markdown, with a link to its CSV below."""
        if self.frame.empty:
            return "None."
        titles = [column.title for column in self.shown()]
        return f"{grid(titles, self.rows())}\n\n[{self.name}.csv]({self.name}.csv)"

    def write(self, folder: Path) -> None:
        """Write the CSV, figures in full."""
        self.frame.to_csv(folder / f"{self.name}.csv", index=False, lineterminator="\n")


def as_rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a frame as dictionaries keyed by text."""
    return [{str(key): value for key, value in row.items()} for row in frame.to_dict("records")]


def table(name: str, columns: Sequence[Column], records: Sequence[Record]) -> Table:
    """Collect the columns' figures over the records, one row a record."""
    rows = [{k: v for c in columns for k, v in c.values(r).items()} for r in records]
    keys = dict.fromkeys(key for c in columns for row in rows for key in row if _of(c, key))
    return Table(name, columns, pd.DataFrame(rows, columns=pd.Index(list(keys))))


def _of(column: Column, key: str) -> bool:
    return key in (column.key, f"{column.key}_low", f"{column.key}_high")


def grid(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table of ready cells: columns of figures to the right, of words to the left."""
    rule = [_rule([row[i] for row in rows]) for i in range(len(titles))]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [titles, rule, *rows])


def _rule(cells: Sequence[str]) -> str:
    figures = all(cell == DASH or cell[:1].isdigit() or cell[:1] == "-" for cell in cells)
    return "--:" if figures else ":--"
