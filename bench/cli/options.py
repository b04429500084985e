"""What all command lines share: exit codes, common options, and bad input told in one line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from bench.errors import BadInput, shortened
from bench.machine.device import device_type
from dqar.errors import DQARError

OK, REGRESSED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130

Results = Annotated[Path, typer.Option(help="Folder of the records.")]
Reports = Annotated[Path, typer.Option(help="Folder of the reports.")]
Model = Annotated[str, typer.Option(help="embedded, the directory of a DiTPipeline, or a hub id.")]
SuiteName = Annotated[str, typer.Argument(metavar="SUITE", help="A name from `list`, or auto.")]
Guidance = Annotated[float, typer.Option(min=0, help="Weight of classifier-free guidance.")]


def chosen(name: str) -> str:
    """The suite that `auto` means here."""
    if name != "auto":
        return name
    return "a100" if device_type() == "cuda" else "embedded"


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Bad input is one line on stderr and exit code 2, without a traceback; see `bench.cli.boundary`, which
    does the same for what comes from elsewhere."""
    try:
        yield
    except (BadInput, DQARError) as error:
        typer.echo(shortened(str(error)), err=True)
        raise typer.Exit(BAD_INPUT) from error
    except KeyboardInterrupt:
        typer.echo("interrupted: run it again to resume", err=True)
        raise typer.Exit(INTERRUPTED) from None


def commands(app: typer.Typer) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A decorator that registers a function as a command of `app`, its errors told in one line."""

    def command(function: Callable[..., Any]) -> Callable[..., Any]:
        name = function.__name__.removesuffix("_").replace("_", "-")  # `list_` is called list
        return app.command(name)(one_line_errors()(function))

    return command
