"""The page of the study of generality: its numbers, recomputed from the published drifts by other means."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "reports" / "generality" / "README.md"
FILES = sorted((ROOT / "results" / "published" / "generality").glob("*/*.json"))

pytestmark = pytest.mark.skipif(not FILES, reason="the study is not published")


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    """What was measured on each model."""
    content = [json.loads(file.read_text()) for file in FILES]
    return {data["facts"]["model"]: data for data in content}


def drifts(data: dict[str, Any], name: str, condition: str = "home") -> np.ndarray:
    """The drift of each image of a run."""
    (run,) = [run for run in data["runs"] if (run["name"], run["condition"]) == (name, condition)]
    return np.array(run["drifts"])


def percent(candidate: np.ndarray, other: np.ndarray) -> float:
    """The mean difference, relative to the other's mean."""
    return float(100 * (candidate - other).mean() / other.mean())


def rows(text: str, start: str) -> list[list[str]]:
    """The cells of the table's lines that begin with a text."""
    return [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith(start)]


def first(cell: str) -> float:
    """The first number of a cell."""
    match = re.search(r"[+-]?\d+(\.\d+)?", cell)
    assert match
    return float(match.group())


def test_the_configurations_are_those_of_the_drifts(models: dict[str, Any]) -> None:
    """Evaluations, speedup by FLOPs, mean drift and the difference to the baseline, of every run at home."""
    text = PAGE.read_text(encoding="utf-8")
    for model, data in models.items():
        section = text.split(f"## Configurations on {model}\n")[1].split("\n## ")[0]
        shown = {cells[0]: cells[1:] for cells in rows(section, "| ") if "|" not in cells[0]}
        base = drifts(data, "baseline")
        for run in data["runs"]:
            if run["condition"] != "home" or "compared_with" in run["facts"]:
                continue
            evaluations, speedup, drift, difference = shown[run["name"]]
            assert first(evaluations) == pytest.approx(run["evaluations"], abs=0.051)
            if run["flops"]:
                assert first(speedup) == pytest.approx(1 / run["flops"], abs=0.0051)
            assert first(drift) == pytest.approx(np.mean(run["drifts"]), abs=0.00051)
            if run["name"] != "baseline":
                assert first(difference) == pytest.approx(percent(np.array(run["drifts"]), base), abs=0.51)


def test_the_matrix_is_of_the_plans_drifts(models: dict[str, Any]) -> None:
    """Each cell is a plan against the plain spread that was run next to it, on the same images."""
    text = PAGE.read_text(encoding="utf-8").split("## Plans: made for, used on")[1]
    (header,) = rows(text, "| made for |")
    checked = 0
    for model, data in models.items():
        for run in data["runs"]:
            if "compared_with" not in run["facts"] or "by share" in run["name"]:
                continue
            (cells,) = [c for c in rows(text, f"| {run['name']} |") if c[1] == model]
            other = drifts(data, run["facts"]["compared_with"], run["condition"])
            value = first(cells[header.index(run["condition"])])
            assert value == pytest.approx(percent(np.array(run["drifts"]), other), abs=0.51)
            checked += 1
    assert checked >= 4


def test_the_first_lines_name_every_disagreement(models: dict[str, Any]) -> None:
    """Each question on which the models disagree, by its last column, has a line at the top, no other has."""
    text = PAGE.read_text(encoding="utf-8")
    top, rest = text.split("## What holds on both")
    lines = [cells for cells in rows(rest.split("![")[0], "| ") if cells[0] != "question"]
    assert len(lines) >= 8
    differ = [cells[0] for cells in lines if cells[-1] == "the models disagree"]
    assert [line[2:].split(": ")[0] for line in top.splitlines() if line.startswith("- ")] == differ


def test_the_summary_counts_what_holds_and_is_short(models: dict[str, Any]) -> None:
    """It counts the findings of both models and those that agree, and repeats the first of these."""
    text = PAGE.read_text(encoding="utf-8")
    summary = next(line for line in text.splitlines() if line.startswith("**Summary:**"))
    table = text.split("## What holds on both")[1].split("![")[0]
    lines = [cells for cells in rows(table, "| ") if cells[0] != "question" and "alone" not in cells[-1]]
    agreed = [cells for cells in lines if cells[-1] != "the models disagree"]
    assert f"{len(agreed)} of {len(lines)} findings hold" in summary
    first_decided = next(cells for cells in agreed if cells[-1] != "no difference found")
    assert all(part in summary for part in first_decided)
    assert len(summary) < 350
