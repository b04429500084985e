"""The failures that the harness expects, each said in one line."""

from __future__ import annotations

import re
from inspect import isclass
from typing import get_args

from pydantic import BaseModel, ValidationError


class BadInput(Exception):
    """What a user gave cannot be used: one line naming it and what is allowed; exit code 2."""


class NonFinite(Exception):
    """A latent is NaN or infinite; the message names the step, and the layer where it is known."""


def describe(error: ValidationError, model: type[BaseModel]) -> str:
    """What `model` refused as one line: field, value, what is allowed, and how many more."""
    first, *rest = error.errors()
    field = ".".join(str(part) for part in first["loc"]) or "suite"
    if first["type"] == "extra_forbidden":
        said = f"{field}: unknown field; allowed: {', '.join(_siblings(first['loc'][:-1], model))}"
    elif first["type"] == "missing":
        said = f"{field}: missing; it must be given"
    else:
        said = f"{field}: {_short(first['input'])} is not allowed: {one_line(first['msg'])}"
    return said + (f" (and {len(rest)} more)" if rest else "")


def _siblings(loc: tuple[int | str, ...], model: type[BaseModel]) -> list[str]:
    """The fields of the part of `model` that is there."""
    for name in (step for step in loc if isinstance(step, str)):
        annotation = model.model_fields[name].annotation
        kinds = (annotation, *get_args(annotation))
        model = next(kind for kind in kinds if isclass(kind) and issubclass(kind, BaseModel))
    return list(model.model_fields)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def one_line(error: object) -> str:
    """An error's words without line breaks."""
    return re.sub(r"\s+", " ", str(error)).strip().removeprefix("Value error, ")
