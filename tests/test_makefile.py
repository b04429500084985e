"""`make`: what a study is started by, shown by a dry run, which starts nothing."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from bench.spec.suite import Suite, available

ROOT = Path(__file__).parents[1]
MAKE = shutil.which("make")

pytestmark = pytest.mark.skipif(MAKE is None, reason="no make")


def dry(*arguments: str) -> str:
    done = subprocess.run(
        [str(MAKE), "--dry-run", *arguments], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout


@pytest.mark.parametrize("name", list(available()))
def test_every_suite_is_a_target(name: str) -> None:
    """`make SUITE` runs that suite, and `make SUITE MODEL=…` on that model."""
    started = f"-m bench {Suite.load(name).command or f'run {name}'} "
    assert started in dry(name)
    if name != "control":  # a study of the machine, on the embedded model
        assert f"{started}--model a/model" in dry(name, "MODEL=a/model")


@pytest.mark.parametrize("name", ["generate", "tune", "signals", "calibrate", "policy", "bench"])
def test_other_studies_take_the_model_too(name: str) -> None:
    """What is no suite has a target as well, and goes with another model."""
    assert "--model a/model" in dry(name, "MODEL=a/model")


def test_workers_are_a_short_form() -> None:
    """`make bench WORKERS=8` runs on Ray; without it no place is named."""
    assert "--on ray --workers 8" in dry("bench", "WORKERS=8")
    assert "--on" not in dry("bench")


def test_help_names_every_suite() -> None:
    """`make` alone lists the targets, those of the suites among them."""
    done = subprocess.run([str(MAKE)], cwd=ROOT, capture_output=True, text=True, check=True)
    assert set(available()) <= set(done.stdout.split())
