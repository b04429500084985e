"""Warnings that point at the user's line, not at one within `dqar`."""

from __future__ import annotations

import sys
import warnings

from dqar.errors import DQARWarning


def warn(message: str) -> None:
    """Issue a `DQARWarning` at the nearest caller outside of `dqar`; Python shows it once per line.

    Args:
        message: One line that names the field and why it has no effect.
    """
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "dqar":
        frame, level = frame.f_back, level + 1
    warnings.warn(message, DQARWarning, stacklevel=level)
