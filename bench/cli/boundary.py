"""Where exceptions end: what is expected to go wrong becomes one line and an exit code, never a traceback."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bench import interrupts
from bench.cli.options import BAD_INPUT, INTERRUPTED
from bench.errors import BadInput, NonFinite, describe, shortened
from dqar.errors import DQARError


def main() -> int:
    """Run the command line of this process.

    Returns:
        Its exit code.
    """
    from bench.cli.main import app

    interrupts.interruptible()
    return guarded(lambda: app(prog_name="python -m bench", standalone_mode=False))


def guarded(run: Callable[[], Any]) -> int:
    """Run a command, with one line on stderr where what goes wrong is not the command's own exit code.

    A fault of the harness itself still has its traceback: it is to be reported.

    Args:
        run: the command; it returns its exit code, or anything else for 0.

    Returns:
        The exit code.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever started this
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115
    try:
        code = run()
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except KeyboardInterrupt:
        _say("interrupted: run it again to resume")
        return INTERRUPTED
    except OSError as error:
        return _system(error)
    except BaseException as error:
        if interrupts.was_interrupted():  # in the middle of an import it came out as something else
            _say("interrupted: run it again to resume")
            return INTERRUPTED
        line = expected(error) if isinstance(error, Exception) else None
        if line is None:
            raise
        _say(line)
        return BAD_INPUT


def expected(error: Exception) -> str | None:
    """State what is wrong, where that is no fault of the harness.

    Args:
        error: what a command raised.

    Returns:
        One line; None where it is the harness's own fault.
    """
    if isinstance(error, ValidationError):
        return shortened(describe(error, None))
    if isinstance(error, BadInput | NonFinite | DQARError):
        return shortened(str(error))
    if isinstance(error, RecursionError):
        return "the input is nested too deeply; allowed: 64 levels"
    if isinstance(error, MemoryError):
        return "out of memory"
    shown = getattr(error, "format_message", None)  # click's: an option that it refuses
    return shortened(shown()) if shown else None


def _system(error: OSError) -> int:
    """What the system refuses: a full disk, a closed pipe, a directory that may not be read."""
    name = f"{error.filename}: " if error.filename else ""
    _say(shortened(f"{name}{error.strerror or error}"))
    _silence()
    return BAD_INPUT


def _silence() -> None:
    """Whatever Python still holds for a stdout that takes nothing is dropped, not complained about."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _say(line: str) -> None:
    try:
        sys.stderr.write(line + "\n")
        sys.stderr.flush()
    except (OSError, ValueError):  # stderr is closed or full as well: the exit code is left
        pass
