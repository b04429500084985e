"""The search of every method's options: what it counts, what it keeps, and what it writes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from bench import methods
from bench.cli.main import app
from bench.errors import BadInput
from bench.measure import flops
from bench.methods.dqar import config as dqar_config
from bench.methods.scheduler import OPTIONS
from bench.methods.space import Among, Baseline, Real, Whole
from bench.spec.run_spec import RunSpec
from bench.spec.suite import Suite
from bench.store.places import PUBLISHED_RESULTS
from bench.studies.tune.candidate import Judge, Outcome, Products, Task, undecoded
from bench.studies.tune.methods import Search, Trial, distinct, front, searches, suggested
from bench.studies.tune.methods_report import trials_of
from bench.studies.tune.stored import TRIALS, StoredTrials


class Chosen:
    """A trial that chooses an end of every dimension."""

    def __init__(self, end: int) -> None:
        self.end = end

    def suggest_int(self, name: str, *ends: int) -> int:
        """One of the two ends."""
        return ends[self.end]

    def suggest_float(self, name: str, *ends: float, log: bool) -> float:
        """One of the two ends."""
        return ends[self.end]

    def suggest_categorical(self, name: str, names: list[str]) -> str:
        """The first or the last."""
        return names[-self.end]


@pytest.mark.parametrize("flow", [False, True])
@pytest.mark.parametrize("end", [0, 1])
def test_both_ends_of_every_space_are_options_of_the_method(flow: bool, end: int) -> None:
    """What a search may choose is allowed: the method's own check takes both ends of every dimension."""
    checked = 0
    for name in methods.METHODS:
        for space in methods.get(name).spaces(Baseline(28 if flow else 50, flow)).values():
            assert all(isinstance(dimension, Whole | Real | Among) for dimension in space.values())
            methods.get(name).check(suggested(Chosen(end), space))  # type: ignore[arg-type]
            checked += 1
    assert checked >= 12


@pytest.mark.parametrize("flow", [False, True])
def test_every_choice_of_dqars_space_makes_another_run(flow: bool) -> None:
    """No two choices of a dimension come to the same: a default among them would be searched twice."""
    (space,) = methods.get("dqar").spaces(Baseline(28 if flow else 50, flow)).values()
    for dimension in space.values():
        if isinstance(dimension, Among):
            given: dict[str, Any] = {"preset": "maximum", "layer_fraction": 0.0, "model_steps": 10}
            groups = [dict(group) for group in dimension.groups.values()]
            runs = [(dqar_config(given | group), scheduler_of(group)) for group in groups]
            assert all(one != other for one, other in combinations(runs, 2))


def scheduler_of(options: Mapping[str, Any]) -> dict[str, Any]:
    """The solver's share of options, of which the configuration knows nothing."""
    return {name: options.get(name) for name in OPTIONS}


@pytest.fixture(scope="module")
def judge(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Judge:
    task = Task(model=str(tiny_model_dir), steps=10, images=2, guidance=4.0)
    return Judge(task, tmp_path_factory.mktemp("results"))


def test_the_baseline_costs_its_steps_and_a_finer_one_drifts_less(judge: Judge) -> None:
    """Evaluations are counted in those of the baseline's steps, and drift is from a solution that more steps
    come closer to."""
    outcomes = [judge("fewer_steps", {"scheduler": "dpm_solver++", "steps": steps}) for steps in (5, 10, 20)]
    assert [outcome.evaluations for outcome in outcomes] == pytest.approx([5, 10, 20])
    assert outcomes[1].speedup == pytest.approx(1)
    assert outcomes[0].score > outcomes[1].score > outcomes[2].score


def test_flops_are_counted_as_the_harness_does(judge: Judge) -> None:
    """The light counter agrees with the harness's on a whole generation."""
    session = judge.session
    with undecoded(session.pipe), Products() as products:
        session.candidate(judge.samples)
    with undecoded(session.pipe), flops.counting() as counter:
        session.candidate(judge.samples)
    assert products.flops == counter.get_total_flops()


def test_the_decoder_is_back_after_a_trial(judge: Judge) -> None:
    """A generation after a judgement decodes images again."""
    judge("fora", {"interval": 2})
    assert judge.session.baseline(range(1)).images.shape[-1] > 8


def test_timesteps_in_place_of_a_spacing_take_the_same_steps(judge: Judge) -> None:
    """The timesteps that a spacing takes, given one by one, make the same images."""
    given: dict[str, Any] = {"scheduler": "dpm_solver++", "solver_order": 2}
    with methods.get("fewer_steps").apply(judge.session.pipe, given | {"steps": 6}):
        judge.session.pipe.scheduler.set_timesteps(6)
        timesteps = [int(t) for t in judge.session.pipe.scheduler.timesteps]
    spaced = judge("fewer_steps", given | {"steps": 6})
    listed = judge("fewer_steps", given | {"timesteps": timesteps})
    assert listed.evaluations == spaced.evaluations
    assert listed.drifts == pytest.approx(spaced.drifts, rel=1e-3)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"timesteps": [5, 9], "scheduler": "unipc"}, "does not descend"),
        ({"timesteps": [9, 5]}, "needs a scheduler"),
        ({"timesteps": [9, 5], "scheduler": "unipc", "steps": 2}, "excludes steps"),
        ({"timesteps": "none-such", "scheduler": "unipc"}, "not known"),
        ({"timesteps": [2000.0, 5], "scheduler": "unipc"}, "0 to 1000"),
        ({"shift": 0.0, "steps": 4}, "0.1 to 100"),
    ],
)
def test_wrong_timesteps_are_named(options: dict[str, Any], why: str) -> None:
    """Timesteps and shifts that no solver can take are refused in a line that names what is allowed."""
    with pytest.raises(ValueError, match=why):
        methods.get("fewer_steps").check(options)


def test_a_shift_is_a_flows(pipe: Any) -> None:
    """On a model that is no flow a shift would do nothing, so it is refused."""
    with (
        pytest.raises(ValueError, match="but on a flow"),
        methods.get("fewer_steps").apply(pipe, {"steps": 4, "shift": 2.0}),
    ):
        pass


def trial(cost: float, *drifts: float) -> Trial:
    return Trial("a", "fora", {"interval": 2}, Outcome(cost, 1.0, drifts))


def test_the_front_has_one_of_those_that_decide_alike() -> None:
    """Candidates with the same images at the same cost are one; dominated and failed ones are not on it."""
    same = [trial(10, 0.1, 0.2), trial(10, 0.1, 0.2)]
    failed = Trial("a", "fora", {}, None, "why")
    others = [trial(12, 0.1, 0.2), trial(20, 0.01, 0.02)]
    assert len(distinct([*same, failed, failed])) == 3
    assert front([*others, failed, *same]) == [same[0], others[1]]


def test_a_method_without_a_space_is_named() -> None:
    """The baseline has no options to search."""
    task = Task(model="embedded", steps=10, images=2, guidance=4.0)
    with pytest.raises(BadInput, match=r"tune: --method: 'baseline' is not allowed; allowed: all, dqar"):
        searches("baseline", task)
    assert [type(each) for each in searches("fora", task)] == [Search]


def test_the_command_resumes_and_its_runs_are_a_suites(
    tiny_model_dir: Path, tmp_path: Path, undrawn: None
) -> None:
    """The command judges until each search has its trials, keeps them, and writes runs that a suite takes."""
    places = ["--results", str(tmp_path / "results"), "--reports", str(tmp_path / "reports")]
    given = ["--model", str(tiny_model_dir), "--steps", "10", "--images", "2", "--method", "fora", *places]
    for trials in ("2", "3"):
        done = CliRunner().invoke(app, ["tune", "--trials", trials, *given])
        assert done.exit_code == 0, done.output
    (rows,) = (tmp_path / "results" / "tune").rglob(TRIALS)
    assert len(trials_of(StoredTrials.load(rows.parent).rows)) == 3
    (runs,) = (tmp_path / "reports").rglob("runs.yaml")
    suite = {"title": "t", "model": str(tiny_model_dir), "num_inference_steps": 10} | yaml.safe_load(
        runs.read_text()
    )
    (tmp_path / "tuned.yaml").write_text(yaml.safe_dump(suite))
    assert Suite.load(tmp_path / "tuned.yaml").specs()


@pytest.mark.parametrize(("suite", "model"), [("front", "embedded"), ("front-t2i", "embedded-t2i")])
def test_every_method_of_a_front_has_its_published_study(suite: str, model: str) -> None:
    """Each method and solver that a front compares was searched, with as many trials as any other."""
    (rows,) = (PUBLISHED_RESULTS / "tune").glob(f"*/{model}/{TRIALS}")
    trials = Counter((trial.method, trial.search) for trial in trials_of(StoredTrials.load(rows.parent).rows))
    assert len(set(trials.values())) == 1
    lacking = [
        spec.name
        for spec in Suite.load(suite).specs()
        if spec.method != "baseline" and (spec.method, searched(spec)) not in trials
    ]
    assert lacking == ["ddim-steps=25"] * (suite == "front")  # the baseline's own solver has only its steps


def searched(spec: RunSpec) -> str:
    """The search that a configuration's options are of: fewer steps have one a solver."""
    if spec.method != "fewer_steps":
        return spec.method
    return str(spec.options.get("scheduler", "euler" if spec.model == "embedded-t2i" else "ddim"))
