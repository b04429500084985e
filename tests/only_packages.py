"""Processes in which only named packages can be imported, as on a machine that has no others."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

# Python runs it in each process whose PYTHONPATH holds it, so in those that the first one starts as well.
SCRIPT = '''
import importlib.abc, importlib.util, sys

BLOCKED = set({blocked})

class Blocker(importlib.abc.MetaPathFinder):
    """Finds nothing; refuses what is blocked."""

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

# diffusers asks this whether an optional package is there.
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *a: None if name.partition(".")[0] in BLOCKED else found(name, *a)
sys.meta_path.insert(0, Blocker())
'''


def environment(packages: Iterable[str], directory: Path) -> dict[str, str]:
    """Variables of a process that can import the packages, what they require, and this checkout alone."""
    allowed = _closure(packages)
    blocked = [
        module
        for module, owners in metadata.packages_distributions().items()
        if not allowed & {_normal(owner) for owner in owners} and module not in ("dqar", "bench")
    ]
    (directory / "sitecustomize.py").write_text(SCRIPT.format(blocked=sorted(blocked)))
    path = os.pathsep.join((str(directory), str(Path(__file__).parents[1])))
    return {**os.environ, "PYTHONPATH": path}


def _closure(packages: Iterable[str]) -> set[str]:
    """The packages with whatever they require, extras aside."""
    closed: set[str] = set()
    left = [_normal(name) for name in packages]
    while left:
        name = left.pop()
        if name in closed:
            continue
        closed.add(name)
        try:
            required = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue  # of another platform
        left += [_normal(re.split(r"[^\w.-]", line)[0]) for line in required if "extra ==" not in line]
    return closed


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
