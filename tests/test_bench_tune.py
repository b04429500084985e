"""Tuning: a study resumes, its front is a front, and its files load."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

import dqar
from bench.cli.main import app
from bench.errors import BadInput
from bench.studies.tune.search import Tuner, suggested


def tuner(model: Path, storage: Path) -> Tuner:
    return Tuner(str(model), steps=8, images=2, guidance=4.0, storage=storage)


@pytest.mark.slow
def test_a_study_resumes_and_its_front_is_one(tiny_model_dir: Path, tmp_path: Path) -> None:
    """Trials are kept from one start to the next; no trial gains as much and loses less than a point
    of the front; what a point states of a trial holds when it is run again."""
    first = tuner(tiny_model_dir, tmp_path / "study.db")
    first.search(4)
    again = tuner(tiny_model_dir, tmp_path / "study.db")
    again.search(4)
    assert len(again.study.trials) == 8
    points = again.front(pairs=2)
    for point in points:
        for trial in again.study.trials:
            limit, drift = trial.values
            assert not (limit >= point.limit and drift < point.drift)
    assert [p.limit for p in points] == sorted((p.limit for p in points), reverse=True)
    trial = again.study.best_trials[0]
    assert again.evaluation(suggested(trial)) == pytest.approx(trial.values)


def test_the_page_and_its_files(tiny_model_dir: Path, tmp_path: Path, undrawn: None) -> None:
    """The command writes a page with a row and a loadable configuration for each point."""
    places = ["--results", str(tmp_path / "results"), "--reports", str(tmp_path / "reports")]
    arguments = ["--model", str(tiny_model_dir), "--trials", "3", "--steps", "6", "--images", "2"]
    done = CliRunner().invoke(app, ["tune", *arguments, "--pairs", "2", *places])
    assert done.exit_code == 0, done.output
    files = sorted((tmp_path / "reports" / "tune").glob("front-*.yaml"))
    page = (tmp_path / "reports" / "tune" / "README.md").read_text()
    assert files
    assert len(pd.read_csv(tmp_path / "reports" / "tune" / "front.csv")) == len(files)
    assert all(f"({file.name})" in page for file in files)
    assert all(dqar.DQARConfig.from_yaml(file).warmup_steps == 0 for file in files)


def test_a_storage_that_cannot_be_used_is_named(tiny_model_dir: Path, tmp_path: Path) -> None:
    """A file that is no database is one line with its path."""
    (tmp_path / "study.db").write_text("no database")
    with pytest.raises(BadInput, match=r"tune: .*study\.db: cannot be used"):
        tuner(tiny_model_dir, tmp_path / "study.db")
