"""The numbers in what reports state of fronts, of the control and of reproduction, calculated again."""

# ruff: noqa: RUF001 - the sign × is meant

from __future__ import annotations

import math
import re
from pathlib import Path
from statistics import fmean, geometric_mean, median

import pandas as pd
import pytest
from sentence_checks import ratios, same
from test_report_sentences import RESULTS, ROOT, loaded, markdown, published

from bench.record import Record
from bench.report.page import Page
from bench.report.setup import baseline_solver, solver
from bench.store.validation import valid_records

Point = tuple[float, float]  # drift, speed
FRONTS = [name for name in published() if name.startswith("front")]
# By the page that is committed: to write each again takes seconds, and every process of tests reads this.
COMPARED = [
    name
    for name in published()
    if "- **DQAR over the best" in (ROOT / "reports" / name / "README.md").read_text(encoding="utf-8")
]
LINE = re.compile(
    r"- \*\*\((a|b)\) [a-z ]+, speed by (seconds|FLOPs), competitors on (the baseline's|any) solver:\*\* "
    r"DQAR is ([\d.]+)× to ([\d.]+)× as fast from drift ([\d.]+) to ([\d.]+); the goal of ([\d.]+)× is (.*)"
)
LEAD = re.compile(
    r"- \*\*DQAR over the best of all others, (mean|geometric mean) drift from the (baseline|converged "
    r"trajectory) 0.02 to 0.15, (seconds|FLOPs):\*\* both sides reach ([\d.]+) to ([\d.]+)"
    r"(?:, nearer only (DQAR|others) \(([\d.]+)\))?; the band's lower edge is (.*); "
    r"1.3× or more on (\d+) % of it \(goal: half; (met|not met)\)."
)
SPAN = re.compile(r"from ([\d.]+) to ([\d.]+)(?: \(down to ([\d.]+)×\))?")


def point(record: Record, mark: str, measure: str, average: str) -> Point:
    assert record.quality and record.timing and record.limits
    quality = record.quality
    drifts = quality.drift_per_image if mark == "a" else quality.drift_converged_per_image
    speed = median(ratios(record)) if measure == "seconds" else record.limits.speedup_limit
    if average == "mean":
        return fmean(drifts) if drifts else 0.0, speed
    return geometric_mean(drifts) if min(drifts, default=0) > 0 else 0.0, speed


def speed_at(points: list[Point], drift: float) -> float:
    """The speed that a side reaches at a drift: between the two neighbours on its own front, log-log."""
    front = sorted(p for p in points if not any(o != p and o[0] <= p[0] and o[1] >= p[1] for o in points))
    below = [p for p in front if p[0] <= drift]
    above = [p for p in front if p[0] > drift]
    if not below or not above:
        return (above[0] if above else below[-1])[1]
    (d0, s0), (d1, s1) = below[-1], above[0]
    share = math.log(drift / d0) / math.log(d1 / d0)
    return math.exp(math.log(s0) + share * math.log(s1 / s0))


def sides(
    records: list[Record], mark: str, measure: str, where: str, average: str = "mean"
) -> tuple[list[Point], list[Point]]:
    kept = [r for r in records if r.status == "ok" and r.quality and r.timing and r.method != "baseline"]
    ours = [point(r, mark, measure, average) for r in kept if r.method == "dqar"]
    others = [r for r in kept if r.method != "dqar" and (where == "any" or solver(r) == baseline_solver(r))]
    theirs = [point(r, mark, measure, average) for r in others]
    return [p for p in ours if p[0] > 0 and p[1] > 1], [p for p in theirs if p[0] > 0 and p[1] > 1]


@pytest.mark.parametrize("name", FRONTS)
def test_the_curves_of_a_front_are_the_records(name: str) -> None:
    """Range and extremes of each ratio are those of two fronts interpolated naively, point by point; a goal
    is called met only where the ratio itself reaches it everywhere, and a missed range has a lower edge
    below the goal and not above the ratio."""
    _, records = loaded(name)
    lines = [m for text in markdown(name).split("\n") if (m := LINE.match(text))]
    assert lines
    for line in lines:
        mark, measure, where, least, most, start, stop, goal, verdict = line.groups()
        ours, theirs = sides(records, mark, measure, where)
        begin = max(min(d for d, _ in side) for side in (ours, theirs))
        end = max(min(d for d, s in side if s == max(s for _, s in side)) for side in (ours, theirs))
        grid = [begin * (end / begin) ** (i / 60) for i in range(61)]
        curve = [speed_at(ours, d) / speed_at(theirs, d) for d in grid]
        assert (float(start), float(stop)) == pytest.approx((begin, end), rel=0.006)
        assert (float(least), float(most)) == pytest.approx((min(curve), max(curve)), abs=0.006)
        if verdict.startswith("met"):
            assert min(curve) >= float(goal)
        for span in re.findall(r"from ([\d.]+) to ([\d.]+), where the band falls to ([\d.]+)×", verdict):
            first, last, low = map(float, span)
            inside = [r for d, r in zip(grid, curve, strict=True) if 0.99 * first <= d <= 1.01 * last]
            assert low <= min(inside) + 0.006 and low < float(goal) + 0.006
        assert verdict.startswith("met") or "where the band falls" in verdict


@pytest.mark.parametrize("name", COMPARED)
def test_the_first_lines_of_a_comparison_are_the_records(name: str) -> None:
    """The range is where two fronts interpolated naively overlap within the drifts of the goal; where the
    lower edge is stated to reach a goal the ratio itself does, and where it is stated to fall to a number the
    ratio is nowhere below that."""
    _, records = loaded(name)
    lines = [m for text in markdown(name).split("\n") if (m := LEAD.match(text))]
    assert lines
    for line in lines:
        average, axis, measure, start, stop, nearer, least, edges, share, verdict = line.groups()
        ours, theirs = sides(records, "a" if axis == "baseline" else "b", measure, "any", average)
        nearest = [min(d for d, _ in side) for side in (ours, theirs)]
        assert nearer == (None if max(nearest) <= 0.02 else ("others", "DQAR")[nearest[0] < nearest[1]])
        assert nearer is None or float(least) == pytest.approx(min(nearest), rel=0.01)
        begin = max(0.02, *nearest)
        end = min(
            0.15, max(min(d for d, s in side if s == max(s for _, s in side)) for side in (ours, theirs))
        )
        assert (float(start), float(stop)) == pytest.approx((begin, end), rel=0.03)  # of a grid
        grid = [begin * (end / begin) ** (i / 60) for i in range(61)]
        curve = [speed_at(ours, d) / speed_at(theirs, d) for d in grid]
        for first, last, low in SPAN.findall(edges):
            inside = [
                r for d, r in zip(grid, curve, strict=True) if 0.99 * float(first) <= d <= 1.01 * float(last)
            ]
            assert min(inside) >= (float(low) - 0.006 if low else 1.15 - 0.02), (first, last, low)
            assert not low or float(low) < 1.15 + 0.006
        assert int(share) <= 100 * sum(r >= 1.3 - 0.02 for r in curve) / len(curve) + 3
        assert verdict == ("met" if int(share) >= 50 else "not met")


@pytest.mark.parametrize("name", FRONTS)
def test_who_is_on_a_front_is_counted_from_the_records(name: str) -> None:
    """DQAR's configurations on a front and its competitors' are those that no other dominates."""
    _, records = loaded(name)
    shown = re.findall(
        r"\*\*On front \((a|b)\):\*\* (\d+) of DQAR's configurations(?:, and (\d+) of)?", markdown(name)
    )
    for mark, ours, others in shown:
        timed = [r for r in records if r.status == "ok" and r.timing and r.quality]
        points = {r.name: point(r, mark, "seconds", "mean") for r in timed}
        on = [r for r in timed if r.method != "baseline" and not beaten(points[r.name], [*points.values()])]
        assert int(ours) == sum(r.method == "dqar" for r in on)
        assert int(others or 0) == sum(r.method != "dqar" for r in on)


def beaten(one: Point, points: list[Point]) -> bool:
    """Whether another drifts no more and is no slower."""
    return any(other != one and other[0] <= one[0] and other[1] >= one[1] for other in points)


def page(name: str) -> Page:
    read = Page.read(ROOT / "reports" / name / "README.md")
    assert read is not None
    return read


def test_the_controls_summary_is_the_records() -> None:
    """How many repetitions' intervals contain 1, and the median half-width, seconds and batch."""
    timings = [r.timing for r in valid_records(RESULTS / "control") if r.timing]
    shown = re.search(
        r"contains 1 in (\d+) of (\d+) repetitions.*width is ([\d.]+)% \(median\) after (\d+) s .* "
        r"batch (\d+)",
        page("control").headline,
    )
    assert shown is not None
    covering = sum(t.speedup.low <= 1 <= t.speedup.high for t in timings)
    widths = [(t.speedup.high - t.speedup.low) / 2 / median([a / b for a, b in t.pairs]) for t in timings]
    assert (int(shown[1]), int(shown[2])) == (covering, len(timings))
    assert float(shown[3]) == pytest.approx(100 * median(widths), abs=0.2)  # contaminated pairs aside
    same(shown[4], median(sum(a + b for a, b in t.pairs) for t in timings))
    assert int(shown[5]) == timings[0].batch_size


def test_reproductions_summary_is_its_table() -> None:
    """The counts in the summary are those of the table's rows: what agrees, what exceeds the limit, by more
    or less than two decimals round, and what is faster here."""
    table = pd.read_csv(Path(ROOT / "reports" / "reproduce" / "published.csv"))
    numbers = [int(n) for n in re.findall(r"\d+", page("reproduce").headline)]
    excess = table.published_speedup - table.limit
    assert numbers == [
        int((table.published_reuse_percent == table.plan_reuse_percent).sum()), len(table),
        int((excess > 0.005).sum()), int(table.published_speedup.notna().sum()),
        int(((excess > 0) & (excess <= 0.005)).sum()),
        int((table.here_verdict == "FASTER").sum()), int(table.here_verdict.notna().sum()),
    ]  # fmt: skip
    text = page("reproduce").body
    assert text.count("| yes | 1.") == int(table.published_speedup.notna().sum())
    assert len(re.findall(r"\| 1\.\d+ \| yes \|", text)) == numbers[2]
    assert text.count("| within rounding |") == numbers[4]
