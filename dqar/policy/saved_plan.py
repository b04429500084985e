"""A plan in a file: which layers each step reuses, and which steps run the conditional branch alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dqar.validation import refusal

Table = npt.NDArray[np.bool_]
FORMAT = "dqar-plan-1"


@dataclass(frozen=True)
class SavedPlan:
    """Takes the place of warm-up, SNR window, schedule, ages and guidance interval. Data may still forbid.

    `reuse` is `[steps, layers]`, `alone` `[steps]`; `facts` say what it was found on. Raises `ValueError`
    where the shapes do not fit, or the first step asks for what no step before it has made.
    """

    reuse: Table
    alone: Table
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.reuse.ndim != 2 or self.alone.shape != self.reuse.shape[:1] or not self.reuse.size:
            raise refusal("plan", (self.reuse.shape, self.alone.shape), "[steps, layers] and [steps]")
        if self.reuse[0].any() or self.alone[0]:
            raise refusal("plan", "a first step that reuses", "one that computes everything")

    def save(self, path: str | Path) -> None:
        """Write it as JSON, a line of 0 and 1 a step."""
        content = {
            "format": FORMAT,
            "facts": dict(self.facts),
            "alone": _line(self.alone),
            "reuse": [_line(row) for row in self.reuse],
        }
        Path(path).write_text(json.dumps(content, indent=1) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> SavedPlan:
        """Read what `save` wrote. Raises `ValueError` naming the file and what is wrong with it."""
        try:
            content = json.loads(Path(path).read_text())
            if content["format"] != FORMAT:
                raise refusal("format", content["format"], FORMAT)
            rows = [_flags(row) for row in content["reuse"]]
            return cls(np.array(rows, dtype=np.bool_), _flags(content["alone"]), content["facts"])
        except OSError as error:
            raise ValueError(f"plan_path = {str(path)!r}: cannot be read: {error.strerror}") from error
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"plan_path = {str(path)!r}: is no plan: {error}") from error

    def check(self, steps: int, layers: int) -> None:
        """Raises `ValueError` unless it is for so many steps and layers."""
        if self.reuse.shape != (steps, layers):
            own = "{} steps and {} layers".format(*self.reuse.shape)
            raise ValueError(f"plan_path: the plan is for {own}; this generation has {steps} and {layers}")


def _line(flags: Table) -> str:
    return "".join("01"[int(flag)] for flag in flags)


def _flags(line: str) -> Table:
    if set(line) - {"0", "1"}:
        raise refusal("line", line, "0 and 1")
    return np.array([mark == "1" for mark in line], dtype=np.bool_)
