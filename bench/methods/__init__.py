"""Methods: each a context manager that changes a pipeline and, on leaving, restores it exactly.

Baseline, DQAR and every competitor go through these few lines, so that none is measured otherwise.
"""

from __future__ import annotations

import importlib
import json
from typing import Any

from bench.errors import BadInput
from bench.methods.base import Arm, Method

__all__ = ["COPIES", "METHODS", "Arm", "Method", "check", "get", "models_of"]

# Name -> "module:attribute" of its `Method`; imported when used, for torch takes seconds.
METHODS: dict[str, str] = {
    "baseline": "bench.methods.baseline:METHOD",
    "dqar": "bench.methods.dqar:METHOD",
    "fewer_steps": "bench.methods.fewer_steps:METHOD",
    "fora": "bench.methods.diffusers_hooks:FORA",
    "pab": "bench.methods.diffusers_hooks:PAB",
    "taylorseer": "bench.methods.diffusers_hooks:TAYLORSEER",
    "hicache": "bench.methods.hicache:METHOD",
    "speca": "bench.methods.speca:METHOD",
    "budcache": "bench.methods.budcache:METHOD",
    "l2p": "bench.methods.l2p:METHOD",
    "first_block": "bench.methods.diffusers_hooks:FIRST_BLOCK",
    "fastercache": "bench.methods.diffusers_hooks:FASTERCACHE",
    "magcache": "bench.methods.magcache:METHOD",
    "teacache": "bench.methods.teacache:METHOD",
    "seacache": "bench.methods.seacache:METHOD",
    "meancache": "bench.methods.meancache:METHOD",
    "dbcache": "bench.methods.cache_dit:METHOD",
    "stack": "bench.methods.stack:METHOD",
}

# Methods that compute with copies of the pipeline's models: the option that leaves the copies as they are.
COPIES = {"stack": "dqar"}


def models_of(name: str, options: dict[str, Any]) -> str:
    """Which models a method computes with; two runs that differ in it would hold two copies at a time.

    Args:
        name: The method's name; torch is not imported for it.
        options: Its options, by name.

    Returns:
        Equal for methods and options that share their models; empty for the pipeline's own.
    """
    if name not in COPIES:
        return ""
    return json.dumps([name, {key: options[key] for key in sorted(options) if key != COPIES[name]}])


def get(name: str) -> Method:
    """Import a method.

    Args:
        name: A key of METHODS; any other is a KeyError.

    Returns:
        The method.
    """
    module, attribute = METHODS[name].split(":")
    method: Method = getattr(importlib.import_module(module), attribute)
    return method


def check(name: str, options: dict[str, Any], where: str) -> None:
    """Check that a method exists and takes some options.

    Args:
        name: The method's name, as a suite has it.
        options: Its options, by name.
        where: What the message begins with: suite and run.

    Raises:
        BadInput: Naming what is wrong and what is allowed.
    """
    if name not in METHODS:
        raise BadInput(f"{where}: method: {name!r} is not known; allowed: {', '.join(METHODS)}")
    try:
        get(name).check(options)
    except (TypeError, ValueError) as error:
        raise BadInput(f"{where}: options: {' '.join(str(error).split())}") from error
