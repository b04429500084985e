"""The study of generality: plans moved to other schedules, and a page on where the models disagree."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from bench.cli.main import app
from bench.studies.generality import analysis, report
from bench.studies.generality.report import headline, write_report
from bench.studies.generality.rows import load, save
from bench.studies.generality.setting import SETTINGS, plan_file
from bench.studies.generality.transfer import by_log_snr, by_share
from dqar.plan import CONDITIONAL, log_snr
from dqar.policy.saved_plan import SavedPlan


def plan(branches: str, layers: int = 3) -> SavedPlan:
    """A plan of these branches whose last step that runs reuses its first layer."""
    reuse = np.zeros((len(branches), layers), dtype=np.bool_)
    reuse[max(i for i, mark in enumerate(branches) if mark != "0"), 0] = True
    return SavedPlan(reuse, np.array(list(map(int, branches)), dtype=np.int8))


@pytest.fixture
def snr() -> Any:
    """A schedule of so many steps between the same ends."""
    return lambda steps: np.exp(np.linspace(-8, 6, steps))


def test_on_its_own_schedule_a_plan_stays_as_it_is(snr: Any) -> None:
    """Every step's nearest log-SNR is its own: steps, branches and reused layers stay."""
    given = plan("2201020012")
    moved = by_log_snr(given, snr(10), snr(10), 3)
    assert np.array_equal(moved.branches, given.branches) and np.array_equal(moved.reuse, given.reuse)


@pytest.mark.parametrize("steps", [7, 10, 25])
def test_a_moved_plan_runs_as_often_at_the_nearest_log_snr(snr: Any, steps: int) -> None:
    """As many steps run, with their branches, each within half a step of where it was, the first first."""
    given = plan("2201020002")
    moved = by_log_snr(given, snr(10), snr(steps), 3)
    assert moved.branches[0] == 2 and sorted(moved.branches)[-5:] == [1, 2, 2, 2, 2]
    assert np.count_nonzero(moved.branches) == 5
    here, there = (log_snr(s)[np.flatnonzero(p.branches)] for s, p in ((snr(10), given), (snr(steps), moved)))
    assert np.abs(here - there).max() <= 14 / (steps - 1)


def test_two_steps_never_become_one(snr: Any) -> None:
    """On a coarse schedule steps that are nearest to the same one take the next free; fewer steps all run."""
    moved = by_log_snr(plan("2222200000"), snr(10), snr(6), 3)
    assert np.count_nonzero(moved.branches) == 5
    assert np.count_nonzero(by_log_snr(plan("2222222222"), snr(10), snr(4), 3).branches) == 4


def test_a_plan_of_another_depth_keeps_its_steps_alone(snr: Any) -> None:
    """Layers of another model are other layers: nothing of them is reused."""
    moved = by_log_snr(plan("2202"), snr(4), snr(4), 5)
    assert moved.reuse.shape == (4, 5) and not moved.reuse.any()
    assert list(moved.branches) == [2, 2, 0, 2]


def test_shares_and_log_snr_differ_where_spacing_is_uneven() -> None:
    """Of a schedule that is dense at its end, the same share of steps is another log-SNR."""
    uneven = np.exp(-8 + 14 * np.linspace(0, 1, 20) ** 0.3)
    given = plan("2000200002")
    by_snr = by_log_snr(given, np.exp(np.linspace(-8, 6, 10)), uneven, 3).branches
    assert not np.array_equal(by_snr, by_share(given, 20, 3).branches)
    assert list(np.flatnonzero(by_share(given, 19, 3).branches)) == [0, 8, 18]
    assert CONDITIONAL not in by_snr


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=list(SETTINGS))
def test_the_plans_of_a_setting_are_for_its_schedule(setting: Any) -> None:
    """Each ships, has the steps of the setting, and skips some of them."""
    for name in setting.plans.values():
        loaded = SavedPlan.load(plan_file(name))
        assert len(loaded.branches) == setting.plan_steps
        assert 0 in loaded.branches


def data(model: str, worse: float = 1.0) -> dict[str, Any]:
    """Made-up measurements: skipped steps drift `worse` times what fewer steps do."""
    rng = np.random.default_rng(0)
    base = 0.1 + 0.01 * rng.random(24)

    def run(name: str, factor: float, condition: str = "home", **facts: str) -> dict[str, Any]:
        drifts = (base * factor * (1 + 0.01 * rng.random(24))).tolist()
        return {
            "name": name, "condition": condition, "evaluations": 10.0, "drifts": drifts, "flops": 0.5,
            "facts": facts,
        }  # fmt: skip

    runs = [run("baseline", 1.0), run("recommended", 1.5), run("maximum, age 2", 1.6)]
    for steps in (14, 10):
        runs += [run(f"spread {steps}", 2 * worse), run(f"fewer {steps}", 2.5)]
        runs += [run(f"spread {steps}, over {axis}", 3.0) for axis in ("log-SNR", "steps")]
    runs += [run("DPM spread 10", 2.0), run("DPM fewer 10", 2.5)]
    for condition in ("home", "guidance", "prompts", "steps", "solver"):
        if condition == "prompts" and model == "a":
            continue
        runs.append(run("plain spread 10", 2.0, condition))
        for made_for in ("a", "b"):
            runs.append(
                run(made_for, 1.5 if made_for == model else 2.5, condition, compared_with="plain spread 10")
            )
        runs.append(run(f"{model}, by share of steps", 1.8, condition, compared_with="plain spread 10"))
    facts = {
        "model": model, "steps": 28, "plan_steps": 28, "other_steps": 40, "images": 24, "layers": 7,
        "guidance": 4.0, "other_guidance": 2.0, "prompts": None, "other_prompts": None,
        "plans": {model: "plan"}, "solver": "Euler", "converged_steps": 60, "converged_distance": 0.001,
        "checked": 2,
    }  # fmt: skip
    value = {"mean": -0.5, "low": -0.6, "high": -0.4}
    signals = [
        {"error": error, "entropy_within_step": value, "entropy_within_layer": value,
         "snr_within_layer": value, "entropy_adds": {"mean": 0.01, "low": 0.0, "high": 0.02}}
        for error in ("hold", "forecast")
    ]  # fmt: skip
    return {"facts": facts, "runs": runs, "signals": signals, "signal_images": 8}


def test_models_that_agree_are_named(tmp_path: Path) -> None:
    """The first line states that nothing differs, and the moved plans' gain is stated as such."""
    models = {"a": data("a"), "b": data("b")}
    text = write_report(models, "m", tmp_path).read_text()
    assert "none differs" in text.splitlines()[2]
    assert "beats the plain spread on images that no search saw" in text
    assert (tmp_path / "models.webp").exists() and (tmp_path / "runs.csv").exists()


def test_a_disagreement_is_in_the_first_lines(tmp_path: Path) -> None:
    """Where skipped steps lose on one model and win on the other, question and answers open the page."""
    models = {"a": data("a"), "b": data("b", worse=2.0)}
    findings = analysis.findings(models)
    (first, *_) = [each for each in findings if not each.agreed]
    assert first.verdicts == {"a": "drifts less", "b": "drifts more"}
    lines = write_report(models, "m", tmp_path).read_text().splitlines()
    assert lines[2] == f"**Summary:** {headline(findings)}" and "they disagree" in lines[2]
    opening = lines[: lines.index("## What holds on both")]
    (line,) = [line for line in opening if line.startswith(f"- {first.question}: ")]
    assert "(drifts less)" in line and "(drifts more)" in line


def test_the_plots_legend_covers_no_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both panels have a title and at least four ticks on their y-axis; the one legend lies below them."""
    drawn: list[Any] = []
    monkeypatch.setattr(report, "save", lambda figure, path: drawn.append(figure))
    report.plot({"a": data("a"), "b": data("b")}, tmp_path / "plot.webp")
    (figure,) = drawn
    figure.canvas.draw()
    (legend,) = figure.legends
    for ax in figure.axes:
        assert ax.get_title(loc="left") and ax.get_legend() is None
        low, high = ax.get_ylim()
        assert sum(low <= tick <= high for tick in ax.get_yticks()) >= 4
        assert not legend.get_window_extent().overlaps(ax.get_window_extent())


def with_default(model: str, factor: float) -> dict[str, Any]:
    """The measurements with a row of the default that drifts so many times the baseline's."""
    content = data(model)
    drifts = [factor * drift for drift in content["runs"][0]["drifts"]]
    content["runs"].append(content["runs"][1] | {"name": "balanced", "drifts": drifts})
    return content


def test_the_default_is_a_row_and_a_finding(tmp_path: Path) -> None:
    """What `dqar.enable` does without a configuration is judged against the baseline on each model."""
    models = {"a": with_default("a", 0.9), "b": with_default("b", 1.2)}
    (finding,) = [each for each in analysis.findings(models) if "balanced" in each.question]
    assert finding.verdicts == {"a": "drifts less", "b": "drifts more"}
    text = write_report(models, "m", tmp_path).read_text()
    assert text.count("\n| balanced |") == 2 and "not measured yet" not in text


def test_records_older_than_the_default_say_so(tmp_path: Path) -> None:
    """Where the row lacks on one model or on both, the page names them and judges what there is."""
    text = write_report({"a": with_default("a", 0.9), "b": data("b")}, "m", tmp_path).read_text()
    assert "preset `balanced`, is not measured yet on b." in text
    assert "| The default of dqar.enable" in text
    old = write_report({"a": data("a"), "b": data("b")}, "m", tmp_path).read_text()
    assert "not measured yet on a and b." in old and "| The default of dqar.enable" not in old


def test_one_model_alone_is_no_generality(tmp_path: Path) -> None:
    """Where only one model was measured, the page claims nothing of both."""
    text = write_report({"a": data("a")}, "m", tmp_path).read_text()
    assert "Measured on a alone" in text.splitlines()[2]
    assert "hold on both models" not in text and "disagree on nothing" not in text


def test_differences_are_paired_and_relative() -> None:
    """By how much of the other's mean a run drifts more, from the images' own differences."""
    difference = analysis.difference({"drifts": [1.1, 2.2, 3.3]}, {"drifts": [1.0, 2.0, 3.0]})
    assert difference.mean == pytest.approx(0.1)
    assert analysis.verdict(difference) == "more"


def test_a_plan_that_loses_anywhere_is_no_option() -> None:
    """Where a moved plan drifts more than the spread, the page states that it does not pay."""
    from bench.studies.generality.report import moving

    models = {"a": data("a"), "b": data("b")}
    lost = copy.deepcopy(models)
    for run in lost["b"]["runs"]:
        if (run["name"], run["condition"]) == ("b", "solver"):
            run["drifts"] = [3 * drift for drift in run["drifts"]]
    assert "no option of the runtime" in moving(lost)


def test_data_come_back_as_they_were_saved(tmp_path: Path) -> None:
    """A file a model, in the order of the settings, whatever order they were measured in."""
    for model in reversed(SETTINGS):
        save(data(model), tmp_path)
    loaded = load(tmp_path)
    assert list(loaded) == list(SETTINGS)
    assert loaded["embedded"]["runs"] == data("embedded")["runs"]


def test_another_model_is_refused(tmp_path: Path) -> None:
    """The study is of the two models that ship; one line states it."""
    done = CliRunner().invoke(app, ["generality", "--model", "x", "--results", str(tmp_path)])
    assert done.exit_code == 2
    assert done.output.strip() == "generality: --model: 'x' is not known; allowed: embedded, embedded-t2i"
