"""The failures that the harness expects, each stated in one line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from inspect import isclass
from typing import get_args

from pydantic import BaseModel, ValidationError

LONGEST_WORD, LONGEST_LINE = 200, 1500  # characters of a refusal


class BadInput(Exception):
    """What a user gave cannot be used: one line naming it and what is allowed; exit code 2."""


class NonFinite(Exception):
    """A latent is NaN or infinite; the message names the step, and the layer where it is known."""


def describe(error: ValidationError, model: type[BaseModel] | None) -> str:
    """State in one line what a model refused: field, value, what is allowed, and how many more errors there
    are.

    Args:
        error: What pydantic raised.
        model: The class that refused; its fields are named where one is unknown. None = the line names none.

    Returns:
        The line, without a final dot.
    """
    first, *rest = error.errors()
    field = ".".join(str(part)[:80] for part in first["loc"]) or "suite"
    if first["type"] == "extra_forbidden":
        allowed = _siblings(first["loc"][:-1], model) if model else []
        text = f"{field}: unknown field" + (f"; allowed: {', '.join(allowed)}" if allowed else "")
    elif first["type"] == "missing":
        text = f"{field}: missing; it must be given"
    else:
        text = f"{field}: {_short(first['input'])} is not allowed: {one_line(first['msg'])}"
    return text + (f" (and {len(rest)} more)" if rest else "")


def _siblings(loc: tuple[int | str, ...], model: type[BaseModel]) -> list[str]:
    """The fields of the part of `model` that is there, none where it is no such part."""
    for name in (step for step in loc if isinstance(step, str)):
        field = model.model_fields.get(name)
        annotation = field.annotation if field else None
        kinds = (annotation, *get_args(annotation))
        parts = [kind for kind in kinds if isclass(kind) and issubclass(kind, BaseModel)]
        if not parts:
            return []
        model = parts[0]
    return list(model.model_fields)


def _short(value: object) -> str:
    try:
        text = repr(value)
    except Exception:  # such as an integer of 5,000 digits
        text = f"<{type(value).__name__}>"
    return text if len(text) <= 80 else text[:77] + "..."


def one_line(error: object) -> str:
    """An error's text without line breaks.

    Args:
        error: An exception, or anything whose `str` is its text.

    Returns:
        The text with single spaces, without pydantic's `Value error, `.
    """
    return re.sub(r"\s+", " ", str(error)).strip().removeprefix("Value error, ")


def listed(names: Sequence[str], most: int = 40) -> str:
    """Join names for a message.

    Args:
        names: Names in the order to be shown.
        most: How many are shown.

    Returns:
        Names with commas between, and how many more there are.
    """
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def without_path(error: object, path: object) -> str:
    """The message of a reader of external files, without the path that the caller names in its own way.

    Args:
        error: What `dqar.utils.foreign` raised.
        path: The file that it names.

    Returns:
        What follows the quoted path, or the whole message where the path is not in it.
    """
    text = one_line(error)
    return text.partition(f"{str(path)!r} ")[2] or text


def shortened(text: str) -> str:
    """Bound a message that holds what a user gave.

    Args:
        text: Any text.

    Returns:
        One line of at most LONGEST_LINE characters, no word of it longer than LONGEST_WORD.
    """
    cut = re.sub(rf"\S{{{LONGEST_WORD + 1},}}", lambda word: word.group()[: LONGEST_WORD - 3] + "...", text)
    line = one_line(cut)
    return line if len(line) <= LONGEST_LINE else line[: LONGEST_LINE - 3] + "..."
