"""The errors that `dqar` raises on purpose: one line with the field, the value and what is allowed."""

from __future__ import annotations

from typing import Any

MAX_VALUE_LENGTH = 200  # characters of a refused value that its error shows


class DQARError(ValueError):
    """Base of every error that `dqar` raises on purpose; its message is one line."""


class InvalidValue(DQARError):
    """A field of a configuration, or an argument, that is out of range."""


class InvalidFile(DQARError):
    """A file that cannot be read, or does not hold what it should."""


class Unsupported(DQARError):
    """A model, a scheduler or a pipeline that cannot do what was asked of it."""


class MissingExtra(DQARError, ImportError):
    """A function that needs packages which `pip install dqar` alone does not install."""


class NonFinite(DQARError):
    """Images or latents hold NaN or infinite values; the message states which."""


def invalid_value(field: str, value: Any, allowed: str) -> InvalidValue:
    """Make the error that refuses a value.

    Args:
        field: Name of the field or argument.
        value: What was given; at most `MAX_VALUE_LENGTH` characters of it are shown.
        allowed: What is allowed, in words.

    Returns:
        The error, for the caller to raise.
    """
    return InvalidValue(f"{field} = {short_repr(value)} is not allowed; allowed: {allowed}")


def short_repr(value: Any) -> str:
    """Show a value within a message; this never raises.

    Args:
        value: Anything, even a value whose `__repr__` fails.

    Returns:
        `repr(value)` on one line, cut to `MAX_VALUE_LENGTH` characters.
    """
    try:
        text = repr(value)
    except Exception:  # an integer of more than 4,300 digits, or a value whose `__repr__` fails
        text = f"<{type(value).__name__} that cannot be shown>"
    text = " ".join(text.split())
    return text if len(text) <= MAX_VALUE_LENGTH else text[: MAX_VALUE_LENGTH - 3] + "..."


class DQARWarning(UserWarning):
    """What was asked for has no effect, or is used by something else."""
