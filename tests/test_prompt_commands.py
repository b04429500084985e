"""The studies and commands on a text-to-image model: generate, calibrate, signals and prompt-length."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner, Result

from bench.cli.main import app
from bench.run.runner import skip_reason
from bench.run.suite_run import SuiteRun
from bench.spec.prompts import Prompts
from bench.spec.suite import Suite
from bench.studies.prompt_length import analysis
from bench.studies.prompt_length.measure import shortened
from bench.studies.signals.rows import Study
from dqar.policy.saved_plan import SavedPlan

pytestmark = pytest.mark.filterwarnings("ignore")
MODEL = ["--model", "embedded-t2i"]


@pytest.fixture
def prompts(tmp_path: Path) -> str:
    """A file of two prompts of twelve words."""
    lines = Prompts.read("lengths").texts[:2]
    path = tmp_path / "two.txt"
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def run(*command: Any) -> Result:
    """A command in this process."""
    return CliRunner().invoke(app, [str(part) for part in command])


def test_generate_makes_images_of_prompts(tmp_path: Path, prompts: str) -> None:
    """One image a prompt in turn, and what was reused; DQAR changes the images."""
    common = ["generate", *MODEL, "--prompts", prompts, "--n", 2, "--steps", 4]
    done = run(*common, "--out", tmp_path / "base")
    assert done.exit_code == 0, done.output
    reused = run(*common, "--out", tmp_path / "dqar", "--dqar", "maximum")
    assert reused.exit_code == 0 and "reuse" in reused.output, reused.output
    names = [sorted(path.name for path in (tmp_path / which).glob("*.png")) for which in ("base", "dqar")]
    assert names[0] == names[1] and len(names[0]) == 3
    assert (tmp_path / "base" / names[0][0]).read_bytes() != (tmp_path / "dqar" / names[0][0]).read_bytes()


@pytest.mark.parametrize(
    ("command", "why"),
    [
        (["generate", *MODEL], "prompts: null is not allowed: 'embedded-t2i' takes prompts"),
        (["generate", "--prompts", "emoji"], "'embedded' takes class labels"),
        (["generate", *MODEL, "--prompts", "none.txt"], "--prompts: 'none.txt': cannot be read"),
        (["generate", *MODEL, "--prompts", "emoji", "--classes", "1"], "--classes"),
        (["prompt-length", "--prompts", "emoji"], "prompt 1 has 2 words; needed: at least 12"),
        (["calibrate", "--out", "x", *MODEL, "--solver", "euler"], "--solver: 'euler' is not known"),
        (["signals", *MODEL], "takes prompts"),
        (["tune", *MODEL], "takes prompts"),
        (["policy", "trace", *MODEL], "takes prompts; needed: a file with one a line"),
        (["profile", "smoke", "baseline", *MODEL], "takes prompts"),
        (["reproduce", *MODEL], "takes prompts; needed: a file with one a line"),
        (["control", *MODEL], "takes prompts; needed: a file with one a line"),
        (["control", "--model", "nowhere"], "model: 'nowhere' is no directory"),
    ],
)
def test_what_does_not_fit_is_one_line(command: list[str], why: str) -> None:
    """Each command refuses prompts that are missing, unreadable, too short or given to a model of classes."""
    done = run(*command)
    assert done.exit_code == 2
    assert why in done.output and len(done.output.strip().splitlines()) == 1


def test_the_published_tables_are_measured_on_prompts_too(tmp_path: Path) -> None:
    """Every configuration of `reproduce` fits the text-to-image model with prompts; nothing is started."""
    suite = Suite.load("reproduce", model="embedded-t2i", prompts="emoji")
    specs = SuiteRun.of_suite(suite, tmp_path).specs
    assert len(specs) == len(Suite.load("reproduce").configurations)
    assert not any(skip_reason(spec) for spec in specs)


@pytest.mark.slow
def test_the_control_takes_a_model_and_prompts(tmp_path: Path, prompts: str, warm_processes: None) -> None:
    """The baseline is timed against itself on a text-to-image model, and the page names the prompts."""
    done = run(
        "control", *MODEL, "--prompts", prompts, "--repetitions", 1, "--results", tmp_path / "r", "--reports",
        tmp_path / "p",
    )  # fmt: skip
    assert done.exit_code in (0, 1), done.output
    page = (tmp_path / "p" / "control" / "README.md").read_text()
    assert "model embedded-t2i, prompts two" in page


@pytest.mark.slow
def test_calibrate_searches_plans_of_a_flow(tmp_path: Path, prompts: str) -> None:
    """A plan for the model's own scheduler, judged on held-out seeds; its file names the prompts' digest."""
    out = tmp_path / "plans"
    done = run(
        "calibrate", "--out", out, *MODEL, "--prompts", prompts, "--solver", "own", "--steps", 6, "--images",
        2, "--trials", 1, "--speedups", "2", "--results", tmp_path / "r", "--reports", tmp_path / "p",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    (file,) = out.glob("*.json")
    plan = SavedPlan.load(file)
    assert plan.facts["prompts"] == Prompts.read(prompts).public()
    assert 0 < plan.facts["held_out"]["mean"] < 2 and plan.facts["cost"] <= 0.5


@pytest.mark.slow
def test_tune_and_profile_take_prompts(tmp_path: Path, prompts: str) -> None:
    """A trial is measured on a flow; a generation's seconds are split by the parts of joint blocks."""
    few = ["--steps", 4, "--results", tmp_path / "r", "--reports", tmp_path / "p"]
    tuned = run("tune", *MODEL, "--prompts", prompts, "--trials", 1, "--images", 2, "--pairs", 2, *few)
    assert tuned.exit_code == 0, tuned.output
    given = ["--prompts", prompts, "--out", tmp_path / "profile", "--repeats", 1, "--steps", 4]
    profiled = run("profile", "embedded-t2i", "maximum-age2", *given)
    assert profiled.exit_code == 0, profiled.output
    shown = {line.split("|")[1].strip() for line in profiled.output.splitlines() if line.count("|") > 5}
    assert {"attention", "MLP", "decoder"} <= shown


def test_prompt_length_measures_prefixes_of_prompts(tmp_path: Path, prompts: str) -> None:
    """The study writes its rows, an exponent with an interval and a page that states what it found."""
    done = run(
        "prompt-length", "--prompts", prompts, "--steps", 4, "--results", tmp_path / "r", "--reports",
        tmp_path / "p",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    (facts,) = (tmp_path / "r").rglob("facts.json")
    assert json.loads(facts.read_text())["tokens"] == 16  # padding included: the same for every prompt
    rows = Study.load(facts.parent).rows
    assert sorted(rows["words"].unique()) == [1, 2, 4, 8, 12]
    assert (rows["entropy"] > 0).all() and (rows["hold"] > 0).all()
    page = (tmp_path / "p" / "prompt-length" / "README.md").read_text()
    assert "**Consequence:**" in page and "16 here, whatever the prompt" in page


def test_prefixes_of_prompts_are_prompts() -> None:
    """A shortened prompt has the first words, and its digest is another."""
    whole = Prompts.read("lengths")
    short = shortened(whole, 2)
    assert short.texts[0] == " ".join(whole.texts[0].split()[:2])
    assert short.digest != whole.digest


@pytest.mark.parametrize(
    ("exponent", "verdict"),
    [
        (0.0, "does not depend on length"),
        (0.5, "grows as the published threshold does"),
        (0.2, "grows with length"),
        (-0.2, "falls with length"),
    ],
)
def test_a_planted_exponent_is_found(exponent: float, verdict: str) -> None:
    """Of values that go with words^b, times a constant of each prompt, step and layer, b is recovered."""
    rng = np.random.default_rng(0)
    index = pd.MultiIndex.from_product(
        [range(12), range(5), range(3), (1, 2, 4, 8, 12)], names=["label", "step", "layer", "words"]
    )
    rows = index.to_frame(index=False)
    error = np.exp(rng.normal(size=12))[rows["label"]] * (1 + rows["step"]) * (2 + rows["layer"])
    noise = np.exp(rng.normal(scale=0.02, size=len(rows)))
    for value in analysis.VALUES:
        rows[value] = error * rows["words"] ** exponent * noise
    for found in analysis.exponents(rows):
        assert found.b.mean == pytest.approx(exponent, abs=0.01)
        assert found.verdict == verdict


def test_values_without_dependence_are_not_called_constant() -> None:
    """Where the interval is wide and holds 0, the study states that it found none, not that there is none."""
    rng = np.random.default_rng(1)
    index = pd.MultiIndex.from_product(
        [range(3), range(2), range(2), (1, 2, 4, 8, 12)], names=["label", "step", "layer", "words"]
    )
    rows = index.to_frame(index=False)
    for value in analysis.VALUES:
        rows[value] = np.exp(rng.normal(scale=0.6, size=len(rows)))
    assert {each.verdict for each in analysis.exponents(rows)} == {"no dependence found"}
