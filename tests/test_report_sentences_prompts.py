"""The page of the study of prompt length: its numbers, recomputed from the published rows by other means."""

from __future__ import annotations

import csv
import json
import lzma
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "reports" / "prompt-length" / "README.md"
VALUES = {"entropy": "attention entropy", "hold": "error of holding", "forecast": "error of a line"}


@pytest.fixture(scope="module")
def columns() -> dict[str, Any]:
    """The published columns, each [step and layer, prompt, words]."""
    file = next((ROOT / "results" / "published" / "prompt-length").glob("*/columns.csv.xz"))
    with lzma.open(file, "rt") as stream:
        columns_of = {key: np.array(values, dtype=float) for key, *values in csv.reader(stream)}
    shape = (-1, len(set(columns_of["label"])), len(set(columns_of["words"])))
    return {key: values.reshape(shape) for key, values in columns_of.items()}


@pytest.mark.parametrize("value", VALUES)
def test_the_exponents_are_those_of_the_rows(columns: dict[str, Any], value: str) -> None:
    """Each exponent is the least-squares slope within a prompt, step and layer, and lies in its interval."""
    x, y = np.log(columns["words"]), np.log(columns[value])
    x, y = x - x.mean(axis=2, keepdims=True), y - y.mean(axis=2, keepdims=True)
    slope = float((x * y).sum() / (x * x).sum())
    (row,) = [line for line in PAGE.read_text().splitlines() if line.startswith(f"| {VALUES[value]}")]
    mean, low, high, explained = map(float, re.findall(r"-?\d+\.\d+", row))
    assert mean == pytest.approx(slope, abs=6e-4)
    assert low <= mean <= high
    assert explained == pytest.approx(100 * slope**2 * float((x * x).sum() / (y * y).sum()), abs=0.06)
    each = (x * y).sum(axis=(0, 2)) / (x * x).sum(axis=(0, 2))  # of one prompt, all of which weigh the same
    half = 1.96 * each.std(ddof=1) / np.sqrt(len(each))
    assert high - low == pytest.approx(2 * half, rel=0.25)


def test_the_means_and_counts_are_those_of_the_rows(columns: dict[str, Any]) -> None:
    """The table of means, and the numbers of images, prompts and words."""
    text = PAGE.read_text()
    words = [int(each) for each in sorted(set(columns["words"].ravel()))]
    for i, count in enumerate(words):
        (row,) = [line for line in text.splitlines() if line.startswith(f"| {count} |")]
        shown = [float(each) for each in re.findall(r"\d+\.\d+", row)]
        assert shown == pytest.approx([columns[value][..., i].mean() for value in VALUES], abs=6e-4)
    prompts = columns["label"].shape[1]
    at = ", ".join(map(str, words))
    assert f"{prompts * len(words)} images, of {prompts} prompts at {at} words each" in text
    facts = next((ROOT / "results" / "published" / "prompt-length").glob("*/facts.json"))
    assert f"{json.loads(facts.read_text())['tokens']} here, whatever the prompt" in text
