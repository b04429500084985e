"""A command that only refuses its input does not load torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Runs the commands that it reads, in a process where torch and what is built on it cannot be imported.
WITHOUT_TORCH = """
import contextlib, io, json, sys
class Blocked:
    def find_spec(self, name, *_):
        if name.split(".")[0] in ("torch", "diffusers", "transformers"):
            raise AssertionError(f"{name} was loaded")
sys.meta_path.insert(0, Blocked())
from bench.cli import boundary
from bench.cli.main import app
def ran(arguments):
    with contextlib.redirect_stderr(io.StringIO()) as stderr:
        code = boundary.guarded(lambda: app(args=arguments, standalone_mode=False))
    return code, stderr.getvalue()
print(json.dumps([ran(arguments) for arguments in json.load(sys.stdin)]))
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


MISSPELT: list[tuple[tuple[str, ...], str]] = [
    (("run", "embeded"), "suite 'embeded': no such suite"),
    (("report", "embeded"), "suite 'embeded': no such suite"),
    (("run", "smoke", "--only", "x"), "--only: 'x' is not a run"),
    (("profile", "smoke", "x"), "'x' is not a run"),
    (("generate", "--dqar", "recommendd"), "'recommendd'"),
    (("generate", "--classes", "cta"), "'cta'"),
    (("validate", "/nowhere"), "no such directory"),
    (("calibrate", "--out", "x", "--speedups", "a"), "--speedups: 'a'"),
    (("policy", "eval", "--targets", "2"), "targets: '2'"),
]


@pytest.fixture(scope="module")
def refusals() -> list[tuple[int, str]]:
    """Exit code and message of each of MISSPELT, one after another in one process without torch."""
    commands = json.dumps([arguments for arguments, _ in MISSPELT])
    python = [sys.executable, "-c", WITHOUT_TORCH]
    done = subprocess.run(python, input=commands, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows: list[tuple[int, str]] = json.loads(done.stdout)
    return rows


@pytest.mark.parametrize("case", range(len(MISSPELT)), ids=[" ".join(words) for words, _ in MISSPELT])
def test_a_misspelt_name_is_refused_before_torch_loads(case: int, refusals: list[tuple[int, str]]) -> None:
    """A misspelt suite, run, preset or class is one line and exit code 2, in a process without torch."""
    code, text = refusals[case]
    assert code == 2, text
    assert MISSPELT[case][1] in text and len(text.splitlines()) == 1
