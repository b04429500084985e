"""`pip install dqar` alone: every public module imports, and what needs more names the extra in one line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import dqar

# Distributions that the extras add, by the names of their modules.
EXTRAS = (
    "asv", "cache_dit", "jinja2", "matplotlib", "pynvml", "optuna", "pandas", "psutil", "pydantic", "scipy",
    "tabulate", "torch_fidelity", "transformers", "typer", "accelerate", "peft", "torchao", "hypothesis",
    "pytest",
)  # fmt: skip

SCRIPT = """
import importlib, importlib.abc, pathlib, pkgutil, sys

class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

BLOCKED = set(sys.argv[1].split(","))
# diffusers asks importlib.metadata what is installed; where its own imports fail it must do without.
import importlib.util, importlib.metadata
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *a: None if name.partition(".")[0] in BLOCKED else found(name, *a)
sys.meta_path.insert(0, Blocker())

import dqar
for module in pkgutil.walk_packages(dqar.__path__, "dqar."):
    importlib.import_module(module.name)
for name in dqar.__all__:
    getattr(dqar, name)

import torch
from dqar.errors import MissingExtra
from dqar.evaluation.metrics import compute_clip_score, compute_fid
images = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
for call in (lambda: compute_fid(images, images), lambda: compute_clip_score(images, ["a", "b"], "model")):
    try:
        call()
    except MissingExtra as error:
        print(error)
"""


def test_every_module_imports_without_extras_and_names_the_one_it_needs() -> None:
    """With all packages of the extras blocked, all of `dqar` imports; FID and CLIP name their extra."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, ",".join(EXTRAS)],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(dqar.__file__).parents[1],
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines() == [
        f"{package} is not installed; needed: pip install 'dqar[bench]'"
        for package in ("torch_fidelity", "transformers")
    ]
