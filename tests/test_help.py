"""Help texts: whole sentences that fit a line, of options that do something, equal where equal is meant."""

from __future__ import annotations

import ast
import inspect
import os
import re
import textwrap
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from typer.testing import CliRunner

from bench.cli.main import app as bench_app
from bench.cli.options import WIDTH
from bench.embedded.train import app as train_app

ROOT = Path(__file__).parents[1]
APPS = {"bench": bench_app, "bench.embedded.train": train_app}
SHARED = ("--results", "--reports", "--prompts")  # mean the same wherever they are


@pytest.fixture(autouse=True, scope="module")
def threads() -> Iterator[None]:
    """The training's command line sets torch's threads, which other tests have as they were."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def commands(command: Any, *path: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    """A command with the words that call it, and all below it."""
    yield path, command
    for name, each in getattr(command, "commands", {}).items():
        yield from commands(each, *path, name)


COMMANDS = {
    " ".join((module, *path)): (app, path, command)
    for module, app in APPS.items()
    for path, command in commands(typer.main.get_command(app))
}


def shown(app: typer.Typer, path: tuple[str, ...], width: int = WIDTH) -> str:
    """What --help prints in a terminal of that many columns."""
    done = CliRunner().invoke(app, [*path, "--help"], terminal_width=width)
    assert done.exit_code == 0, done.output
    return str(done.output)


def texts(name: str) -> dict[str, str]:
    """The help text of a command and of each of its options and arguments."""
    command = COMMANDS[name][2]
    return {"": command.help or ""} | {param.opts[0]: param.help or "" for param in command.params}


def is_sentence(text: str) -> bool:
    """Whether a text starts with a capital and ends with a full stop, or a bracket behind one."""
    return bool(re.fullmatch(r"[A-Z].*\.(\)|\])?", " ".join(text.split())))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_text_is_whole_sentences(name: str) -> None:
    """A command, and each of its options and arguments, has a help text of whole sentences."""
    assert [what or name for what, text in texts(name).items() if not is_sentence(text)] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_no_text_is_cut(name: str) -> None:
    """At 80 and at 100 columns no line is longer than that, and the whole text is there."""
    app, path, command = COMMANDS[name]
    below = getattr(command, "commands", {}).values()
    whole = [*texts(name).values(), *((each.help or "").partition("\n\n")[0] for each in below)]
    for width in (80, WIDTH):
        printed = shown(app, path, width)
        assert max(len(line) for line in printed.splitlines()) <= width
        assert [text for text in whole if "".join(text.split()) not in "".join(printed.split())] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_no_default_is_an_absolute_path(name: str) -> None:
    """What a command reads or writes unless an option sets it stands relative to where it is started."""
    app, path, command = COMMANDS[name]
    defaults = [param.default for param in command.params]
    assert [each for each in defaults if isinstance(each, Path | str) and Path(each).is_absolute()] == []
    assert str(ROOT) not in shown(app, path) and os.path.expanduser("~/") not in shown(app, path)  # noqa: PTH111


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_does_something(name: str) -> None:
    """The function of a command reads each parameter that the command line has."""
    callback: Callable[..., Any] | None = COMMANDS[name][2].callback
    if callback is not None:
        tree = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(callback))))
        read = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        assert set(inspect.signature(inspect.unwrap(callback)).parameters) <= read


def test_equal_options_read_equal() -> None:
    """An option that means the same in several commands has the same text in all of them."""
    spellings: dict[str, set[str]] = defaultdict(set)
    for name in COMMANDS:
        if name not in ("bench asv compare",):  # asv's own results
            for option, text in texts(name).items():
                spellings[option].add(text)
    assert {option: len(spellings[option]) for option in SHARED} == dict.fromkeys(SHARED, 1)


def test_targets_of_make_are_sentences_of_one_line() -> None:
    """`make help` has a sentence for each target that fits the line."""
    lines = re.findall(r"(?m)^([a-z-]+):.*?## (.*)$", (ROOT / "Makefile").read_text())
    assert len(lines) > 20
    assert [text for target, text in lines if not is_sentence(text) or len(text) + 21 > WIDTH] == []
