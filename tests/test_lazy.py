"""A command that only refuses its input does not load torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Runs `python -m bench` in a process where torch and what is built on it cannot be imported.
WITHOUT_TORCH = """
import runpy, sys
class Blocked:
    def find_spec(self, name, *_):
        if name.split(".")[0] in ("torch", "diffusers", "transformers"):
            raise AssertionError(f"{name} was loaded")
sys.meta_path.insert(0, Blocked())
runpy.run_module("bench", run_name="__main__")
"""


def test_the_package_and_its_configuration_load_without_torch() -> None:
    """`import dqar` offers every public name, the function `plan` though a module is called so too, and the
    configuration works without torch."""
    code = (
        "import sys, dqar, dqar.plan; from dqar import *; from dqar.plan import plan as function\n"
        "assert dqar.plan is plan is function and set(dqar.__all__) <= set(dir(dqar)) & globals().keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
    code = "import sys, dqar; dqar.DQARConfig.preset('recommended'); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("run", "embeded"), "suite 'embeded': no such suite"),
        (("report", "embeded"), "suite 'embeded': no such suite"),
        (("run", "smoke", "--only", "x"), "--only: 'x' is not a run"),
        (("profile", "smoke", "x"), "'x' is not a run"),
        (("generate", "--dqar", "recommendd"), "'recommendd'"),
        (("generate", "--classes", "cta"), "'cta'"),
        (("validate", "/nowhere"), "no such directory"),
        (("calibrate", "--out", "x", "--speedups", "a"), "--speedups: 'a'"),
        (("policy", "eval", "--targets", "2"), "targets: '2'"),
    ],
)
def test_a_misspelt_name_is_refused_before_torch_loads(arguments: tuple[str, ...], said: str) -> None:
    """A misspelt suite, run, preset or class is one line and exit code 2, in a process without torch."""
    command = [sys.executable, "-c", WITHOUT_TORCH, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr and len(done.stderr.splitlines()) == 1
