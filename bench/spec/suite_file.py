"""The schema of a suite file: settings that all runs share, the runs, and goals for the report."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from bench.record import Mean, Median, field_kinds
from bench.spec.part import SuitePart
from bench.spec.settings import Name, Settings


def numeric_field(path: str) -> str:
    """Check that a field of a record holds a number.

    Args:
        path: Dotted, such as `timing.speedup`.

    Returns:
        `path` itself.

    Raises:
        ValueError: There is no such field, or it holds none.
    """
    if not {int, float, Mean, Median} & set(field_kinds(path)):
        raise ValueError(f"{path!r} holds no number")
    return path


Metric = Annotated[str, AfterValidator(numeric_field)]


class Run(SuitePart):
    """One entry of `runs`.

    A grid makes one configuration of each combination of its values; `settings` replace those of the
    suite for this entry.
    """

    name: Name
    method: str
    options: dict[str, Any] = Field(default_factory=dict)
    grid: dict[str, Annotated[list[Any], Field(min_length=1)]] = Field(default_factory=dict)
    settings: dict[str, Any] = Field(default_factory=dict)

    @property
    def count(self) -> int:
        """How many configurations it makes."""
        return math.prod(map(len, self.grid.values()))

    def expand(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """The configurations that the entry makes, one for each combination of the grid's values.

        Yields:
            Name and options; the name states the grid's values.
        """
        for values in itertools.product(*self.grid.values()):
            chosen = dict(zip(self.grid, values, strict=True))
            suffix = "".join(f"-{key}={value}" for key, value in chosen.items())
            yield self.name + re.sub(r"[^A-Za-z0-9._=+-]", "_", suffix), self.options | chosen


class Goal(SuitePart):
    """A target that the report judges.

    It is on a metric of a run, or on its ratio to the metric `of` of the same run, or to that of the run
    `over`.
    """

    description: str
    run: Name
    metric: Metric
    of: Metric | None = None  # None = `metric`, where `over` is given
    over: Name | None = None  # None = `run`, where `of` is given
    at_least: float | None = None
    at_most: float | None = None

    @model_validator(mode="after")
    def _bound(self) -> Self:
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError("one of at_least and at_most must be given")
        return self


class SuiteFile(Settings):
    """The content of a suite file."""

    title: str
    device: Literal["any", "cuda"] = "any"  # cuda: its model is too large for a CPU
    report: Literal["suite", "machine"] = "suite"  # what the report's directory is named after
    # The command that runs the suite and writes its page, in place of `run` and `report`: a module of
    # bench.studies. This field is the one place that states it.
    command: str | None = None
    on_flows: list[Name] = Field(default_factory=list)  # not for flows, for which these suites are
    subject: Literal["speed", "memory", "distances"] = "speed"  # what the report's summary is about
    publish_images: bool = True  # whether `publish` keeps the worst samples, which its page shows in a grid
    # Share of the baseline's own drift that a configuration with "no loss" may add to it.
    no_loss_margin: float = Field(default=0.05, gt=0, lt=1)
    goals: list[Goal] = Field(default_factory=list)
    runs: list[Run] = Field(min_length=1)

    def settings(self) -> dict[str, Any]:
        """The settings that all runs share.

        Returns:
            The fields of `Settings` by name, as plain data.
        """
        return self.model_dump(include=set(Settings.model_fields))
