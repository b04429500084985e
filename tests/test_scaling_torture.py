"""The outcome of a tortured cluster: kept next to what the scaling study measured, and shown on its page."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.studies.scaling.report import FILE, write_report
from bench.studies.scaling.torture import Fault, Torture, keep, read
from dqar.errors import InvalidFile

OUTCOME = Torture(
    3, 48, [Fault("a node removed", 1, True, 71.25), Fault("a worker killed", 20, False, 300.0)]
)


def test_an_outcome_is_read_as_it_was_written(tmp_path: Path) -> None:
    """Of each machine its own; a later one takes its place, and a damaged one is refused, not passed over."""
    assert read(tmp_path / "scaling" / "here") is None
    keep(Torture(1, 2, []), "here", tmp_path)
    file = keep(OUTCOME, "here", tmp_path)
    assert read(tmp_path / "scaling" / "here") == OUTCOME
    assert read(tmp_path / "scaling" / "there") is None
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(InvalidFile):
        read(file.parent)


def test_the_page_shows_an_outcome_where_there_is_one(tmp_path: Path) -> None:
    """Every fault with its number, seconds and whether the records were the same; else no word of it."""
    directory = tmp_path / "scaling" / "here"
    directory.mkdir(parents=True)
    empty = {"tasks": 10, "workers": 2, "seconds": 0.1, "grown": [0, 0]}
    (directory / FILE).write_text(json.dumps({"machine": "here", "empty": empty, "rates": []}))
    before = write_report(directory, tmp_path / "out").read_text()
    assert "Faults" not in before and "fault |" not in before
    keep(OUTCOME, "here", tmp_path)
    shown = write_report(directory, tmp_path / "out").read_text()
    assert "| a node removed | 1 | the same | 71 |" in shown
    assert "| a worker killed | 20 | others, or a run that failed | 300 |" in shown
    assert "With 1 of 2 kinds of faults" in shown and "3 configurations, 48 images each" in shown
    assert "\n\n[plan.csv](plan.csv)" in shown and "\n\n[plan.csv](plan.csv)" in before
