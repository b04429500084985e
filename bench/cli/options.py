"""What all commands share: exit codes, common options, and bad input reported in one line."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from bench.errors import BadInput, one_line, shortened
from bench.machine.device import device_type, unusable_gpu
from bench.pipeline.models import EMBEDDED
from bench.spec.prompts import Prompts
from dqar.errors import DQARError

OK, REGRESSED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130

WIDTH = 100  # columns that a help text takes at most, where the terminal has them
SUITES = "the suite's"  # the default of an option that replaces what the suite has
_MODEL = "Model: embedded, embedded-t2i, a pipeline's directory or a hub id."
_PROMPTS = (
    "Prompts: a .txt file with one per line, its negative prompt after a tab; or one that ships: "
    "emoji, lengths or scenes."
)
Results = Annotated[Path, typer.Option(help="Root directory of the results.")]
Reports = Annotated[Path, typer.Option(help="Root directory of the reports.")]
Model = Annotated[str, typer.Option(help=_MODEL)]
ModelOverride = Annotated[str | None, typer.Option("--model", help=_MODEL, show_default=SUITES)]
PromptsOption = Annotated[str | None, typer.Option("--prompts", help=_PROMPTS)]
PromptsOverride = Annotated[str | None, typer.Option("--prompts", help=_PROMPTS, show_default=SUITES)]
SuiteName = Annotated[
    str,
    typer.Argument(
        metavar="SUITE", help="Suite: a name from `list`, a .yaml file, or auto for what fits this machine."
    ),
]
Guidance = Annotated[float, typer.Option(min=0, help="Weight of classifier-free guidance.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of the first image; image i takes seed + i.")]


def chosen(name: str) -> str:
    """Resolve a suite's name to one suite.

    Args:
        name: the name of a suite, or auto.

    Returns:
        The name itself, or the first of those that auto means on this machine; see `all_chosen`.

    Raises:
        BadInput: as for `all_chosen`.
    """
    return all_chosen(name)[0]


def all_chosen(name: str) -> tuple[str, ...]:
    """Resolve a suite's name.

    Args:
        name: the name of a suite, or auto.

    Returns:
        The name itself; for auto the suite of the GPU, or on a CPU that of each model that ships.

    Raises:
        BadInput: there is a GPU that torch cannot use; then `auto` must not mean the CPU in silence.
    """
    if name != "auto":
        return (name,)
    if device_type() == "cuda":
        return ("a100",)
    if why := unusable_gpu():
        raise BadInput(
            f"auto: {why}; allowed: mend that, hide the GPU (CUDA_VISIBLE_DEVICES=), or the suite embedded"
        )
    return EMBEDDED


def prompts_of(name: str | None) -> Prompts | None:
    """Read the prompts that `--prompts` names.

    Args:
        name: a .txt file, or the name of one that ships; None: not given.

    Returns:
        The prompts; None where the option is not given.

    Raises:
        BadInput: there are none.
    """
    try:
        return None if name is None else Prompts.read(name)
    except ValueError as error:
        raise BadInput(f"--prompts: {Path(name or '').name[:80]!r}: {one_line(error)}") from error


def parts(text: str) -> list[str]:
    """Split a list that is separated by commas.

    Args:
        text: the list as the user gave it; may be empty.

    Returns:
        Its parts, without spaces around them and without empty ones.
    """
    return [part.strip() for part in text.split(",") if part.strip()]


def numbers(text: str, option: str, above: float, below: float = math.inf) -> list[float]:
    """Parse a list of numbers that is separated by commas.

    Args:
        text: the list as the user gave it.
        option: the command and option, which opens the message.
        above: every number must be larger.
        below: every number must be smaller.

    Returns:
        The numbers in order, at least one.

    Raises:
        BadInput: where one is no number, or out of bounds, or there is none.
    """
    try:
        values = [float(part) for part in parts(text)]
    except ValueError:
        values = []
    if not values or not all(above < number < below for number in values):
        bounds = f"above {above:g}" if below == math.inf else f"between {above:g} and {below:g}"
        raise BadInput(f"{option}: {text!r} is not allowed; allowed: numbers {bounds}, separated by commas")
    return values


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn bad input into one line on stderr and exit code 2, without a traceback.

    See `bench.cli.boundary`, which does the same for what comes from elsewhere.

    Raises:
        Exit: the body raised bad input (code 2) or was interrupted (130).
    """
    try:
        yield
    except (BadInput, DQARError) as error:
        typer.echo(shortened(str(error)), err=True)
        raise typer.Exit(BAD_INPUT) from error
    except KeyboardInterrupt:
        typer.echo("interrupted: run it again to resume", err=True)
        raise typer.Exit(INTERRUPTED) from None


def commands(app: typer.Typer) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Make a decorator that registers functions as commands, their errors reported in one line.

    Args:
        app: what they are commands of.

    Returns:
        The decorator; a command is named after its function, its summary is the docstring's first paragraph.
    """

    def command(function: Callable[..., Any]) -> Callable[..., Any]:
        name = function.__name__.removesuffix("_").replace("_", "-")  # `list_` is called list
        # Given as it is, click does not cut it to what is left of a line.
        summary = " ".join((function.__doc__ or "").partition("\n\n")[0].split())
        return app.command(name, short_help=summary)(one_line_errors()(function))

    return command
