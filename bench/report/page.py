"""Pages: Markdown with a title and a headline, written whole or not at all, and the index of them.

A page's last line is a comment with its title and headline as JSON, from which the index takes them.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from bench.errors import BadInput
from bench.machine.files import write_atomic
from bench.report.escape import code, escape
from bench.report.tables.columns import interval
from dqar.utils.foreign import parse_json, read_bytes

_START, _END = "<!-- page: ", " -->"
_FIRST = ("front", "a100", "embedded", "gate")  # those that recommend a configuration
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Page:
    """A page of Markdown."""

    title: str
    headline: str  # the summary, which the index repeats
    body: str  # all below the title, the headline included

    @property
    def markdown(self) -> str:
        """The page as its file holds it."""
        body = re.sub(r"\n{3,}", "\n\n", self.body).strip()
        return f"# {self.title}\n\n{body}\n\n{_START}{self._facts()}{_END}\n"

    def _facts(self) -> str:
        """Title and headline as JSON in which no comment can end."""
        facts = json.dumps({"title": self.title, "headline": self.headline}, ensure_ascii=False)
        return facts.replace("--", r"-\u002d").replace("<", r"\u003c").replace(">", r"\u003e")

    def write(self, directory: Path) -> Path:
        """Write the page, whole or not at all.

        Args:
            directory: it goes to README.md in there.

        Returns:
            The file.
        """
        path = directory / "README.md"
        write_atomic(path, self.markdown.encode())
        _log.info("wrote %s", path)
        return path

    @classmethod
    def read(cls, path: Path) -> Page | None:
        """Read a page.

        Args:
            path: a file of any kind.

        Returns:
            The page; None where the file is none.
        """
        try:
            text = read_bytes(path, "page").decode("utf-8")
        except ValueError:  # unreadable, no regular file, too large, or no text
            return None
        *above, last = text.rstrip("\n").split("\n")
        if not (last.startswith(_START) and last.endswith(_END)):
            return None
        try:
            facts = parse_json(last.removeprefix(_START).removesuffix(_END).encode(), path, "page")
            return cls(str(facts["title"]), str(facts["headline"]), "\n".join(above[1:]).strip())
        except (ValueError, KeyError, TypeError):
            return None


def render(template: str, title: str, headline: str, content: dict[str, Any]) -> Page:
    """Fill in a template.

    Args:
        template: the name of a file in `templates`.
        title: the page's title, plain text.
        headline: one sentence of Markdown, which the template can show.
        content: what else it shows, by name.

    Returns:
        The page.
    """
    filled = _environment().get_template(template).render(content | {"headline": headline})
    return Page(title, headline, filled)


def write_index(reports: Path, earlier: Collection[str] = ()) -> Path:
    """Write README.md of the reports: every page below, but for local ones, with its title and headline.

    Args:
        reports: the root directory of the reports.
        earlier: names of those that were measured on weights with which their model no longer ships.

    Returns:
        The file.
    """
    found_paths = {path.parent.relative_to(reports): path for path in reports.glob("*/**/README.md")}
    pages = {place.as_posix(): path for place, path in found_paths.items() if place.parts[0] != "local"}
    read = [(name, Page.read(pages[name])) for name in sorted(pages, key=_rank)]
    entries = [(name, f"{name}/README.md", page.title, _headline(page)) for name, page in read if page]
    headline = f"{len(entries)} report{'s' * (len(entries) != 1)}"
    content = {"reports": entries, "earlier": earlier}
    return render("index.md.j2", "Reports", headline, content).write(reports)


def _headline(page: Page) -> str:
    return page.headline[:1].upper() + page.headline[1:]


def _rank(name: str) -> tuple[int, str]:
    """Those that recommend a configuration first, the others by name."""
    return (_FIRST.index(name) if name in _FIRST else len(_FIRST), name)


def write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """Write a table with its values in full, a column for each leaf.

    Args:
        path: the file; it is replaced whole or not at all.
        rows: nested dictionaries.

    Returns:
        `path`.
    """
    text = pd.json_normalize(rows).to_csv(index=False, lineterminator="\n")
    write_atomic(path, text.encode())
    return path


def writable(directory: Path) -> None:
    """Make a page's directory.

    Args:
        directory: may be there already.

    Raises:
        BadInput: it cannot be made.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(
            f"reports: {directory} cannot be written: {error.strerror}; needed: a writable directory"
        ) from error


def _environment() -> Environment:
    loader = FileSystemLoader(Path(__file__).parent / "templates")
    environment = Environment(loader=loader, undefined=StrictUndefined, autoescape=False)
    environment.filters |= {"cell": escape, "code": code}
    environment.globals["interval"] = interval
    return environment
