"""A step of the check: what it measures, its time limit, its goals, and the result that it leaves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from bench.record import Median

if TYPE_CHECKING:
    from bench.studies.gpu_check.rig import Rig

TOY = "-toy"  # ends the name of a machine's directory where the check was a trial at toy size
Value = bool | int | float | str | Median | None
Verdict = Literal["met", "missed", "unclear", "not measured"]


@dataclass(frozen=True)
class Goal:
    """A bound on one of a step's values: `at_least` or `at_most`."""

    value: str
    at_least: float | None = None
    at_most: float | None = None

    def verdict(self, value: Value) -> Verdict:
        """Judge a value.

        Args:
            value: the value; None or text: not measured.

        Returns:
            Whether its whole interval keeps the bound.
        """
        if value is None or isinstance(value, str):
            return "not measured"
        low, high = (value.low, value.high) if isinstance(value, Median) else (float(value),) * 2
        if self.at_least is not None:
            return "met" if low >= self.at_least else "missed" if high < self.at_least else "unclear"
        bound = self.at_most if self.at_most is not None else float("inf")
        return "met" if high <= bound else "missed" if low > bound else "unclear"

    def __str__(self) -> str:
        bound = f"at least {self.at_least:g}" if self.at_least is not None else f"at most {self.at_most:g}"
        return f"{self.value} {bound}"


@dataclass(frozen=True)
class Step:
    """One question to the device. `measure` returns named values; what it raises is the step's failure."""

    name: str
    title: str
    limit_s: float
    measure: Callable[[Rig], dict[str, Value]]
    goals: tuple[Goal, ...] = ()


class StepResult(BaseModel):
    """What a step leaves, written as it ends: one JSON file a step."""

    model_config = ConfigDict(extra="forbid")

    step: str
    title: str
    status: Literal["ok", "failed", "skipped"]
    reason: str | None = None
    toy: bool
    seconds: float
    values: dict[str, Value] = {}
    goals: dict[str, Verdict] = {}
    environment: dict[str, Any] = Field(default_factory=dict)
