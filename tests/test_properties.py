"""Whatever a file holds, it is read as it stands or refused in one line: suites, plans, records and more.

Bounded and the same in every run (`derandomize`).
"""

from __future__ import annotations

import json
import math
import random
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.errors import BadInput
from bench.record import Record
from bench.spec.run_spec import RunSpec
from bench.spec.suite import Suite
from bench.store import keys, validation
from bench.studies.calibrate.study import _kept
from dqar import DQARConfig, DQARError
from dqar.policy.saved_plan import SavedPlan

sys.path.insert(0, str(Path(__file__).parent / "torture"))
import fuzz

bounded = settings(max_examples=60, derandomize=True, deadline=None, database=None)
RUNS = [{"name": "a", "method": "dqar", "options": {"preset": "recommended"}}]
SUITE = {"title": "t", "model": "embedded", "timing": {"min_pairs": 2}, "labels": [1, 2], "runs": RUNS}
PLAN = {
    "format": "dqar-plan-2", "facts": {}, "options": {"targets": "both"}, "branches": "2021",
    "expected": [1.0, 0.5, 0.5, 1.0], "reuse": ["000", "010", "111", "001"],
}  # fmt: skip
CONFIG = {
    "reuse_gate": {"entropy_threshold": 2.0, "snr_low": 0.1, "warmup_fraction": 0.2},
    "layer_scheduling": {"enabled": True, "schedule_type": "linear"},
    "quantization": {"mode": "per_head", "bits": 8},
}
ARCHIVE = {"facts": {}, "points": [{"cost": 0.5, "drifts": [0.1, 0.2], "candidate": {"branches": [2, 0, 2]}}]}
RECORD = Record(
    key="0" * 16, suite="s", name="a", method="baseline", config={"steps": 3}, status="ok",
    environment={"machine": "m", "inputs": {"a": "b"}},
)  # fmt: skip
SEALED = keys.seal(RECORD.model_copy(update={"key": keys.key_of(RECORD.config, {"a": "b"})}))
SEEDS = st.integers(0, 2**20)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
values = st.recursive(
    scalars,
    lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(max_size=5), v, max_size=3),
    max_leaves=8,
)


def changed(value: dict[str, Any]) -> st.SearchStrategy[Any]:
    """A value with a few of its parts replaced, renamed, removed or doubled, or anything in one place."""

    def change(seed: int, replacement: Any) -> Any:
        rng, found = random.Random(seed), value
        for _ in range(rng.randint(1, 3)):
            found = fuzz.mutated(found, rng)
        return found if rng.random() < 0.7 else {**value, rng.choice([*value]): replacement}

    return st.builds(change, SEEDS, values)


def read(name: str, content: str | bytes, reader: Callable[[Path], object]) -> object | None:
    """What a reader makes of a file; None where it refuses it, in one line."""
    with tempfile.TemporaryDirectory() as directory, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of options without effect
        path = Path(directory) / name
        path.write_bytes(content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content)
        try:
            return reader(path)
        except (BadInput, DQARError) as error:
            assert "\n" not in str(error) and 0 < len(str(error)) < 3000
            return None


@bounded
@given(changed(SUITE) | values)
def test_suites(content: Any) -> None:
    """A suite file is a suite whose configurations go to a worker and back unchanged, or it is refused."""
    suite = read("s.yaml", yaml.safe_dump(content), Suite.load)
    if isinstance(suite, Suite):
        for spec in suite.configurations:
            assert RunSpec.model_validate_json(spec.model_dump_json()) == spec
            assert math.isfinite(spec.timeout_s) and math.isfinite(spec.guidance_scale)
            json.dumps(spec.public(), allow_nan=False)


@bounded
@given(st.binary(max_size=60), SEEDS)
def test_suites_of_any_bytes(content: bytes, seed: int) -> None:
    """Bytes that are no suite, or hardly one, are refused, whatever they are."""
    read("s.yaml", content, Suite.load)
    read("s.yaml", fuzz.garbled(yaml.safe_dump(SUITE).encode(), random.Random(seed)), Suite.load)


@bounded
@given(changed(CONFIG) | values)
def test_configurations(content: Any) -> None:
    """A configuration that is read comes back from its own file the same."""
    config = read("c.yaml", yaml.safe_dump(content), DQARConfig.from_yaml)
    if isinstance(config, DQARConfig):
        with tempfile.TemporaryDirectory() as directory, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            config.to_yaml(Path(directory) / "c.yaml")
            assert DQARConfig.from_yaml(Path(directory) / "c.yaml") == config


@bounded
@given(changed(PLAN) | values)
def test_plans(content: Any) -> None:
    """A plan that is read computes the first step in full, and comes back from its own file the same."""
    plan = read("p.json", json.dumps(content), SavedPlan.load)
    if isinstance(plan, SavedPlan):
        assert not plan.reuse[0].any() and plan.branches[0] == 2 and (plan.expected > 0).all()
        with tempfile.TemporaryDirectory() as directory:
            plan.save(Path(directory) / "p.json")
            again = SavedPlan.load(Path(directory) / "p.json")
        assert np.array_equal(again.reuse, plan.reuse) and np.array_equal(again.branches, plan.branches)


@bounded
@given(changed(json.loads(SEALED.model_dump_json())) | values)
def test_records(content: Any) -> None:
    """Only the record that was written is valid: any other content is a validation error, in one line."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "s" / "m" / f"a-{SEALED.key}.json"
        path.parent.mkdir(parents=True)
        path.write_text(SEALED.model_dump_json())
        assert validation.validation_error(path) is None
        path.write_text(json.dumps(content))
        why = validation.validation_error(path)
        assert content == json.loads(SEALED.model_dump_json()) or (
            why and "\n" not in why and len(why) < 1000
        )


@bounded
@given(changed(ARCHIVE))
def test_archives_of_a_calibration(content: Any) -> None:
    """What is no archive is refused by name; it is not replaced, because hours of search may be in it."""
    read("a.json", json.dumps(content), lambda path: _kept(path, 3))


@pytest.mark.parametrize("text", ["[" * 100_000, "{", "[]", '{"facts": {}, "points": [{"cost": NaN}]}', ""])
def test_archives_that_are_none(text: str, tmp_path: Path) -> None:
    """Each kind of damage is one line that states what to do."""
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(BadInput, match=r"calibrate: a.json: damaged: .*; needed: the archive as it was"):
        _kept(tmp_path / "a.json", 3)
