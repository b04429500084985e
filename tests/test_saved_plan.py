"""A plan's file is written whole, read back exactly, and refused in one line where it is something else."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from dqar.errors import DQARError
from dqar.policy.saved_plan import SavedPlan

GOOD: dict[str, Any] = {
    "format": "dqar-plan-2",
    "facts": {"model": "tiny"},
    "options": {"targets": ["mlp", "both"], "forecast_over": 0.5},
    "branches": "2012",
    "expected": [1.0, 0.5, 2.0, 1.0],
    "reuse": ["00", "11", "01", "10"],
}

BAD: dict[str, Any] = {
    "list": [],
    "number": 5,
    "empty": {},
    "other format": GOOD | {"format": "dqar-plan-1"},
    "no facts": {k: v for k, v in GOOD.items() if k != "facts"},
    "facts as a number": GOOD | {"facts": 5},
    "options as a list": GOOD | {"options": [1]},
    "another option": GOOD | {"options": {"snr_low": 1.0}},
    "an option out of range": GOOD | {"options": {"targets": "all"}},
    "branches as numbers": GOOD | {"branches": [2, 0, 1, 2]},
    "branch 3": GOOD | {"branches": "2013"},
    "steps of unequal length": GOOD | {"reuse": ["00", "11", "01", "1"]},
    "reuse as a number": GOOD | {"reuse": 5},
    "no layers": GOOD | {"reuse": ["", "", "", ""]},
    "reuse at the first step": GOOD | {"reuse": ["01", "11", "01", "10"]},
    "fewer branches": GOOD | {"branches": "201"},
    "expected text": GOOD | {"expected": ["a", 1, 1, 1]},
    "expected 0": GOOD | {"expected": [0, 1, 1, 1]},
    "expected nested": GOOD | {"expected": [[1], 1, 1, 1]},
    "expected NaN": GOOD | {"expected": [math.nan, 1, 1, 1]},
    "expected infinity": GOOD | {"expected": [math.inf, 1, 1, 1]},
}


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    """A plan read back is the same in every part, and its repr shows what it does."""
    (tmp_path / "plan.json").write_text(json.dumps(GOOD))
    SavedPlan.load(tmp_path / "plan.json").save(tmp_path / "copy.json")
    copy = SavedPlan.load(tmp_path / "copy.json")
    assert copy.reuse.astype(int).tolist() == [[0, 0], [1, 1], [0, 1], [1, 0]]
    assert copy.branches.tolist() == [2, 0, 1, 2] and copy.expected.tolist() == GOOD["expected"]
    assert copy.options == {"targets": ("mlp", "both"), "forecast_over": 0.5} and copy.facts == GOOD["facts"]
    shown = "4 steps x 2 layers: 1 steps skipped, 1 conditional-only, 33% reused at the others"
    assert repr(copy) == f"SavedPlan({shown}, options={copy.options})"


def test_a_plan_older_than_its_options_runs_as_it_was_found(tmp_path: Path) -> None:
    """A file that does not say over what outputs are forecast is of when that was log-SNR, whatever the
    configuration's default is now."""
    (tmp_path / "plan.json").write_text(json.dumps(GOOD | {"options": {}}))
    assert SavedPlan.load(tmp_path / "plan.json").options == {"forecast_over": "log_snr"}


@pytest.mark.parametrize("content", BAD.values(), ids=BAD)
def test_what_is_no_plan_is_refused_in_one_line(content: Any, tmp_path: Path) -> None:
    """Whatever is wrong with a plan's content, the error names the file in one short line."""
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(content))
    with pytest.raises(DQARError) as error:
        SavedPlan.load(path)
    message = str(error.value)
    assert message.startswith(f"plan_path = {str(path)!r} ") and "\n" not in message and len(message) < 500
