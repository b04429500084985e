"""Methods: each a context manager that changes a pipeline and, on leaving, restores it exactly.

Baseline, DQAR and every competitor go through these few lines, so that none is measured otherwise.
"""

from __future__ import annotations

import importlib
from typing import Any

from bench.errors import BadInput
from bench.methods.base import ATTENTION, Arm, Method

__all__ = ["ATTENTION", "METHODS", "Arm", "Method", "check", "get"]

# Name -> "module:attribute" of its `Method`; imported when used, for torch takes seconds.
METHODS: dict[str, str] = {
    "baseline": "bench.methods.baseline:METHOD",
    "dqar": "bench.methods.dqar:METHOD",
    "fewer_steps": "bench.methods.fewer_steps:METHOD",
}


def get(name: str) -> Method:
    """The method of that name; KeyError where there is none."""
    module, attribute = METHODS[name].split(":")
    method: Method = getattr(importlib.import_module(module), attribute)
    return method


def check(name: str, options: dict[str, Any], where: str) -> None:
    """BadInput unless the method exists and takes these options; `where` opens the message."""
    if name not in METHODS:
        raise BadInput(f"{where}: method: {name!r} is not known; allowed: {', '.join(METHODS)}")
    try:
        get(name).check(options)
    except (TypeError, ValueError) as error:
        raise BadInput(f"{where}: options: {' '.join(str(error).split())}") from error
