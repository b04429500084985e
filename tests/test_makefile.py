"""`make`: what a study is started by, shown by a dry run, which starts nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from bench.spec.suite import Suite, available

ROOT = Path(__file__).parents[1]
MAKE = shutil.which("make")

pytestmark = pytest.mark.skipif(MAKE is None, reason="no make")


def dry(*arguments: str, **environment: str) -> str:
    done = subprocess.run(
        [str(MAKE), "--no-print-directory", "--dry-run", "--always-make", *arguments],
        cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout


@pytest.mark.parametrize("name", list(available()))
def test_every_suite_is_a_target(name: str) -> None:
    """`make SUITE` runs that suite, and `make SUITE MODEL=… PROMPTS=…` on that model and these prompts."""
    started = f"-m bench {Suite.load(name).command or f'run {name}'} "
    assert started in dry(name)
    assert f"{started}--model a/model --prompts p.txt" in dry(name, "MODEL=a/model", "PROMPTS=p.txt")


@pytest.mark.parametrize("name", ["generate", "tune", "signals", "calibrate", "policy", "bench"])
def test_other_studies_take_the_model_too(name: str) -> None:
    """What is no suite has a target as well, and goes with another model."""
    assert "--model a/model" in dry(name, "MODEL=a/model")


def test_a_given_interpreter_needs_no_network() -> None:
    """With PY nothing is installed, and the check runs in that interpreter; without it `.venv` is set up."""
    given = dry("gpu-check", "ARGS=--toy", PY="python3")
    assert given.split() == ["python3", "-m", "bench", "gpu-check", "--toy"]
    assert "pip install" in dry("gpu-check")


def test_workers_are_a_short_form() -> None:
    """`make bench WORKERS=8` runs on Ray; without it no place is named."""
    assert "--on ray --workers 8" in dry("bench", "WORKERS=8")
    assert "--on" not in dry("bench")


def test_help_names_every_suite() -> None:
    """`make` alone lists the targets, those of the suites among them."""
    done = subprocess.run([str(MAKE)], cwd=ROOT, capture_output=True, text=True, check=True)
    assert set(available()) <= set(done.stdout.split())
