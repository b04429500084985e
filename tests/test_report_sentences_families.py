"""The families' page is counted again from its own rows, and a tuning study's from what it is made of."""

# ruff: noqa: RUF001 - the sign × is meant

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from page_checks import REPORTS, ROOT, N, cells, equal, explain, sentences

from bench.record import Mean, Median
from bench.studies.tune.report import write_report as write_tuned
from bench.studies.tune.search import Point


def test_the_families_totals() -> None:
    """Totals and headline are what counting the page's own rows gives, class by class."""
    page = REPORTS / "families" / "README.md"
    classes, pipelines = cells(page, "configuration"), cells(page, "pipeline")
    pinned = re.search(r"^diffusers==(\S+)", (ROOT / "constraints.txt").read_text(), re.M)
    assert pinned
    for first, table, titles_from in (("transformer classes", classes, 2), ("pipelines", pipelines, 3)):
        for number, row in enumerate(cells(page, first)):
            column = Counter(line[titles_from + number] for line in table)
            equal(*(column[kind] for kind in ("yes", "refused", "wrong", "crashed", "-")))(*row[1:])
    attention, skipped = (sum(row[i] == "yes" for row in classes) for i in (3, 6))
    right = sum(set(row[3:9]) <= {"yes", "refused", "-"} for row in pipelines)
    text = sentences(page).split("Every class of")[0]
    left = explain(text, {
        rf"Of {N} configurations of the {N} denoising transformer classes in diffusers ([\d.]+\d)": equal(
            len(classes), len({row[1] for row in classes}), pinned[1]
        ),
        rf"is right on {N} and skipping whole steps on {N}": equal(attention, skipped),
        rf"of {N} pipelines {N} are right": equal(len(pipelines), right),
    })  # fmt: skip
    assert not left
    every = [cell for row in (*classes, *pipelines) for cell in row]
    assert ("nothing is wrong" in text) == ("wrong" not in every)
    assert ("nothing crashes" in text) == ("crashed" not in every)


def test_a_tuning_studys_page(tmp_path: Path) -> None:
    """Each number of its sentences is one of the trials' and points' that it is made from."""
    drifts = (Mean(mean=0.0567, low=0.05, high=0.06), Mean(mean=0.0765, low=0.07, high=0.08))
    speedups = (Median(median=1.2, low=1.1, high=1.3), Median(median=1.4, low=1.3, high=1.5))
    points = [
        Point({"max_age": 2}, 1.234, 0.0456, drifts[0], speedups[0]),
        Point({"max_age": 3}, 1.456, 0.0654, drifts[1], speedups[1]),
    ]
    facts = {
        "machine": "box",
        "model": "embedded",
        "steps": 17,
        "guidance": 4.0,
        "images": 8,
        "pairs": 5,
        "shape": {},
    }
    page = write_tuned(points, [(1.0, 0.0)] * 23, facts, tmp_path)
    left = explain(sentences(page).replace("95 %", ""), {
        rf"Of {N} trials {N} are on the front, from {N}× by FLOPs at drift of {N} to {N}× at {N}, on": equal(
            23, 2, 1.234, 0.0567, 1.456, 0.0765
        ),
        rf"{N} steps, guidance {N}; {N} trials on {N} images each": equal(17, 4, 23, 8),
        rf"{N} pairs with the baseline": equal(5),
        rf"the drift on {N} images of other seeds": equal(8),
    })  # fmt: skip
    assert not left
