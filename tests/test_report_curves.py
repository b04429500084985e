"""Fronts compared as curves: records whose ratio is known at every drift."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from many import configuration, paired

from bench.record import Record
from bench.report.curves import Comparison, comparisons, front
from bench.report.pareto import AXES, compare
from bench.report.text.pareto import lead

DRIFT = AXES[0]


def sweep(
    name: str, method: str, speeds: dict[float, float], scatter: float = 0.005, **more: Any
) -> list[Record]:
    """Configurations of a method: drift -> speed, with timing pairs that scatter by so much."""
    return [
        configuration(f"{name}{i}", method, speed, drift, timing=paired(speed, i, scatter), **more)
        for i, (drift, speed) in enumerate(speeds.items())
    ]


def images(record: Record, drift: float, scatter: float, seed: int) -> Record:
    """The record with 32 images whose drifts scatter by so much around a mean that is exactly `drift`."""
    values = np.exp(np.random.default_rng(seed).normal(0, scatter, 32))
    values *= drift / values.mean()
    return with_drifts(record, values.tolist())


def with_drifts(record: Record, drifts: list[float]) -> Record:
    """The record with other drifts of its images."""
    assert record.quality is not None
    return record.model_copy(
        update={"quality": record.quality.model_copy(update={"drift_per_image": drifts})}
    )


def found(records: list[Record], measure: str = "seconds", against: str = "any solver") -> Comparison:
    (one,) = [c for c in comparisons(records, DRIFT) if (c.measure, c.against) == (measure, against)]
    return one


OURS = {0.01: 2.0, 0.04: 4.0}
THEIRS = {0.01: 1.0001, 0.04: 2.0002}


def test_a_front_is_interpolated_on_logarithms() -> None:
    """Between two configurations the speed is log-log, what is dominated counts nothing, and outside the
    front's ends the speed stays."""
    drift, speed = np.array([0.01, 0.04, 0.02]), np.array([2.0, 4.0, 1.5])
    at = front(drift, speed, np.array([0.001, 0.01, 0.02, 0.04, 1.0]))
    assert at == pytest.approx([2.0, 2.0, 2 * np.sqrt(2), 4.0, 4.0])


def test_the_ratio_of_two_known_fronts() -> None:
    """Where one front is twice as fast everywhere the ratio is 2 everywhere, within a band that holds it."""
    curve = found(sweep("a", "dqar", OURS) + sweep("b", "fora", THEIRS)).curve
    assert curve.ratio == pytest.approx(2.0, rel=0.02)
    assert (curve.low <= curve.ratio).all() and (curve.ratio <= curve.high).all()


def test_a_near_miss_of_a_level_counts() -> None:
    """A competitor that drifts by a hair more than another is compared where it is, not left out: the
    ratio changes by that hair, not by the step to the next slower one."""
    ours = sweep("a", "dqar", {0.0550: 3.0, 0.056: 3.05})
    theirs = {0.03: 1.2, 0.0550: 2.5}
    missed = {0.03: 1.2, 0.0554: 2.5}
    ratios = [found(ours + sweep("b", "fora", side)).at(0.0554)[0] for side in (theirs, missed)]
    assert ratios[0] == pytest.approx(ratios[1], rel=0.03)


def test_the_range_is_what_both_reach() -> None:
    """It begins where the second side begins and ends at the drift of the fastest of all; there the side
    whose fastest drifts less stays at that speed."""
    ours, theirs = sweep("a", "dqar", OURS), sweep("b", "fora", {0.02: 1.5, 0.16: 8.0})
    curve = found(ours + theirs).curve
    assert (curve.drift[0], curve.drift[-1]) == pytest.approx((0.02, 0.16))
    assert curve.ratio[-1] == pytest.approx(0.5, rel=0.02)


def test_a_goal_must_hold_on_the_whole_range() -> None:
    """It is met where the band's lower edge reaches it everywhere; where not, the range is named in which
    it does not, with the lowest edge."""
    ours = sweep("a", "dqar", OURS)
    met = found(ours + sweep("b", "fora", THEIRS))
    assert met.met and not met.missed
    partly = found(ours + sweep("b", "fora", {0.01: 1.0001, 0.04: 3.8}))
    (span,) = partly.missed
    assert not partly.met and span.stop == pytest.approx(0.04) and 0.015 < span.start < 0.04
    assert span.lowest == pytest.approx(4.0 / 3.8, rel=0.05)


def test_the_edge_is_judged_between_two_drifts() -> None:
    """Of a front that is 2 times as fast at 0.01 and as fast at 0.16, the edge reaches 1.15 up to a drift and
    not beyond; its share is by the logarithm of drift, and outside the bounds nothing counts."""
    ours = sweep("a", "dqar", {0.01: 2.0, 0.16: 4.0})
    comparison = found(ours + sweep("b", "fora", {0.01: 1.0001, 0.16: 4.0}))
    edge = comparison.edge(1.15, (0.02, 0.15))
    assert edge is not None
    (reached,), (missed,) = edge.reached, edge.missed
    assert (
        0.02 <= edge.start == reached.start < reached.stop < missed.start < missed.stop == edge.stop <= 0.15
    )
    # The ratio is 2 at 0.01 and falls log-log to 1 at 0.16: to 1.15 at 0.16 / 1.15 ** 4; its edge before.
    assert 0.5 * 0.16 / 1.15**4 < reached.stop < 0.16 / 1.15**4
    whole = np.log(missed.stop / reached.start)
    assert edge.share == pytest.approx(np.log(reached.stop / reached.start) / whole, abs=0.05)
    assert missed.lowest < 1.1 < 1.15 <= reached.lowest
    assert comparison.edge(1.15, (0.3, 0.4)) is None


def test_the_first_lines_state_where_the_edge_is_above_the_goals() -> None:
    """Each measure of speed has a line with the spans that reach the goal and those that do not, and
    the share that reaches the higher one."""
    ours = sweep("a", "dqar", {0.01: 2.0, 0.16: 4.0})
    theirs = sweep("b", "fora", {0.01: 1.0001, 0.16: 4.0}) + sweep("c", "pab", {0.02: 1.01})
    fronts = compare(ours + theirs + sweep("d", "taylorseer", {0.02: 1.01}))
    assert fronts is not None
    seconds, flops = lead(fronts)
    assert "seconds:**" in seconds and "FLOPs:**" in flops
    shown = re.search(
        r"1\.15. or more from ([\d.]+) to ([\d.]+); below 1\.15. from ([\d.]+) to ([\d.]+) "
        r"\(down to ([\d.]+).\); 1\.3. or more on (\d+) % of it \(goal: half; (met|not met)\)",
        seconds,
    )
    assert shown is not None
    start, stop, again, end, lowest, share = map(float, shown.groups()[:-1])
    assert 0.02 <= start < stop < again < end <= 0.15 and lowest < 1.1
    assert (share >= 50) == (shown[7] == "met")


def test_the_geometric_mean_is_not_decided_by_one_image() -> None:
    """Where one image of DQAR's ends elsewhere, it loses the lead by mean drift and keeps it by the geometric
    mean; the first lines have both."""
    ours = [images(r, d, 0.05, 3) for r, d in zip(sweep("a", "dqar", OURS), OURS, strict=True)]
    theirs = [images(r, d, 0.05, 3) for r, d in zip(sweep("b", "fora", THEIRS), THEIRS, strict=True)]
    more = [images(r, 0.02, 0.05, 3) for m in ("pab", "taylorseer") for r in sweep(m, m, {0.02: 1.01})]
    forked = [with_drifts(r, [*r.quality.drift_per_image[:-1], 3.0]) for r in ours if r.quality]
    by_mean, geometric = (
        next(c for c in compared if c.against == "any solver")
        for compared in (
            comparisons(forked + theirs, DRIFT),
            comparisons(forked + theirs, DRIFT, "geometric mean"),
        )
    )
    assert by_mean.curve.ratio[0] < 1.2 < 1.5 < geometric.at(0.02)[0]
    fronts = compare(forked + theirs + more)
    assert fronts is not None
    lines = lead(replace(fronts, fronts=fronts.fronts[:1]))
    averages = [line.split(", ")[1].split(" ")[0] for line in lines]
    assert averages == ["mean", "mean", "geometric", "geometric"]


def test_no_geometric_mean_without_single_images() -> None:
    """Where drifts of single images were not recorded there is no geometric mean to compare by."""
    both = [with_drifts(record, []) for record in sweep("a", "dqar", OURS) + sweep("b", "fora", THEIRS)]
    assert comparisons(both, DRIFT) and not comparisons(both, DRIFT, "geometric mean")


def test_timing_pairs_widen_the_band() -> None:
    """Where the timing pairs scatter more, so does the band."""
    steady, noisy = (
        found(sweep("a", "dqar", OURS, scatter) + sweep("b", "fora", THEIRS)) for scatter in (0.005, 0.1)
    )
    assert width(noisy) > 2 * width(steady)


def width(comparison: Comparison) -> float:
    curve = comparison.curve
    return float(np.mean(curve.high / curve.low)) - 1


def test_images_widen_the_band() -> None:
    """Where the images' drifts scatter more, so does the band; the ratio itself stays."""
    curves = []
    for scatter in (0.05, 1.0):
        ours = [
            images(r, d, scatter, i)
            for i, (r, d) in enumerate(zip(sweep("a", "dqar", OURS), OURS, strict=True))
        ]
        theirs = [images(r, d, scatter, 9) for r, d in zip(sweep("b", "fora", THEIRS), THEIRS, strict=True)]
        curves.append(found(ours + theirs))
    assert all(curve.per_image for curve in curves)
    assert width(curves[1]) > 1.5 * width(curves[0])
    assert curves[1].curve.ratio == pytest.approx(curves[0].curve.ratio, rel=1e-6)


def test_flops_have_their_own_curve() -> None:
    """By FLOPs the speed is the one that counted FLOPs allow, without any timing noise."""
    by = found(sweep("a", "dqar", OURS, 0.1) + sweep("b", "fora", THEIRS, 0.1), "FLOPs").curve
    limits = [1.02 + (speed - 1) * 1.12 for speed in (2.0, 1.0001)]
    assert by.ratio[0] == pytest.approx(limits[0] / limits[1])


def test_solvers_are_compared_separately() -> None:
    """A competitor on another solver counts on any solver alone."""
    ours, usual = sweep("a", "dqar", OURS), sweep("b", "fora", THEIRS)
    other = [configuration("c", "pab", 3.9, 0.01, "dpm", timing=paired(3.9, 1, 0.005))]
    both = [
        found(ours + usual + other, against=a).curve.ratio[0] for a in ("the baseline's solver", "any solver")
    ]
    assert both == pytest.approx([2.0, 2.0 / 3.9], rel=0.03)


def test_nothing_is_compared_with_nothing() -> None:
    """Without competitors faster than the baseline, or without DQAR, there is no curve."""
    assert comparisons(sweep("a", "dqar", OURS), DRIFT) == []
    slow = sweep("b", "fora", {0.01: 0.9})
    assert [c for c in comparisons(sweep("a", "dqar", OURS) + slow, DRIFT) if c.measure == "seconds"] == []
    assert comparisons(sweep("b", "fora", THEIRS), DRIFT) == []
