"""The fronts: who is fastest at each drift, by how much, and whether the goals were met."""

# ruff: noqa: RUF001 - the sign × is meant

from __future__ import annotations

import re
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from many import OWN, configuration, paired, records
from matplotlib.text import Annotation
from test_report import COMMAND, made, quality, stored

from bench.record import Mean, Record
from bench.report.page import write_report
from bench.report.pareto import DRAWN, Duel, Front, Fronts, Level, compare, drawn
from bench.report.plots.pareto import plot
from bench.report.plots.style import style
from bench.report.tables.pareto import front_table, levels_table
from bench.report.tables.runs import main_table
from bench.report.text import pareto


def baseline(**changes: Any) -> Record:
    return made("baseline", "baseline", 1.0, 0.0, quality=quality("baseline", 0.0, OWN), **changes)


def few() -> list[Record]:
    """Of three methods, and by hand: what is where can be read off."""
    return [
        baseline(),
        configuration("dqar-mild", "dqar", 2.0, 0.018),
        configuration("dqar-milder", "dqar", 1.9, 0.012),
        configuration("dqar-rough", "dqar", 3.0, 0.060, "dpm"),
        configuration("ddim-25", "fewer_steps", 1.6, 0.019),
        configuration("dpm-20", "fewer_steps", 2.5, 0.034, "dpm"),
        configuration("taylor-3", "taylorseer", 1.7, 0.020),
        configuration("taylor-4", "taylorseer", 1.5, 0.033),
    ]


def compared(found: list[Record]) -> Fronts:
    fronts = compare(found)
    assert fronts is not None
    return fronts


def at(front: Front, drift: float) -> Level:
    return next(level for level in front.asked if level.drift == drift)


def names(*duels: Duel) -> list[tuple[str | None, str | None]]:
    return [(duel.first and duel.first.name, duel.second and duel.second.name) for duel in duels]


@pytest.fixture(scope="module")
def found() -> list[Record]:
    return records()


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, found: list[Record]) -> Path:
    return stored(found, tmp_path_factory.mktemp("results") / "front" / "machine")


@pytest.fixture(scope="module")
def report(found: list[Record], results: Path) -> Path:
    return write_report(found, results, results.parents[2] / "reports" / "front", COMMAND)


def test_fastest_within_a_level_wins() -> None:
    """At each level the fastest whose mean drift is no greater counts, the level itself included."""
    front = compared(few()).fronts[0]
    firsts = [level.lead.first and level.lead.first.name for level in front.asked]
    assert firsts == [None, "dqar-mild", "dpm-20", "dpm-20", "dqar-rough", "dqar-rough"]
    on_the_line = configuration("dbcache-line", "dbcache", 2.2, 0.02)
    assert names(at(compared([*few(), on_the_line]).fronts[0], 0.02).lead) == [("dbcache-line", "dqar-mild")]


def test_runner_up_is_of_another_method() -> None:
    """The runner-up is the fastest of another method, even where the winner's own kin are faster."""
    front = compared(few()).fronts[0]
    assert names(at(front, 0.02).lead) == [("dqar-mild", "taylor-3")]
    assert names(at(front, 0.035).lead) == [("dpm-20", "dqar-mild")]


def test_competitors_are_told_apart_by_solver() -> None:
    """A competitor on another solver counts on any solver only; one that names the baseline's, on both."""
    level = at(compared(few()).fronts[0], 0.035)
    assert names(level.usual, level.any) == [("dqar-mild", "taylor-3"), ("dqar-mild", "dpm-20")]
    ddim = configuration("ddim-15", "fewer_steps", 2.6, 0.03)
    ddim = ddim.model_copy(update={"config": ddim.config | {"options": {"scheduler": "ddim", "steps": 15}}})
    assert names(at(compared([*few(), ddim]).fronts[0], 0.035).usual) == [("dqar-mild", "ddim-15")]


def test_ratio_has_the_interval_of_both_samples() -> None:
    """The ratio of two speedups is that of the medians of their calm pairs, and its interval holds the
    truth, wider where either sample scatters more."""
    timings = [paired(3.0, 1, 0.02), paired(2.0, 2, 0.02)]
    noisy = timings[0].model_copy(update={"pairs": [(2.0, 20.0), *timings[0].pairs], "disturbed": [0]})

    def ratio(first: Any, second: Any) -> Any:
        fast = configuration("fast", "dqar", 3.0, 0.03, timing=first)
        slow = configuration("slow", "taylorseer", 2.0, 0.03, timing=second)
        return at(compared([*few(), fast, slow]).fronts[0], 0.035).usual.ratio

    calm = ratio(*timings)
    medians = [float(np.median([b / c for b, c in timing.pairs])) for timing in timings]
    assert calm.median == pytest.approx(medians[0] / medians[1])
    assert calm.low < 1.5 < calm.high
    assert ratio(noisy, timings[1]) == calm
    loose = ratio(timings[0], paired(2.0, 2, 0.2))
    assert loose.high - loose.low > 2 * (calm.high - calm.low)


@pytest.mark.parametrize(
    ("speed", "scatter", "verdict"),
    [(3.2, 0.01, "met"), (2.6, 0.08, "unclear"), (2.2, 0.01, "missed"), (1.5, 0.01, "missed")],
)
def test_goal_needs_the_whole_interval(speed: float, scatter: float, verdict: str) -> None:
    """The goal of 1.3 is met by an interval above it, missed by one below, and unclear between."""
    fast = configuration("fast", "dqar", speed, 0.03, timing=paired(speed, 1, scatter))
    slow = configuration("slow", "taylorseer", 2.0, 0.03, timing=paired(2.0, 2, scatter))
    kin = [configuration(f"other-{method}", method, 1.1, 0.03) for method in ("pab", "fora")]
    assert at(compared([baseline(), fast, slow, *kin]).fronts[0], 0.035).usual.verdict == verdict


@pytest.mark.parametrize(
    ("name", "method", "speed", "verdict"),
    [
        ("alone", "dqar", 1.6, "met"),
        ("alone-but-slow", "dqar", 1.1, "missed"),
        ("rival", "pab", 1.2, "missed"),
        ("slower-than-nothing", "pab", 0.9, "nobody"),
    ],
)
def test_without_a_rival_the_baseline_stands_in(name: str, method: str, speed: float, verdict: str) -> None:
    """Alone at a level DQAR must still be so much faster than the baseline; where only competitors are
    it missed the goal; and what is slower than the baseline is nobody."""
    one = configuration(name, method, speed, 0.005, timing=paired(speed, 1, 0.01))
    assert at(compared([*few(), one]).fronts[0], 0.01).usual.verdict == verdict


def test_marks_tell_who_is_on_which_front() -> None:
    """A configuration is on a front where nothing is as fast and loses as little, on each axis alone."""
    lost = quality("odd", 0.2, OWN, drift_converged=Mean(mean=0.01, low=0.009, high=0.011))
    odd = configuration("odd", "pab", 1.7, 0.2, "dpm", quality=lost)
    frame = front_table(compared([*few(), odd])).frame.set_index("name")
    on_a = set(frame.index[frame.front_a == "yes"])
    assert on_a == {"baseline", "dqar-mild", "dqar-milder", "dpm-20", "dqar-rough"}
    assert (frame.front_a["odd"], frame.front_b["odd"]) == ("no", "yes")
    assert frame.front_b["dqar-milder"] == "yes" and frame.front_b["taylor-4"] == "no"


def test_front_table_knows_solver_steps_and_share_of_limit() -> None:
    """Each configuration has its own solver and steps, and its speedup as a share of what FLOPs allow."""
    table = front_table(compared(few()))
    row = table.frame.set_index("name").loc["dqar-rough"]
    assert (row.solver, row.steps) == ("dpm_solver++", 25)
    assert row.of_limit_percent == pytest.approx(100 * row.speedup / row.limit)
    assert list(table.frame.speedup) == sorted(table.frame.speedup, reverse=True)


def test_baselines_own_drift_is_a_level() -> None:
    """On the converged axis the upper end of the baseline's own interval is a level too, asked of no
    goal, and what lies within it is marked."""
    fronts = compared(few())
    converged = fronts.fronts[1]
    own = next(level for level in converged.levels if level.own)
    assert own.drift == pytest.approx(1.1 * OWN) and own not in converged.asked
    assert not any(level.own for level in fronts.fronts[0].levels)
    cells = levels_table(converged).rows()
    assert any("the baseline's own" in row[0] and "`dpm-20`° 2." in row[1] for row in cells)
    assert all("`dqar-rough`°" not in cell for row in cells for cell in row)


def test_other_baselines_are_not_compared() -> None:
    """A speedup over the compiled baseline competes with none over the eager one, and is named."""
    quick = configuration("compiled", "dqar", 9.0, 0.001)
    assert quick.timing is not None
    timing = quick.timing.model_copy(update={"baseline": "compiled"})
    fronts = compared([*few(), quick.model_copy(update={"timing": timing})])
    assert names(at(fronts.fronts[0], 0.02).lead) == [("dqar-mild", "taylor-3")]
    assert "another baseline: `compiled`" in pareto.verdict(fronts)[-1]


def test_verdict_counts_and_says_who_is_ahead() -> None:
    """The words count the levels where a goal was met, and name who is ahead elsewhere and by how much."""
    fronts = compared(few())
    usual, any_solver, *_ = pareto.verdict(fronts)
    ratio = at(fronts.fronts[0], 0.02).usual.ratio
    assert ratio is not None
    assert "at 2 of the 5 levels reached (nobody reaches 0.01)" in usual
    assert f"that of `taylor-3` (taylorseer), {1.3 - ratio.median:.2f} short;" in usual
    behind = r"at 0.035: 0\.\d+× \[[^]]*\] that of `dpm-20` \(fewer_steps\), 0\.\d+ short and behind"
    assert re.search(behind, any_solver)


def test_verdict_follows_the_records() -> None:
    """With DQAR twice as fast the same words report every goal met, and no competitor on the front."""
    better = [
        configuration(r.name, r.method, 6.0, 0.009, "ddim") if r.name == "dqar-mild" else r for r in few()
    ]
    lines = pareto.verdict(compared(better))
    assert all("at 6 of the 6 levels" in line and "short" not in line for line in lines[:2])
    assert "1 of DQAR's configurations and no competitor's" in lines[4]


def test_sentence_names_the_fastest_that_lost_nothing() -> None:
    """The one sentence is about the fastest within the baseline's own drift, its lead, and DQAR's place."""
    text = pareto.sentence(compared(few()), "a test")
    assert "the fastest is `dpm-20` (fewer_steps) at 2." in text and "that of `dqar-mild` (dqar)" in text
    rough = [r for r in few() if r.name in ("baseline", "dqar-rough")]
    rough += [configuration(f"{method}-9", method, 3.5, 0.09) for method in ("pab", "fora")]
    text = pareto.sentence(compared(rough), "a test")
    assert (
        "none has a mean drift from the converged trajectory of at most" in text and "of at most 0.07" in text
    )


def test_few_methods_have_no_front(tmp_path: Path) -> None:
    """A suite of one method and fewer steps has the plain plot, and neither front nor its words."""
    kept = [record for record in few() if record.method != "taylorseer"]
    assert compare(kept) is None
    text = write_report(kept, tmp_path, tmp_path / "out", COMMAND).read_text()
    assert "(pareto.png)" in text and "front" not in text.replace("Pareto front", "")
    assert not list((tmp_path / "out").glob("front*"))


def test_solver_is_shown_only_where_it_differs() -> None:
    """The full table has a solver for every configuration as soon as two solvers occur."""
    table = main_table(few())
    assert "solver" in [column.key for column in table.shown()]
    assert table.frame.set_index("name").solver["taylor-3"] == "ddim"
    alike = [record for record in few() if not record.config["options"]]
    assert "solver" not in [column.key for column in main_table(alike).shown()]


def test_same_records_same_bytes(found: list[Record], results: Path, report: Path) -> None:
    """Rendering the same hundred records again gives the same Markdown, tables and pictures."""
    again = write_report(found, results, results.parents[2] / "reports" / "again", COMMAND).parent
    first = {path.name: path.read_bytes() for path in report.parent.iterdir()}
    assert first == {path.name: path.read_bytes() for path in again.iterdir()}


def test_report_of_many_stays_legible(found: list[Record], report: Path) -> None:
    """Of a hundred configurations the row-by-row plots show a few, which the text names, and the two
    fronts stand in place of the plain plot, after the sentence."""
    text = report.read_text()
    assert text.index("**In one sentence:**") < text.index("(front-baseline.png)")
    assert "(front-converged.png)" in text and "pareto.png" not in text
    said = re.search(
        rf"show (\d+) of {len(found)} configurations[^(]*\(and the control\).*?\((`.*?)\)\.", text, re.S
    )
    assert said is not None
    chosen = re.findall("`(.*?)`", said[2])
    assert len(chosen) == int(said[1]) <= DRAWN and any(not name.startswith("dqar") for name in chosen)
    assert max(path.stat().st_size for path in report.parent.glob("*.png")) < 200_000
    links = re.findall(r"\]\(([^)#]+)\)", text)
    assert not [link for link in links if not (report.parent / link).exists()]


def test_rough_suites_draw_what_is_on_a_front() -> None:
    """Where nothing keeps to any level, what is drawn one by one is on a front, beside the control."""
    rough = [configuration(f"{m}-9", m, 2.0, 0.5 + 0.1 * i) for i, m in enumerate(("dqar", "pab", "fora"))]
    assert {record.name for record in drawn(compared([baseline(), *rough]))} == {"baseline", "dqar-9"}


def test_levels_in_the_report_are_those_of_the_csv(found: list[Record], report: Path) -> None:
    """The Markdown table of an axis is its CSV, rounded."""
    for front in compared(found).fronts:
        table = levels_table(front)
        read = pd.read_csv(report.parent / f"{front.axis.name}.csv")
        assert list(read.first_name.dropna()) == list(table.frame.first_name.dropna())
        assert table.markdown() in report.read_text()


@pytest.mark.parametrize("suffix", ["", "-with-a-name-that-is-far-too-long-to-stand-beside-its-point"])
def test_names_on_the_front_do_not_overlap(found: list[Record], suffix: str) -> None:
    """Each configuration on the front has a label of its own that covers no other; long names become
    numbers, with the names beside the plot."""
    renamed = [record.model_copy(update={"name": record.name + suffix}) for record in found]
    front = compared(renamed).fronts[0]
    with style():
        figure = plot(front, None)
        figure.canvas.draw()
        notes = [text for text in figure.axes[0].texts if isinstance(text, Annotation)]
        boxes = [super(Annotation, note).get_window_extent() for note in notes]
    assert len(notes) == len([name for name in front.on if name != f"baseline{suffix}"])
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))
    assert all(note.get_text().isdigit() for note in notes) == bool(suffix)
