"""The tables show the records: literal cells, and each way to show something else is noticed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from report_records import distance, made, quality, timing

from bench.record import Distance, Interval, Limits, Mean, Median, Memory, Record
from bench.report.pareto import compare
from bench.report.tables import pareto, runs
from bench.report.tables.columns import DASH, Column, Table, lookup, table


def record() -> Record:
    """One in which no two values are alike, each such that a shift by 0.4 changes its rounding."""
    timed = timing(1.2).model_copy(
        update={
            "speedup": Median(median=1.2346, low=1.2013, high=1.2712),
            "candidate_s": Median(median=3.21987, low=3.11, high=3.33),
            "batch_size": 16,
            "verdict": "FASTER",
        }
    )
    lost = quality("it", 0.05).model_copy(
        update={
            "drift": Mean(mean=0.05432, low=0.05, high=0.0614),
            "drift_converged": Mean(mean=0.0712, low=0.061, high=0.085),
            "drift_per_image": [0.02, 0.03, 0.05, 0.055, 0.21, 0.25],
            "drift_converged_per_image": [0.05, 0.06, 0.07, 0.09, 0.21, 0.3],
            "baseline_drift_converged_per_image": [0.12] * 6,
            "psnr_db": Mean(mean=31.234, low=30.0, high=32.5),
            "ssim": Mean(mean=0.98765, low=0.975, high=0.998),
            "lpips": Mean(mean=0.0412, low=0.0333, high=0.0501),
            "to_reference": distance(2.345, kid=Mean(mean=0.00321, low=0.0022, high=0.0043)),
        }
    )
    peaks = Memory(
        rss_peak=812_345_678, rss_idle=401_200_000, torch_allocated_peak=1_734_200_000,
        torch_reserved_peak=1_900_330_000, nvml_device_peak=2_500_110_000, nvml_device_idle=600_220_000,
        nvml_process_peak=1_950_140_000, sampler_samples=50, sampler_cpu_share=0.0123,
        cache_bytes=63_123_456, energy_j=45.67, missing={},
    )  # fmt: skip
    limited = Limits(
        flops_generation=3.214e11, attention_share=0.3125, speedup_limit=1.3541, realised=0.6521,
        flops_per_second=1.622e11, mfu=0.4033, peak=4.025e11, peak_source="a data sheet",
    )  # fmt: skip
    good = made("it", "dqar", 1.2, 0.05, 0.3, timing=timed, quality=lost, memory=peaks, limits=limited)
    assert good.reuse is not None
    reused = good.reuse.model_copy(update={"ratio": 0.28125, "plan_ratio": 0.2951})
    return good.model_copy(update={"reuse": reused})


MAIN = {
    "name": "it",
    "method": "dqar",
    "speedup": "1.235 [1.201, 1.271]",
    "verdict": "FASTER",
    "over": "eager",
    "batch_size": "16",
    "mfu_percent": "40.3",
    "seconds": "3.220 [3.110, 3.330]",
    "reuse_percent": "28.12",
    "limit": "1.354",
    "realised_percent": "65",
    "drift": "0.0543 ±0.00570",
    "drift_converged": "0.0712 ±0.0120",
    "psnr_db": "31.2 ±1.2",
    "ssim": "0.9877 ±0.0115",
    "lpips": "0.0412 ±0.0084",
    "fd": "2.35",
    "kid": "0.0032 [0.0022, 0.0043]",
    "cache_mb": "63.1",
    "rss_peak_mb": "812",
    "torch_allocated_peak_mb": "1734",
}
MEMORY = {
    "name": "it",
    "method": "dqar",
    "cache_bytes_mb": "63.1",
    "rss_peak_mb": "812.3",
    "rss_idle_mb": "401.2",
    "torch_allocated_peak_mb": "1734.2",
    "torch_reserved_peak_mb": "1900.3",
    "nvml_device_peak_mb": "2500.1",
    "nvml_device_idle_mb": "600.2",
    "nvml_process_peak_mb": "1950.1",
    "sampler_percent": "1.2",
    "energy_j": "45.7",
}
LIMITS = {
    "name": "it",
    "method": "dqar",
    "speedup": "1.235 [1.201, 1.271]",
    "limit": "1.354",
    "realised_percent": "65",
    "reuse_percent": "28.12",
    "plan_percent": "29.51",
    "attention_percent": "31.2",
    "gflop": "321.4",
    "gflops": "162.2",
    "peak_gflops": "402.5",
    "peak_source": "a data sheet",
}
FRONT = {
    "name": "it",
    "method": "dqar",
    "solver": "ddim",
    "steps": "20",
    "speedup": "1.23 [1.20, 1.27]",
    "limit": "1.35",
    "realised_percent": "65",
    "of_limit_percent": "91",
    "drift": "0.0543 ±0.00570",
    "drift_median": "0.0525",
    "drift_geometric": "0.0665",
    "drift_elsewhere": "33",
    "converged": "0.0712 ±0.0120",
    "converged_median": "0.0800",
    "converged_geometric": "0.103",
    "converged_elsewhere": "33",
    "loss": "inconclusive",
    "kid": "0.0032 [0.0022, 0.0043]",
    "front_a": "yes",
    "front_b": "yes",
}


def fronts() -> Table:
    others = [made(method, method, 0.9, 0.5 + i / 10) for i, method in enumerate(("pab", "fora"))]
    rows = compare([record(), *others])
    assert rows is not None
    built = pareto.front_table(rows)
    return replace(built, frame=built.frame[built.frame.name == "it"])


TABLES: list[tuple[str, Callable[[], Table], dict[str, str]]] = [
    ("main", lambda: runs.main_table([record()]), MAIN),
    ("memory", lambda: runs.memory_table([record()]), MEMORY),
    ("limits", lambda: runs.limits_table([record()]), LIMITS),
    ("front", fronts, FRONT),
]


@pytest.mark.parametrize(("name", "build", "cells"), TABLES, ids=[name for name, _, _ in TABLES])
def test_table_shows_the_records(name: str, build: Callable[[], Table], cells: dict[str, str]) -> None:
    """Every column of a table has exactly the cell that was worked out by hand from the record."""
    built = build()
    assert dict(zip([c.key for c in built.shown()], built.rows()[0], strict=True)) == cells


def shift(value: Any, by: float, scale: float) -> Any:
    """`value`, an interval or a number, moved by so much in the unit that is shown."""
    if isinstance(value, Interval):
        ends = {name: getattr(value, name) + by / scale for name in type(value).model_fields}
        return type(value)(**ends)
    return value + by / scale


def widened(value: Any) -> Any:
    """An interval with its upper end moved."""
    return value.model_copy(update={"high": value.high + 4 * value.half_width})


def _alike(value: Any, found: Any) -> bool:
    """Whether another column's value could be shown in this one's place, and is another."""
    return value is not None and value != found and isinstance(value, str) == isinstance(found, str)


def faults(column: Column, others: list[Column]) -> dict[str, Column]:
    """The column as it would be with each fault planted."""
    value = column.find(record())
    planted = {
        f"shows {other.key}": replace(column, of=other.find)
        for other in others
        if _alike(other.find(record()), value)
    }
    if isinstance(value, str):
        return planted | {"a constant": replace(column, of=lambda r: "constant")}
    planted |= {
        "0.4 added": replace(column, of=lambda r: shift(value, 0.4, column.scale)),
        "0.45 added": replace(column, of=lambda r: shift(value, 0.45, column.scale)),
        "a constant": replace(column, of=lambda r: 1.0),
        "ten times": replace(column, scale=10 * column.scale),
    }
    if isinstance(value, Interval):
        planted["another interval"] = replace(column, of=lambda r: widened(value))
    return planted


COLUMNS = [
    (column, cells[column.key], [other for other in columns if other.key != column.key])
    for columns, cells in (
        (runs.main_columns([record()]), MAIN),
        (runs.memory_table([record()]).columns, MEMORY),
        (runs.limits_table([record()]).columns, LIMITS),
        (list(fronts().columns), FRONT),
    )
    for column in columns
    if column.key in cells
]


@pytest.mark.parametrize(("column", "cell", "others"), COLUMNS, ids=[c.key for c, _, _ in COLUMNS])
def test_every_planted_fault_changes_a_cell(column: Column, cell: str, others: list[Column]) -> None:
    """A column that showed another's field, 0.4 or 0.45 more, a constant, ten times the value or another
    interval would fail the test above: each such cell differs from the literal one."""
    unseen = [
        name
        for name, faulty in faults(column, list(others)).items()
        if table("it", [faulty], [record()]).rows()[0] == [cell]
    ]
    assert not unseen


def test_a_distance_table_shows_the_records() -> None:
    """A row a comparison, with exactly these cells."""
    cells = runs.distance_table([record()]).rows()
    assert cells[0] == [
        "it", "dqar", "held-out images", "FD (emoji-96, n = 300, biased)", "2.345",
        "0.0032 [0.0022, 0.0043]", "0.731", "0.622", "602",
    ]  # fmt: skip
    assert cells[1][4] == "0.3500" and len(cells) == 2


def test_a_missing_value_is_a_dash() -> None:
    """A null is shown as a dash, and a column of nulls alone is not shown."""
    bare = record().model_copy(update={"memory": None, "name": "bare"})
    built = runs.main_table([record(), bare])
    shown = dict(zip([c.key for c in built.shown()], built.rows()[1], strict=True))
    assert shown["cache_mb"] == DASH and shown["drift"] == MAIN["drift"]
    assert "cache_mb" not in [column.key for column in runs.main_table([bare]).shown()]


@pytest.mark.parametrize(
    ("extractor", "n", "name"),
    [
        ("emoji-96", 300, "FD (emoji-96, n = 300, biased)"),
        ("inception-v3-compat", 9_999, "FID (inception-v3-compat, n = 9,999, biased)"),
        ("inception-v3-compat", 10_000, "FID (inception-v3-compat, n = 10,000)"),
    ],
)
def test_fd_is_named_after_its_extractor(extractor: str, n: int, name: str) -> None:
    """FID means Inception features; fewer than 10,000 images are called biased."""
    named: Distance = distance(1.0, extractor, n)
    assert runs.fd_name(named) == name


def test_a_long_table_is_collapsed() -> None:
    """From 31 rows on a table is one collapsed block, its CSV linked outside it."""
    short, long = (runs.limits_table([record()] * n).markdown() for n in (30, 31))
    assert "<details>" not in short and long.startswith("<details><summary>31 rows</summary>")
    assert long.endswith("</details>\n\n[limits.csv](limits.csv)")


def test_a_path_is_followed_to_the_first_null() -> None:
    """A dotted path gives the field, and null as soon as anything on it is."""
    assert lookup(record(), "quality.to_reference.kid.mean") == 0.00321
    assert lookup(record().model_copy(update={"quality": None}), "quality.to_reference.kid.mean") is None
