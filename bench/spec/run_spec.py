"""`RunSpec`: one configuration with everything that decides its results."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainSerializer

from bench.machine.scrub import scrubbed
from bench.methods import models_of
from bench.spec.settings import Name, Settings


def finite(value: Any) -> Any:
    """A value as strict JSON allows it: infinities and NaN, which JSON lacks, become words.

    Args:
        value: Dicts, lists, tuples and plain values.

    Returns:
        The same with `inf`, `-inf` and `nan` as text, tuples as lists.
    """
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def infinite(value: Any) -> Any:
    """The inverse of `finite`.

    Args:
        value: What JSON gave.

    Returns:
        The same with `inf`, `-inf` and `nan` as floats.
    """
    if isinstance(value, dict):
        return {key: infinite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [infinite(item) for item in value]
    return float(value) if value in ("inf", "-inf", "nan") else value


# Sent to a worker as JSON, an option must come out as it went in.
Options = Annotated[dict[str, Any], BeforeValidator(infinite), PlainSerializer(finite, when_used="json")]


class RunSpec(Settings):
    """One configuration, with everything that decides its results."""

    suite: Name
    name: Name
    method: str
    options: Options = Field(default_factory=dict)
    weights: Literal["trained", "random"] = "trained"

    @property
    def measures_quality(self) -> bool:
        """Whether images are compared: not where random weights would make that meaningless."""
        return self.quality.n > 0 and self.weights == "trained"

    def settings(self) -> dict[str, Any]:
        """What it shares with configurations that can be measured together.

        Returns:
            All fields but name, method and options, equal for configurations that share a group.
        """
        return self.model_dump(exclude={"name", "method", "options"})

    def public(self) -> dict[str, Any]:
        """The configuration as a record holds it: the last part of each path, never a path.

        Returns:
            Plain data, finite and scrubbed.
        """
        shown = {"model": shown_model(self.model), "quality": self.quality.public()}
        if self.prompts:
            shown["prompts"] = self.prompts.public()
        # What a suite of class labels does not have is not recorded, as before there was any.
        absent = {
            name for name, given in (("prompts", self.prompts), ("call", self.call.given())) if not given
        }
        plain: dict[str, Any] = scrubbed(finite(self.model_dump(exclude=absent) | shown))
        return plain


def shown_model(model: str) -> str:
    """A model as a record may show it.

    Args:
        model: A name, a directory or a hub id.

    Returns:
        The last part of a directory's path; else `model`.
    """
    return Path(model).name if Path(model).is_dir() else model


def groups(specs: Sequence[RunSpec]) -> Iterator[list[RunSpec]]:
    """The configurations in order, in groups that one process measures together.

    A group is at most `timing.together` configurations in a row with the same settings and models. A compiled
    configuration is a group of its own: it has its own graphs of one transformer, and torch keeps few.

    Args:
        specs: The configurations in the order that they run in.

    Yields:
        Groups of one configuration or more, in that order.
    """
    for _, same in itertools.groupby(specs, lambda s: (s.settings(), models_of(s.method, s.options))):
        members = list(same)
        size = 1 if members[0].compile else members[0].timing.together
        yield from (members[i : i + size] for i in range(0, len(members), size))
