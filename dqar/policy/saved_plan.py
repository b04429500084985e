"""A plan in a file: which layers each step reuses, and how many guidance branches it runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dqar.config import DQARConfig
from dqar.config_option import check_fields
from dqar.errors import DQARError, InvalidFile, InvalidValue, invalid_value, short_repr
from dqar.utils.atomic import write_atomic
from dqar.utils.foreign import read_json

FORMAT = "dqar-plan-2"
# Fields of the configuration that a plan may name.
OPTIONS = ("targets", "forecast_order", "forecast_over", "output_order", "output_correction")
UNNAMED = {"forecast_over": "log_snr"}  # what plans ran with that were found before they named it


@dataclass(frozen=True, repr=False)
class SavedPlan:
    """Takes the place of warm-up, SNR window, schedule, ages and intervals. Data may still forbid a reuse.

    Attributes:
        reuse: Which layers are reused at each step, `[steps, layers]`.
        branches: Guidance branches that each step runs, `[steps]`: 2 = both, 1 = the conditional one,
            0 = none, and the output is forecast.
        expected: Relative error of that forecast at the steps that run, as the calibration measured it,
            `[steps]`; 1 everywhere by default.
        options: Fields of the configuration that the plan sets, of those in `OPTIONS`.
        facts: What the plan was found on.

    Raises:
        InvalidValue: Shapes that do not agree, or a first step that reuses what no step before has computed.
    """

    reuse: npt.NDArray[np.bool_]
    branches: npt.NDArray[np.int8]
    expected: npt.NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    options: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.reuse.ndim != 2 or self.branches.shape != self.reuse.shape[:1] or not self.reuse.size:
            raise invalid_value(
                "plan", (self.reuse.shape, self.branches.shape), "[steps, layers] and [steps]"
            )
        if self.reuse[0].any() or self.branches[0] != 2:
            raise invalid_value("plan", "a first step that reuses", "one that computes everything")
        if not self.expected.size:
            object.__setattr__(self, "expected", np.ones(len(self.branches)))
        if (
            self.expected.shape != self.branches.shape
            or not ((self.expected > 0) & (self.expected < np.inf)).all()
        ):
            raise invalid_value("expected", self.expected.tolist(), "a finite number above 0 for each step")
        for name in self.options.keys() - set(OPTIONS):
            raise invalid_value("option", name, ", ".join(OPTIONS))
        check_fields(DQARConfig, self.options)

    def __repr__(self) -> str:
        steps, layers = self.reuse.shape
        skipped, conditional = int((self.branches == 0).sum()), int((self.branches == 1).sum())
        reused = self.reuse[self.branches > 0].mean()  # of the layers' calls at the steps that run
        return (
            f"SavedPlan({steps} steps x {layers} layers: {skipped} steps skipped, {conditional} "
            f"conditional-only, {reused:.0%} reused at the others, options={dict(self.options)!r})"
        )

    def save(self, path: str | Path) -> None:
        """Write it as JSON, a line a step; whole or not at all.

        Args:
            path: The file; it is replaced if it is there.

        Raises:
            OSError: The file cannot be written.
        """
        content = {
            "format": FORMAT,
            "facts": dict(self.facts),
            "options": dict(self.options),
            "branches": "".join(map(str, self.branches)),
            "expected": [float(f"{value:.4g}") for value in self.expected],
            "reuse": ["".join("01"[int(flag)] for flag in row) for row in self.reuse],
        }
        write_atomic(path, json.dumps(content, indent=1) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> SavedPlan:
        """Read what `save` wrote.

        Args:
            path: The file.

        Returns:
            The plan, checked as if it had been made here.

        Raises:
            InvalidFile: With the file and what is wrong with it.
        """
        content = read_json(path, "plan_path")
        try:
            if not isinstance(content, dict):
                raise invalid_value("content", content, "an object")
            if content.get("format") != FORMAT:
                raise invalid_value("format", content.get("format"), FORMAT)
            named = {k: tuple(v) if isinstance(v, list) else v for k, v in content["options"].items()}
            return cls(
                np.array([_digits(row, "01") for row in content["reuse"]], dtype=np.bool_),
                _digits(content["branches"], "012"),
                np.array(content["expected"], dtype=np.float64),
                UNNAMED | named,
                dict(content["facts"]),
            )
        except KeyError as error:
            raise InvalidFile(f"plan_path = {short_repr(str(path))} is no plan: it lacks {error}") from error
        except DQARError as error:
            raise InvalidFile(f"plan_path = {short_repr(str(path))} is no plan: {error}") from error
        except (AttributeError, TypeError, ValueError) as error:  # another type, rows of unequal length
            shown = " ".join(str(error).split())
            raise InvalidFile(f"plan_path = {short_repr(str(path))} is no plan: {shown}") from error

    def check(self, steps: int, layers: int) -> None:
        """Check what the plan is for.

        Args:
            steps: Steps of the generation.
            layers: Layers that DQAR manages.

        Raises:
            InvalidValue: It is for other steps or layers.
        """
        if self.reuse.shape != (steps, layers):
            shape = "{} steps and {} layers".format(*self.reuse.shape)
            raise InvalidValue(
                f"plan_path: the plan is for {shape}; this generation has {steps} and {layers}"
            )


def _digits(line: Any, allowed: str) -> npt.NDArray[np.int8]:
    if not isinstance(line, str) or not line or set(line) - set(allowed):
        raise invalid_value("line", line, f"text of {', '.join(allowed)}")
    return np.array([int(mark) for mark in line], dtype=np.int8)
