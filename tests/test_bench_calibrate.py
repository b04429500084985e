"""`bench calibrate`: the search, the plans it writes, and their way into a suite."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import build_tiny_pipeline
from diffusers import DDIMScheduler
from typer.testing import CliRunner

import dqar
from bench.cli.main import app
from bench.errors import BadInput
from bench.methods import check
from bench.methods.dqar import PLANS
from bench.pipeline.session import Session
from bench.spec import external_files
from bench.spec.run_spec import RunSpec
from bench.store import keys
from bench.store.tensors import Cache
from bench.studies.calibrate.candidate import CandidatePlan, initial_candidates
from bench.studies.calibrate.changes import Changes
from bench.studies.calibrate.search import Archive, Point, search
from bench.studies.calibrate.study import Study
from bench.studies.calibrate.trial import Trials
from dqar.plan import BOTH, CONDITIONAL, NONE
from dqar.policy.saved_plan import SavedPlan

SNR = np.exp(np.linspace(-10.0, 5.0, 20))
RUN = ("--steps", "8", "--images", "2", "--speedups", "1.5,2", "--model")


def cost(candidate: CandidatePlan) -> float:
    return sum(candidate.branches) / (BOTH * len(candidate.branches))


def test_a_change_is_a_plan_that_can_run() -> None:
    """A thousand changes in a row of any kind give plans that begin with a full step, and reuse layers only
    where something runs; every kind of change changes something."""
    changed, first = Changes(random.Random(0), 6), next(iter(initial_candidates(SNR)))
    candidate = first
    for _ in range(1000):
        candidate = changed(candidate)
        plan = candidate.plan(6)  # refuses a first step that reuses
        assert not plan.reuse[plan.branches == 0].any() and CandidatePlan.of(plan) == candidate
    for _, change in changed.kinds:
        assert any(change(first) != first for _ in range(20))


def test_steps_move_as_far_as_the_grid_is_fine() -> None:
    """A plan of few steps on a fine grid is changed at the scale of its gaps, not by single steps that change
    no image; what runs stays as many steps."""
    changes, running = Changes(random.Random(0), 6), {0, 30, 60, 90}
    plan = CandidatePlan(tuple([BOTH if step in running else NONE for step in range(120)]), (0,) * 120)
    shifted = [changes.shift(plan) for _ in range(200)]
    moved = [{i for i, n in enumerate(one.branches) if n} for one in shifted]
    distances = [abs(sum(one) - sum(running)) for one in moved]
    assert {len(one) for one in moved} == {4} and all(0 in one for one in moved)
    assert 5 < sum(distances) / len(distances) < 13
    middles = {tuple(i for i, n in enumerate(changes.move(plan).branches) if n) for _ in range(200)}
    assert middles == {
        (0, 30, 60, 90), (0, 60, 75, 90), (0, 60, 90, 105), (0, 15, 30, 90),
        (0, 30, 90, 105), (0, 15, 30, 60), (0, 30, 45, 60),
    }  # fmt: skip


def test_the_archive_keeps_the_best_of_each_cost() -> None:
    """What is as cheap and as good is not kept twice, what is beaten goes, `at` is the best affordable."""
    candidates = list(initial_candidates(SNR))[:4]
    archive = Archive([Point(0.5, (0.2,), candidates[0]), Point(0.6, (0.1,), candidates[1])])
    assert not archive.add(Point(0.6, (0.1,), candidates[2]))
    assert archive.add(Point(0.55, (0.05,), candidates[3])) and [p.cost for p in archive.points] == [
        0.5,
        0.55,
    ]
    best = archive.at(0.9)
    assert best is not None and best.drifts == (0.05,) and archive.at(0.4) is None


def test_the_search_finds_what_is_to_be_found() -> None:
    """Where only early steps matter, the search lets them run and not the others, at the same cost; the same
    seed finds the same."""

    def all_tried(candidates: Sequence[CandidatePlan], _: Archive) -> list[Point]:
        return [evaluated(candidate) for candidate in candidates]

    def evaluated(candidate: CandidatePlan) -> Point:
        missed = sum(2 - n for n in candidate.branches[:8]) + 0.01 * sum(
            2 - n for n in candidate.branches[8:]
        )
        return Point(cost(candidate), (missed,), candidate)

    found = []
    for _ in range(2):
        archive = Archive(evaluated(candidate) for candidate in initial_candidates(SNR))
        before = archive.at(0.4)
        for _, _ in zip(range(400), search(archive, all_tried, 6, (0.2, 0.7), 0, 400), strict=False):
            after = archive.at(0.4)
        assert before is not None and after is not None and after.score < 0.5 * before.score
        found.append(after)
    assert found[0] == found[1]
    assert sum(found[0].candidate.branches[:8]) > sum(found[0].candidate.branches[8:])


def test_a_try_ends_where_it_is_clearly_behind() -> None:
    """It loses if its images are worse beyond their scatter, not for one gone elsewhere."""
    candidate = next(iter(initial_candidates(SNR)))
    other = Point(0.5, (0.1, 0.2, 0.1, 0.3, 0.2, 0.4), candidate)
    assert Point(0.5, (0.12, 0.24, 0.13), candidate).loses_to(other)
    assert not Point(0.5, (0.1, 0.2, 0.9), candidate).loses_to(other)
    assert not Point(0.5, (0.09, 0.19, 0.08), candidate).loses_to(other)


@pytest.fixture(scope="module")
def calibrated(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a real calibration of the tiny model on two images in eight steps, run twice."""
    directory = tmp_path_factory.mktemp("calibrate")
    where = [f"--{name}={directory / name}" for name in ("out", "results", "reports")]
    for _ in range(2):
        done = CliRunner().invoke(app, ["calibrate", *where, *RUN, str(tiny_model_dir), "--trials", "3"])
        assert done.exit_code == 0, done.output
    return directory


def test_a_calibration_leaves_plans_that_load(calibrated: Path) -> None:
    """Each plan runs on a stock pipeline as it stands, and states what it was searched on and which errors of
    forecasts to expect; the second run took up the first one's archive."""
    files = sorted((calibrated / "out").glob("*.json"))
    assert files
    pipe = build_tiny_pipeline()
    pipe.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config, timestep_spacing="trailing")
    for file in files:
        plan = SavedPlan.load(file)
        dqar.enable(pipe, dqar.DQARConfig(plan_path=str(file)))
        pipe(class_labels=[1], num_inference_steps=8)
        assert np.array_equal(dqar.summary(pipe).branches, plan.branches)
        assert plan.facts["solver"] == "dpm_solver++" and plan.facts["cost"] <= 1 / 1.5
        assert (plan.expected != 1).any()
    (archive,) = (calibrated / "results").rglob("dpm-converged.json")
    assert '"points"' in archive.read_text()


@pytest.mark.slow
def test_a_plan_may_be_of_more_steps_than_the_baseline(calibrated: Path, tiny_model_dir: Path) -> None:
    """Plans of eight steps begin a search at sixteen: what was found has sixteen, costs what it runs as a
    share of the baseline's eight, and goes by a name of its own."""
    given = ["--start", str(calibrated / "out"), "--plan-steps", "16", "--trials", "1"]
    where = [f"--{name}={calibrated / 'finer' / name}" for name in ("out", "results", "reports")]
    done = CliRunner().invoke(app, ["calibrate", *where, *RUN, str(tiny_model_dir), *given])
    assert done.exit_code == 0 and "at 16 steps" in done.output, done.output
    files = sorted((calibrated / "finer" / "out").glob("dpm16-converged-*.json"))
    assert files
    for plan in map(SavedPlan.load, files):
        assert len(plan.branches) == 16 and not plan.reuse.any()
        assert plan.facts["cost"] == pytest.approx(plan.branches.sum() / BOTH / 8)


def test_a_finer_plan_runs_at_the_same_noise() -> None:
    """On trailing spacing the steps that a plan runs have the same timesteps at twice the number of steps."""
    candidate = CandidatePlan((BOTH, NONE, CONDITIONAL, BOTH), (0, 0, 0, 6))
    finer, timesteps = candidate.finer(2), []
    for plan in (candidate, finer):
        scheduler = DDIMScheduler(timestep_spacing="trailing")
        scheduler.set_timesteps(len(plan.branches))
        ran = zip(scheduler.timesteps.tolist(), plan.branches, plan.rows, strict=True)
        timesteps.append([step for step in ran if step[1]])
    assert timesteps[0] == timesteps[1]


@pytest.mark.parametrize("second", [BOTH, CONDITIONAL])
def test_a_plans_cost_is_of_what_runs(second: int, tiny_model_dir: Path, tmp_path: Path) -> None:
    """A plan costs what the generation computes: where a branch runs alone, layers that the plan has reused
    at steps of both branches are computed after all, and are paid for."""
    study = Study(
        model=str(tiny_model_dir),
        solver="ddim",
        target="baseline",
        steps=6,
        plan_steps=6,
        images=2,
        guidance=4.0,
        results=tmp_path,
    )
    trials = Trials(study.spec(), "baseline", tmp_path)
    every = (1 << trials.layers) - 1
    candidate = CandidatePlan(
        (BOTH, second, BOTH, NONE, BOTH, BOTH), (0, 0, every, 0, every, 0), targets="both"
    )
    plan = candidate.plan(trials.layers)
    _, ran = trials._made(trials.session, plan, range(2))
    reused = ran.map.mean(axis=1) * (ran.branches > 0)
    assert reused.sum() == (2 if second == BOTH else 0)
    share = trials.shares["both"]
    assert trials.cost(plan) == pytest.approx((ran.branches / BOTH * (1 - share * reused)).mean())


def test_its_page_shows_what_was_held_out(calibrated: Path) -> None:
    """The page has its sentence, its images, and a row for each plan with the drift of unseen images."""
    page = calibrated / "reports" / "calibrate" / "dpm-converged" / "README.md"
    text = page.read_text()
    assert "**Summary:** plans for dpm_solver++" in text
    assert all((page.parent / name).exists() for name in ("front.webp", "plans.webp"))
    table = pd.read_csv(page.parent / "plans.csv").set_index("plan")
    plans = [calibrated / "out" / name for name in table.index]
    assert plans and text.count(".json |") == len(plans)
    for plan in plans:
        assert table.loc[plan.name, "held_out.mean"] == SavedPlan.load(plan).facts["held_out"]["mean"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--solver", "euler"], "--solver: 'euler' is not known; allowed: ddim, dpm_solver++, unipc"),
        (["--speedups", "2,fast"], "--speedups: '2,fast' is not allowed; allowed: numbers above 1"),
        (["--out", "LICENSE/plans"], "calibrate: --out: LICENSE/plans cannot be written: "),
        (["--speedups", "1"], "--speedups: '1' is not allowed; allowed: numbers above 1"),
    ],
)
def test_bad_input_is_one_line(given: list[str], message: str, tmp_path: Path) -> None:
    """An option that cannot be used is named with its value and what is allowed; exit code 2."""
    done = CliRunner().invoke(app, ["calibrate", f"--out={tmp_path}", *given])
    assert done.exit_code == 2 and message in done.output and "Traceback" not in done.output


def test_a_plan_is_part_of_the_key(tmp_path: Path) -> None:
    """Another content of the plan's file is another key, of the candidate's images too, and not of the
    baseline's; a file that is no plan is refused when the suite is read."""
    path, found = tmp_path / "plan.json", []
    spec = RunSpec(
        suite="t", name="t", method="dqar", model="embedded", options={"plan_path": str(path)}
    )  # fmt: skip
    for branches in ((BOTH, BOTH, 0), (BOTH, CONDITIONAL, 0)):
        SavedPlan(np.zeros((3, 12), dtype=np.bool_), np.array(branches, dtype=np.int8)).save(path)
        cache = Cache(tmp_path, keys.inputs(spec))
        found.append((external_files.plan(spec)["plan"], cache.candidate_key(spec), cache.key(spec)))
    one, other = found
    assert one[0] != other[0] and one[1] != other[1] and one[2] == other[2]
    path.write_text("{}")
    with pytest.raises(BadInput, match="is no plan"):
        check("dqar", spec.options, "suite")
    with pytest.raises(BadInput, match="plan = 'fast' is not allowed; allowed: "):
        check("dqar", {"plan": "fast"}, "suite")


def test_the_plans_that_ship_run_in_a_suite() -> None:
    """Each plan that ships loads; a run by one is never shorter than the plan, not even to warm up."""
    plans = {path.stem: SavedPlan.load(path) for path in PLANS.glob("*.json")}
    names = sorted(plans)
    assert {name.partition("-")[0]: plan.facts["steps"] for name, plan in plans.items()} == {
        "dpm20": 50, "dpm200": 50, "t2i": 28, "prompts": 28,
    }  # fmt: skip
    parts: dict[str, Any] = {"suite": "t", "name": "t", "method": "dqar", "model": "embedded"}
    assert Session(None, RunSpec(**parts, options={"plan": names[0]})).short == {}
    assert Session(None, RunSpec(**parts)).short == {"num_inference_steps": 10}


@pytest.mark.parametrize(
    ("model", "solver", "solved"),
    [
        ("embedded", "dpm_solver++", "by dpm_solver++ at 200 steps"),
        ("embedded-t2i", "dpm_solver++", "by unipc at 200 steps"),
        ("embedded-t2i", "own", "by own at 280 steps"),
    ],
)
def test_plans_judged_by_another_trajectory_are_another_studys(
    model: str, solver: str, solved: str, tmp_path: Path
) -> None:
    """What solves the converged trajectory is among the facts that an archive is continued by."""
    study = Study(
        model=model, solver=solver, target="converged", steps=28, plan_steps=28, images=2, guidance=4.0,
        results=tmp_path,
    )  # fmt: skip
    assert study.facts["converged"] == solved
    assert "converged" not in replace(study, target="baseline").facts
