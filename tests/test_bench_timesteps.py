"""Searched timesteps: the dynamic programming is exact, the search never loses what it starts from."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from bench.cli.main import app
from bench.errors import BadInput
from bench.methods import timesteps as placed
from bench.methods.timesteps import timesteps_of
from bench.studies.timesteps.programming import cheapest_path, local_errors
from bench.studies.timesteps.search import Timesteps, changed, search
from bench.studies.timesteps.study import parsed
from bench.studies.tune.candidate import Outcome


def test_the_path_is_the_cheapest_of_all() -> None:
    """Against every path of so many steps, by its definition: later errors weigh more, step by step."""
    errors = np.random.default_rng(0).random((8, 8)) + 0.1
    errors[np.tril_indices(8)] = np.inf
    weight = 1.15

    def cost(path: tuple[int, ...]) -> float:
        return float(sum(weight**k * errors[i, j] for k, (i, j) in enumerate(itertools.pairwise(path))))

    for steps in (1, 2, 4):
        paths = [(0, *inner, 7) for inner in itertools.combinations(range(1, 7), steps - 1)]
        assert tuple(cheapest_path(errors, steps, weight)) == min(paths, key=cost)[:-1]


def test_a_straight_trajectory_has_no_local_error() -> None:
    """Euler's steps are exact where the latents move in a straight line, and where they bend the error is the
    distance from the line."""
    sigmas = np.array([3.0, 2.0, 1.0, 0.0])
    straight = torch.tensor(sigmas).view(-1, 1, 1).expand(-1, 2, 5) * 2
    errors = local_errors(sigmas, straight, every=1)
    assert errors[np.triu_indices(4, 1)] == pytest.approx(0)
    assert np.isinf(errors[np.tril_indices(4)]).all()
    bent = straight.clone()
    bent[3] += 1.0
    assert local_errors(sigmas, bent, every=1)[0, 3] == pytest.approx(np.sqrt(5))


@pytest.mark.parametrize("whole", [True, False])
def test_changes_keep_timesteps_in_order(whole: bool) -> None:
    """However often they are changed, they descend from the same first one, as many, and not below 0."""
    rng = random.Random(0)
    start: tuple[float, ...] = (999.0, 700.0, 300.0, 100.0, 3.0)
    timesteps = start
    for _ in range(300):
        timesteps = changed(timesteps, rng, whole)
        assert timesteps_of({"timesteps": list(timesteps)}) == timesteps
        assert (timesteps[0], len(timesteps)) == (start[0], len(start))
        assert not whole or all(t == round(t) for t in timesteps)
    assert timesteps != start


def test_the_search_improves_on_its_starts() -> None:
    """Its best is at least as good as every start, and near the optimum of a function that has one."""
    target = (999.0, 500.0, 200.0, 50.0)

    def judge(timesteps: Timesteps) -> Outcome:
        distance = sum(abs(a - b) for a, b in zip(timesteps, target, strict=True))
        return Outcome(len(timesteps), 1.0, (1e-3 + distance, 1e-3 + distance))

    starts = [(999.0, 749.0, 499.0, 249.0), (999.0, 600.0, 300.0, 150.0)]
    judged = search(starts, judge, trials=200, whole=True)
    scores = [one.outcome.score for one in judged]
    assert scores == sorted(scores)
    assert scores[0] < 0.5 * min(judge(start).score for start in starts)


def test_unknown_solvers_are_named() -> None:
    """A solver without timesteps, or without an order, is a line with what is allowed."""
    assert parsed("unipc:3") == [{"scheduler": "unipc", "solver_order": 3}]
    with pytest.raises(BadInput, match=r"timesteps: --solvers: 'ddim:1' is not allowed; allowed: dpm_solver"):
        parsed("ddim:1")


def test_the_command_writes_files_that_a_suite_can_name(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command writes a file by each search, each of so many steps, by name."""
    out = tmp_path / "found"
    given = [
        "--model",
        str(tiny_model_dir),
        "--steps",
        "6",
        "--images",
        "2",
        "--trials",
        "2",
        "--budgets",
        "4",
    ]
    done = CliRunner().invoke(
        app,
        [
            "timesteps",
            "--out",
            str(out),
            *given,
            "--solvers",
            "unipc:2",
            "--results",
            str(tmp_path / "results"),
        ],
    )
    assert done.exit_code == 0, done.output
    monkeypatch.setattr(placed, "FILES", out)
    for name in ("unipc2-4-dp", "unipc2-4-optimal-steps", "unipc2-4-evolved"):
        timesteps = timesteps_of({"timesteps": name})
        assert timesteps is not None and len(timesteps) == 4
        assert name in done.output


def test_shipped_timesteps_are_such() -> None:
    """Every file that ships can be named by a suite, and states what it was searched on and came to."""
    files = sorted(placed.FILES.glob("*.json"))
    assert files
    for file in files:
        assert timesteps_of({"timesteps": file.stem})
        facts = json.loads(file.read_text())["facts"]
        assert facts["drift"] <= facts["drift_of_best_spacing"] or facts["how"] != "evolved"
