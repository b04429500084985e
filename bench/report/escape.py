"""Text from records, suites and models made safe for a page: it can neither be markup nor leave its cell."""

from __future__ import annotations

import re

_HTML = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_MARKUP = re.compile(r"([\\`*\[\]|])")
_EMPHASIS = re.compile(r"(?<!\w)_|_(?!\w)")  # within a word `_` is no markup


def escape(text: object) -> str:
    """Any text as one line of Markdown that shows it literally, in a table's cell too."""
    line = "".join(_HTML.get(character, character) for character in " ".join(str(text).split()))
    return _EMPHASIS.sub(r"\\_", _MARKUP.sub(r"\\\1", line))


def code(name: object) -> str:
    """A name in Markdown's code style; what would end it, or a cell, is replaced."""
    line = " ".join(str(name).split()).replace("`", "'").replace("|", "¦")
    return f"`{line}`" if line else "` `"
