"""The fronts: who is fastest at each drift, and what the page shows of it."""

from __future__ import annotations

import re
from itertools import combinations
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from many import OWN, configuration, records
from matplotlib.text import Annotation
from report_records import made, quality, stored, written

from bench.record import Mean, Record
from bench.report.pareto import MAX_DRAWN, Front, Fronts, Level, compare, drawn
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
        configuration("dqar-low", "dqar", 2.0, 0.018),
        configuration("dqar-lowest", "dqar", 1.9, 0.012),
        configuration("dqar-high", "dqar", 3.0, 0.060, "dpm"),
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
    return next(level for level in front.levels if level.drift == drift)


def names(*found: Record | None) -> list[str | None]:
    return [record.name if record else None for record in found]


@pytest.fixture(scope="module")
def found() -> list[Record]:
    return records()


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, found: list[Record]) -> Path:
    return stored(found, tmp_path_factory.mktemp("results") / "front" / "machine")


@pytest.fixture(scope="module")
def report(found: list[Record], results: Path) -> Path:
    return written(found, results, results.parents[2] / "reports" / "front")


def test_fastest_within_a_level_wins() -> None:
    """At each level the fastest whose mean drift is no greater counts, the level itself included."""
    front = compared(few()).fronts[0]
    firsts = names(*[level.first for level in front.levels[:6]])
    assert firsts == [None, "dqar-low", "dpm-20", "dpm-20", "dqar-high", "dqar-high"]
    on_the_line = configuration("dbcache-line", "dbcache", 2.2, 0.02)
    level = at(compared([*few(), on_the_line]).fronts[0], 0.02)
    assert names(level.first, level.second) == ["dbcache-line", "dqar-low"]


def test_runner_up_is_of_another_method() -> None:
    """The runner-up is the fastest of another method, even where others of the winner's are faster."""
    front = compared(few()).fronts[0]
    assert names(at(front, 0.02).first, at(front, 0.02).second) == ["dqar-low", "taylor-3"]
    assert names(at(front, 0.035).first, at(front, 0.035).second) == ["dpm-20", "dqar-low"]


def test_competitors_are_separated_by_solver() -> None:
    """A competitor on another solver counts on any solver only; one that names the baseline's, on both."""
    level = at(compared(few()).fronts[0], 0.035)
    assert names(level.ours, level.usual, level.any) == ["dqar-low", "taylor-3", "dpm-20"]
    ddim = configuration("ddim-15", "fewer_steps", 2.6, 0.03)
    ddim = ddim.model_copy(update={"config": ddim.config | {"options": {"scheduler": "ddim", "steps": 15}}})
    assert names(at(compared([*few(), ddim]).fronts[0], 0.035).usual) == ["ddim-15"]


def test_slower_than_the_baseline_is_no_choice() -> None:
    """What is slower than the untouched baseline is the fastest at no level."""
    slow = configuration("slow", "pab", 0.9, 0.005)
    assert at(compared([*few(), slow]).fronts[0], 0.01).first is None


def test_marks_show_who_is_on_which_front() -> None:
    """A configuration is on a front where nothing is as fast and loses as little, on each axis alone."""
    lost = quality("odd", 0.2, OWN, drift_converged=Mean(mean=0.01, low=0.009, high=0.011))
    odd = configuration("odd", "pab", 1.7, 0.2, "dpm", quality=lost)
    frame = front_table(compared([*few(), odd])).frame.set_index("name")
    on_a = set(frame.index[frame.front_a == "yes"])
    assert on_a == {"baseline", "dqar-low", "dqar-lowest", "dpm-20", "dqar-high"}
    assert (frame.front_a["odd"], frame.front_b["odd"]) == ("no", "yes")
    assert frame.front_b["dqar-lowest"] == "yes" and frame.front_b["taylor-4"] == "no"


def test_front_table_knows_solver_steps_and_share_of_limit() -> None:
    """Each configuration has its own solver and steps, and its speedup as a share of what FLOPs allow."""
    table = front_table(compared(few()))
    row = table.frame.set_index("name").loc["dqar-high"]
    assert (row.solver, row.steps) == ("dpm_solver++", 25)
    assert row.of_limit_percent == pytest.approx(100 * row.speedup / row.limit)
    assert list(table.frame.speedup) == sorted(table.frame.speedup, reverse=True)


def test_other_baselines_are_not_compared() -> None:
    """A speedup over the compiled baseline competes with none over the eager one, and is named."""
    quick = configuration("compiled", "dqar", 9.0, 0.001)
    assert quick.timing is not None
    timing = quick.timing.model_copy(update={"baseline": "compiled"})
    fronts = compared([*few(), quick.model_copy(update={"timing": timing})])
    assert names(at(fronts.fronts[0], 0.02).first) == ["dqar-low"]
    assert re.findall("`(.+?)`", pareto.verdicts(fronts)[-1]) == ["compiled"]


def test_who_is_on_a_front_is_counted() -> None:
    """The text counts DQAR's configurations on a front and names the competitors'."""
    lines = [line for line in pareto.verdicts(compared(few())) if line.startswith("**On front (a)")]
    assert [int(n) for n in re.findall(r"(\d) of", lines[0])] == [3, 1] and "`dpm-20`" in lines[0]


def test_few_methods_have_no_front(tmp_path: Path, undrawn: None) -> None:
    """A suite of one method and fewer steps has the plain plot, and neither fronts nor their text."""
    kept = [record for record in few() if record.method != "taylorseer"]
    assert compare(kept) is None
    text = written(kept, tmp_path, tmp_path / "out").read_text()
    assert "(pareto.webp)" in text and "front" not in text.replace("Pareto front", "")
    assert not list((tmp_path / "out").glob("front*"))


def test_solver_is_shown_only_where_it_differs() -> None:
    """The full table has a solver for every configuration as soon as two solvers occur."""
    table = main_table(few())
    assert "solver" in [column.key for column in table.shown()]
    assert table.frame.set_index("name").solver["taylor-3"] == "ddim"
    alike = [record for record in few() if not record.config["options"]]
    assert "solver" not in [column.key for column in main_table(alike).shown()]


@pytest.mark.slow
def test_same_records_same_bytes(found: list[Record], results: Path, report: Path) -> None:
    """Rendering the same hundred records again gives the same Markdown, tables and images."""
    again = written(found, results, results.parents[2] / "reports" / "again").parent
    first = {path.name: path.read_bytes() for path in report.parent.iterdir()}
    assert first == {path.name: path.read_bytes() for path in again.iterdir()}


@pytest.mark.slow
def test_report_of_many_stays_legible(found: list[Record], report: Path) -> None:
    """Of a hundred configurations the row-by-row plots show a few, which the text names, and the two
    fronts stand in place of the plain plot, after the summary."""
    text = report.read_text()
    assert text.index("**Summary:**") < text.index("(front-baseline.webp)")
    assert "(front-converged.webp)" in text and "pareto.webp" not in text
    found_few = re.search(
        rf"show (\d+) of {len(found)} configurations[^(]*\(and the control\).*?\((`.*?)\)\.", text, re.S
    )
    assert found_few is not None
    chosen = re.findall("`(.*?)`", found_few[2])
    assert len(chosen) == int(found_few[1]) <= MAX_DRAWN and any(
        not name.startswith("dqar") for name in chosen
    )
    assert max(path.stat().st_size for path in report.parent.glob("*.webp")) < 200_000
    links = re.findall(r"\]\(([^)#]+)\)", text)
    assert not [link for link in links if not (report.parent / link).exists()]


@pytest.mark.slow
def test_the_long_table_stands_once(found: list[Record], report: Path) -> None:
    """A row a configuration stands once above the details of options and limits, collapsed; the fronts'
    table shows those on a front, and its CSV has all."""
    shown = report.read_text().split("### Configurations on a front")[1].split("## How to read it")[0]
    on = {
        p.record.name for front in compared(found).fronts for p in front.points if p.record.name in front.on
    }
    rows = [line.split(" | ")[0].strip("| ") for line in shown.splitlines() if line.startswith("| ")][2:]
    assert set(rows) == on and len(pd.read_csv(report.parent / "front.csv")) == len(found)
    main = report.read_text().split("## All metrics")[1].split("[configurations.csv]")[0]
    assert f"<details><summary>{len(found)} rows</summary>" in main


def test_suites_of_high_drift_draw_what_is_on_a_front() -> None:
    """Where nothing keeps to any level, what is drawn one by one is on a front, next to the control."""
    rough = [configuration(f"{m}-9", m, 2.0, 0.5 + 0.1 * i) for i, m in enumerate(("dqar", "pab", "fora"))]
    assert {record.name for record in drawn(compared([baseline(), *rough]))} == {"baseline", "dqar-9"}


@pytest.mark.slow
def test_levels_in_the_report_are_those_of_the_csv(found: list[Record], report: Path) -> None:
    """The Markdown table of an axis is its CSV, rounded."""
    for front in compared(found).fronts:
        table = levels_table(front)
        read = pd.read_csv(report.parent / f"{front.axis.name}.csv")
        assert list(read.first_name.dropna()) == list(table.frame.first_name.dropna())
        assert table.markdown() in report.read_text()


@pytest.mark.everyday("")
@pytest.mark.parametrize("suffix", ["", "-with-a-name-that-is-far-too-long-to-stand-next-to-its-point"])
def test_names_on_the_front_do_not_overlap(found: list[Record], suffix: str) -> None:
    """Each configuration on the front has a label of its own that covers no other; long names become
    numbers, with the names next to the plot."""
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
