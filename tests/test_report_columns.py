"""How a table's cells, intervals, CSV and Markdown come about, with columns made for it."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest
from report_records import made

from bench.record import Mean, Record
from bench.report.tables.columns import (
    Column,
    Table,
    as_rows,
    ends,
    fixed,
    grid,
    interval,
    significant,
    table,
    whole,
)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0"),
        (1.0, "1.00"),
        (0.12, "0.120"),
        (99.96, "100"),
        (999.4, "999"),
        (1000.0, "1000"),
        (1234.5, "1234"),
        (-1234.6, "-1235"),
        (1.2e-5, "1.20e-05"),
    ],
)
def test_three_significant_digits(value: float, shown: str) -> None:
    """Zeros at the end count; whole numbers have no point, and large ones all their digits."""
    assert significant(3)(value) == shown


def test_other_ways_to_show_a_number() -> None:
    """So many decimals with a unit, or a count that would show a fraction."""
    assert (fixed(1, " s")(2.25), fixed(0)(2.6), whole(16.0), whole(1.5)) == ("2.2 s", "3", "16", "1.5")


def test_an_interval_or_a_dash() -> None:
    """The value and both ends to so many decimals; three columns of a CSV, empty without an interval."""
    mean = Mean(mean=0.25, low=0.125, high=0.5)
    assert interval(mean, 2) == "0.25 [0.12, 0.50]" and interval(None, 2) == "–"  # noqa: RUF001
    assert ends("a", mean) == {"a": 0.25, "a_low": 0.125, "a_high": 0.5}
    assert ends("a", None) == {"a": None, "a_low": None, "a_high": None}


def run(name: str, drift: Mean | None) -> Record:
    record = made(name, "dqar", 1.1, 0.1)
    assert record.quality is not None
    return record.model_copy(update={"quality": record.quality.model_copy(update={"drift": drift})})


DRIFT = Column("drift", "drift", "quality.drift", fixed(1), 10)
RECORDS = [run("a", Mean(mean=0.25, low=0.125, high=0.5)), run("b", None), run("c", None)]


def test_a_scale_is_of_value_and_ends() -> None:
    """What is shown in another unit is so in the CSV, too: the value, and both ends of its interval."""
    assert DRIFT.values(RECORDS[0]) == {"drift": 2.5, "drift_low": 1.25, "drift_high": 5.0}
    assert Column("n", "n", "quality.n", scale=2).values(RECORDS[0]) == {"n": 128}
    assert Column("name", "name", "name", scale=2).values(RECORDS[0]) == {"name": "a"}


@pytest.mark.parametrize(
    ("row", "cell"),
    [
        ({"drift": 2.5, "drift_low": 1.0, "drift_high": 5.0}, "2.5 [1.0, 5.0]"),
        ({"drift": 2.5, "drift_low": None, "drift_high": 5.0}, "2.5"),
        ({"drift": 2.5, "drift_low": 1.0, "drift_high": None}, "2.5"),
        ({"drift": 2.5, "drift_low": math.nan, "drift_high": math.nan}, "2.5"),
        ({"drift": 2.5}, "2.5"),
        ({"drift": math.nan, "drift_low": 1.0, "drift_high": 2.0}, "–"),  # noqa: RUF001
        ({}, "–"),  # noqa: RUF001
    ],
)
def test_a_cell_shows_what_there_is(row: dict[str, float | None], cell: str) -> None:
    """An interval where both ends are known, the value alone, or a dash."""
    assert DRIFT.cell(row) == cell


def test_half_a_width() -> None:
    """Where a column shows ±, half of the interval's width stands behind the value."""
    half = Column("drift", "drift", "", fixed(2), interval="±")
    assert half.cell({"drift": 2.5, "drift_low": 1.0, "drift_high": 5.0}) == "2.50 ±2.00"


def test_a_table_has_a_column_for_each_value(tmp_path: Path) -> None:
    """In the columns' order, ends behind their value, empty where a record has none; the CSV is the frame."""
    shown = table("it", [DRIFT, Column("name", "name", "name")], RECORDS)
    assert list(shown.frame.columns) == ["drift", "drift_low", "drift_high", "name"]
    assert shown.rows() == [["2.5 [1.2, 5.0]", "a"], ["–", "b"], ["–", "c"]]  # noqa: RUF001
    shown.write(tmp_path)
    lines = ["drift,drift_low,drift_high,name", "2.5,1.25,5.0,a", ",,,b", ",,,c", ""]
    assert (tmp_path / "it.csv").read_bytes() == "\n".join(lines).encode()
    assert list(table("it", [Column("name", "name", "name")], RECORDS[:1]).frame.columns) == ["name"]
    assert list(table("it", [Column("name", "name", "name"), DRIFT], []).frame.columns) == []


def test_the_markdown_of_a_table() -> None:
    """Titles, numbers to the right and text to the left, and a link to the CSV; nothing is None."""
    found = table("it", [Column("name", "name", "name"), DRIFT], RECORDS[:2])
    shown = "| name | drift |\n| :-- | --: |\n| a | 2.5 [1.2, 5.0] |\n| b | – |"  # noqa: RUF001
    assert found.markdown() == f"{shown}\n\n[it.csv](it.csv)"
    assert Table("it", [DRIFT], pd.DataFrame()).markdown() == "None."


def test_columns_of_numbers_stand_to_the_right() -> None:
    """Dashes and negative numbers among them; one word makes it a column of text."""
    shown = grid(["a", "b", "c"], [["-1", "–", "2 x"], ["–", "–", "x"]])  # noqa: RUF001
    assert shown.splitlines()[1] == "| --: | --: | :-- |"
    assert as_rows(pd.DataFrame({1: [2], "b": ["x"]})) == [{"1": 2, "b": "x"}]
