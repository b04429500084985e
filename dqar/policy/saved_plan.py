"""A plan in a file: which layers each step reuses, and how many guidance branches it runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dqar.validation import check_fields, refusal

FORMAT = "dqar-plan-2"
# Fields of the configuration that a plan may name.
OPTIONS = ("targets", "forecast_order", "output_order", "output_correction")


@dataclass(frozen=True)
class SavedPlan:
    """Takes the place of warm-up, SNR window, schedule, ages and intervals. Data may still forbid.

    `reuse` is `[steps, layers]`; `branches` `[steps]`, 2 = both, 1 = the conditional one, 0 = none: the
    output is foretold. `expected` `[steps]` is the relative error of that forecast at the steps that run, as
    the calibration saw it. `options` stand in place of the configuration's; `facts` say what the plan was
    found on. Raises `ValueError` where the shapes do not fit, or the first step asks for what no step before
    it has made.
    """

    reuse: npt.NDArray[np.bool_]
    branches: npt.NDArray[np.int8]
    expected: npt.NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    options: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.reuse.ndim != 2 or self.branches.shape != self.reuse.shape[:1] or not self.reuse.size:
            raise refusal("plan", (self.reuse.shape, self.branches.shape), "[steps, layers] and [steps]")
        if self.reuse[0].any() or self.branches[0] != 2:
            raise refusal("plan", "a first step that reuses", "one that computes everything")
        if not self.expected.size:
            object.__setattr__(self, "expected", np.ones(len(self.branches)))
        if self.expected.shape != self.branches.shape or not (self.expected > 0).all():
            raise refusal("expected", self.expected.tolist(), "a number above 0 for each step")
        for name in self.options.keys() - set(OPTIONS):
            raise refusal("option", name, ", ".join(OPTIONS))
        check_fields(self.options)

    def save(self, path: str | Path) -> None:
        """Write it as JSON, a line a step."""
        content = {
            "format": FORMAT,
            "facts": dict(self.facts),
            "options": dict(self.options),
            "branches": "".join(map(str, self.branches)),
            "expected": [float(f"{value:.4g}") for value in self.expected],
            "reuse": ["".join("01"[int(flag)] for flag in row) for row in self.reuse],
        }
        Path(path).write_text(json.dumps(content, indent=1) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> SavedPlan:
        """Read what `save` wrote. Raises `ValueError` naming the file and what is wrong with it."""
        try:
            content = json.loads(Path(path).read_text())
            if content["format"] != FORMAT:
                raise refusal("format", content["format"], FORMAT)
            options = {k: tuple(v) if isinstance(v, list) else v for k, v in content["options"].items()}
            return cls(
                np.array([_digits(row, "01") for row in content["reuse"]], dtype=np.bool_),
                _digits(content["branches"], "012"),
                np.array(content["expected"], dtype=np.float64),
                options,
                content["facts"],
            )
        except OSError as error:
            raise ValueError(f"plan_path = {str(path)!r}: cannot be read: {error.strerror}") from error
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"plan_path = {str(path)!r}: is no plan: {error}") from error

    def check(self, steps: int, layers: int) -> None:
        """Raises `ValueError` unless it is for so many steps and layers."""
        if self.reuse.shape != (steps, layers):
            own = "{} steps and {} layers".format(*self.reuse.shape)
            raise ValueError(f"plan_path: the plan is for {own}; this generation has {steps} and {layers}")


def _digits(line: str, allowed: str) -> npt.NDArray[np.int8]:
    if set(line) - set(allowed):
        raise refusal("line", line, ", ".join(allowed))
    return np.array([int(mark) for mark in line], dtype=np.int8)
