"""The tables of levels, ratios, reasons, options and distances: literal cells of made-up fronts."""

# ruff: noqa: RUF001 - the signs × and – are meant

from __future__ import annotations

import numpy as np
import pytest
from report_records import made

from bench.record import Median, Record, Reuse
from bench.report.curves import Comparison, Curve
from bench.report.pareto import AXES, Front, Level
from bench.report.tables import pareto, runs


def run(name: str, method: str, speed: float) -> Record:
    record = made(name, method, speed, 0.1, 0.25)
    assert record.timing is not None
    speedup = Median(median=speed, low=speed - 0.125, high=speed + 0.25)
    return record.model_copy(update={"timing": record.timing.model_copy(update={"speedup": speedup})})


def front() -> Front:
    named = [
        run(*fields)
        for fields in (("a", "fora", 2.5), ("b", "pab", 2.0), ("c", "dqar", 1.5), ("d", "x", 1.25))
    ]
    fastest, second, ours, same_solver = named
    full = Level(0.05, fastest, second, ours, same_solver, any=fastest)
    return Front(AXES[1], [], frozenset(), [Level(0.01, None, None, None, None, None), full], [], [])


def test_each_level_has_its_five_candidates() -> None:
    """The fastest, the runner-up, DQAR's, and the competitors on the baseline's solver and on any; a dash for
    none."""
    shown = pareto.levels_table(front())
    assert shown.name == "front-converged"
    assert shown.rows() == [
        ["0.010", *["–"] * 5],
        [
            "0.050",
            "`a` 2.50 [2.38, 2.75]",
            "`b` 2.00 [1.88, 2.25]",
            "`c` 1.50 [1.38, 1.75]",
            "`d` 1.25 [1.12, 1.50]",
            "`a` 2.50 [2.38, 2.75]",
        ],
    ]
    assert shown.frame["first_method"][1] == "fora"
    assert [column.title for column in shown.shown()] == [
        "drift ≤", "fastest (×)", "runner-up, another method (×)", "DQAR's fastest (×)",
        "competitor, baseline's solver (×)", "competitor, any solver (×)",
    ]  # fmt: skip


def compared() -> list[Comparison]:
    """One ratio that doubles from 0.01 to 0.04, and one that is 3 from 0.02 to 0.08."""
    one = Curve(np.array([0.01, 0.04]), np.array([1.0, 2.0]), np.array([0.5, 1.0]), np.array([2.0, 4.0]))
    other = Curve(np.array([0.02, 0.08]), np.array([3.0, 3.0]), np.array([2.5, 2.5]), np.array([3.5, 3.5]))
    return [
        Comparison("seconds", "the baseline's solver", 1.2, one, True, (0.02, 0.02)),
        Comparison("FLOPs", "any solver", 1.0, other, True, (0.02, 0.02)),
    ]


def test_ratios_are_a_row_for_each_drift_and_comparison() -> None:
    """Both in full, with what they compare by and the goal, which the page leaves out."""
    shown = pareto.ratio_table(AXES[0], compared())
    assert shown.name == "ratio-baseline"
    assert shown.rows() == [
        ["mean", "seconds", "the baseline's solver", "0.0100", "1.00 [0.50, 2.00]"],
        ["mean", "seconds", "the baseline's solver", "0.0400", "2.00 [1.00, 4.00]"],
        ["mean", "FLOPs", "any solver", "0.0200", "3.00 [2.50, 3.50]"],
        ["mean", "FLOPs", "any solver", "0.0800", "3.00 [2.50, 3.50]"],
    ]
    assert shown.frame["goal"].tolist() == [1.2, 1.2, 1.0, 1.0]


def test_ratios_at_few_drifts_are_a_column_for_each_comparison() -> None:
    """At the ends of each range and the levels between all; outside its range a comparison has a dash."""
    lines = pareto.ratio_grid(compared()).splitlines()
    assert lines[0] == "| drift | seconds, the baseline's solver (goal 1.2×) | FLOPs, any solver (goal 1×) |"
    assert lines[2:] == [
        "| 0.0100 | 1.00 [0.50, 2.00] | – |",
        "| 0.0200 | 1.41 [0.71, 2.83] | 3.00 [2.50, 3.50] |",
        "| 0.0350 | 1.87 [0.94, 3.74] | 3.00 [2.50, 3.50] |",
        "| 0.0400 | 2.00 [1.00, 4.00] | 3.00 [2.50, 3.50] |",
        "| 0.0500 | – | 3.00 [2.50, 3.50] |",
        "| 0.0700 | – | 3.00 [2.50, 3.50] |",
        "| 0.0800 | – | 3.00 [2.50, 3.50] |",
    ]


def reused(name: str, reasons: dict[str, int], **resolved: object) -> Record:
    reuse = Reuse(
        ratio=0.5, plan_ratio=None, map=[], entropy=None, snr=[], reasons=reasons, resolved=resolved
    )
    return made(name, "dqar", 1.1, 0.1).model_copy(update={"reuse": reuse})


def test_reasons_are_counted_each_in_its_column() -> None:
    """In the order of their names, 0 where a run never had one; runs that reuse nothing are left out."""
    records = [reused("a", {"warmup": 3, "age": 12}), reused("b", {"snr": 5}), made("c", "pab", 1.1, 0.1)]
    shown = runs.reasons_table(records)
    assert [column.title for column in shown.shown()] == ["configuration", "method", "age", "snr", "warmup"]
    assert shown.rows() == [["a", "dqar", "12", "0", "3"], ["b", "dqar", "0", "5", "0"]]
    assert runs.reasons_table([made("c", "pab", 1.1, 0.1)]).markdown() == "None."


def test_options_are_those_asked_for_and_those_measured() -> None:
    """By name, as JSON; what was measured in place of what was asked, to four decimals."""
    config = {"options": {"z": True, "adaptive": "x", "tau": 9}}
    asked = reused("a", {}, tau=0.123456).model_copy(update={"config": config})
    plain = made("b", "pab", 1.1, 0.1).model_copy(update={"config": {"options": None}})
    shown = runs.options_table([asked, plain])
    assert [row[:2] for row in shown.rows()] == [["a", "dqar"], ["b", "pab"]]
    assert shown.frame["options"].tolist() == ['adaptive = "x", tau = 0.1235, z = true', "none"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("precision_to_reference", 0.731),
        ("recall_to_reference", 0.622),
        ("precision_to_baseline", 0.25),
        ("recall_to_baseline", 0.75),
    ],
)
def test_each_detail_of_a_distance_is_its_own(key: str, value: float) -> None:
    """The list of missing values looks for precision and recall of both comparisons where they stand."""
    record = made("a", "dqar", 1.1, 0.1)
    assert record.quality and record.quality.to_baseline
    other = record.quality.to_baseline.model_copy(update={"precision": 0.25, "recall": 0.75})
    record = record.model_copy(update={"quality": record.quality.model_copy(update={"to_baseline": other})})
    (column,) = [column for column in runs.DISTANCE_DETAILS if column.key == key]
    assert column.find(record) == value and column.title.startswith(key.partition("_")[0])
