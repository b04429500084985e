"""The pages of the control and of the published tables: every number of a sentence calculated again."""

# ruff: noqa: RUF001 - the sign × is meant

from __future__ import annotations

import re
from statistics import median
from typing import Any

from page_checks import INTERVAL, REPORTS, RESULTS, N, cells, equal, explain, sentences
from sentence_checks import same

from bench.store.validation import valid_records


def records(suite: str) -> dict[str, dict[str, Any]]:
    """The published records of a suite by their names."""
    return {record.name: record.model_dump() for record in valid_records(RESULTS / suite)}


def machine(suite: str) -> str:
    return next(path.name for path in (RESULTS / suite).iterdir())


def ratios(record: dict[str, Any]) -> list[float]:
    excluded = set(record["timing"]["contaminated"])
    return [a / b for i, (a, b) in enumerate(record["timing"]["pairs"]) if i not in excluded]


def test_the_control() -> None:
    """Intervals that contain 1, their widths and the seconds timed are counted again from the repetitions."""
    published = records("control")
    timed = [record["timing"] for record in published.values()]
    ends = [record["speedup"] for record in timed]
    covering = sum(end["low"] <= 1 <= end["high"] for end in ends)
    each = zip(ends, published.values(), strict=True)
    widths = [50 * (end["high"] - end["low"]) / median(ratios(record)) for end, record in each]
    seconds = median([sum(a + b for a, b in timing["pairs"]) for timing in timed])
    config = next(iter(published.values()))["config"]
    timing = config["timing"]
    text = sentences(REPORTS / "control" / "README.md").replace("95 %", "").replace("from 1 is error", "")
    left = explain(text.replace("contains 1 in", "contains one in"), {
        rf"{N} repetitions on {machine('control')}": equal(len(timed)),
        rf"in {N} of {N} repetitions": equal(covering, len(timed)),
        rf"its width is {N}% \(median\)": equal(median(widths)),
        rf"after {N} s of timing at batch {N}": equal(f"{seconds:.0f}", config["batch_size"]),
        rf"at least {N} pairs of generations \({N} steps, batch {N}, fp32": equal(
            timing["min_pairs"], config["num_inference_steps"], config["batch_size"]
        ),
        rf"at most {N} %, or after {N} s": equal(
            f"{100 * timing['target_halfwidth']:g}", f"{timing['budget_s']:g}"
        ),
    })  # fmt: skip
    assert not left
    assert ("as required" in text) == (covering >= 0.9 * len(timed))


def test_the_published_tables() -> None:
    """What agrees, what lies beyond its FLOPs and what is faster is counted again from the tables' lines,
    each limit from its plan's ratio; intervals and seconds are the records'."""
    page, published = REPORTS / "reproduce" / "README.md", records("reproduce")
    rows = [row for first in ("layers", "warm-up", "reuse from SNR") for row in cells(page, first)]
    beyond = [_beyond(float(row[4]), float(row[2].rstrip(" %"))) for row in rows if row[4] != "–"]
    assert beyond == [row[6] for row in rows if row[4] != "–"]
    share = float(sentences(page).split("attention being ")[1].split(" %")[0])
    for row in rows:
        same(row[5], 1 / (1 - share / 100 * float(row[2].rstrip(" %")) / 100))
    text = sentences(page)
    left = explain(text.split("**Summary:**")[1].split("\n")[0], {
        rf"{N} of {N} published reuse ratios": equal(sum(row[1] == row[2] for row in rows), len(rows)),
        rf"{N} of {N} published speedups exceed": equal(beyond.count("yes"), len(beyond)),
        rf"{N} more by less": equal(beyond.count("within rounding")),
        rf"{N} of {N} timed here are faster": equal(
            sum(row[10] == "FASTER" for row in rows), sum(row[9] != "–" for row in rows)
        ),
    })  # fmt: skip
    assert not left
    held = 28 * 256 * 1152 * 2 * 4
    assert f"are {held / 2**20:.1f} MiB ({held / 1e6:.1f} MB)" in text
    _control_and_claims(text, published)


def _beyond(speedup: float, ratio: float) -> str:
    """A published speedup, of two decimals, against what attention's 34.7 % allow at a reuse ratio in %."""
    limit = 1 / (1 - 0.347 * ratio / 100)
    return "no" if speedup <= limit else "yes" if speedup - 0.005 > limit else "within rounding"


def _control_and_claims(text: str, published: dict[str, dict[str, Any]]) -> None:
    baseline = published["baseline"]
    control = re.search(rf"The baseline against itself: {INTERVAL}", text)
    assert control
    same(control[1], median(ratios(baseline)))
    equal(*(float(baseline["timing"]["speedup"][key]) for key in ("low", "high")))(*control.groups()[1:])
    seconds = re.search(rf"the baseline takes {N} s an image", text)
    assert seconds
    timed = [
        float(r["timing"]["baseline_s"]["median"]) / r["config"]["batch_size"] for r in published.values()
    ]
    assert min(timed) <= float(seconds[1]) <= max(timed)
    drifts = [record["quality"]["drift"] for record in published.values() if record["quality"]]
    shown = re.findall(INTERVAL, text.split("## Claims that did not hold")[1].split("## How certain")[0])
    assert shown
    for values in shown:
        known = [[f"{drift[key]:.3f}" for key in ("mean", "low", "high")] for drift in drifts]
        assert list(values) in known, values
