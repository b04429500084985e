"""Text from records, suites and models made safe for a page: it can neither be markup nor leave its cell."""

from __future__ import annotations

import re

_HTML = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_MARKUP = re.compile(r"([\\`*\[\]|])")
_EMPHASIS = re.compile(r"(?<!\w)_|_(?!\w)")  # within a word `_` is no markup


def escape(text: object) -> str:
    """Write any text so that Markdown shows it literally, in a table's cell too.

    Args:
        text: anything; it is shown as `str` has it.

    Returns:
        One line.
    """
    line = "".join(_HTML.get(character, character) for character in " ".join(str(text).split()))
    return _EMPHASIS.sub(r"\\_", _MARKUP.sub(r"\\\1", line))


def code(name: object) -> str:
    """Write a name in Markdown's code style.

    Args:
        name: anything; backticks and bars, which would end it or a cell, are replaced.

    Returns:
        One line.
    """
    line = " ".join(str(name).split()).replace("`", "'").replace("|", "¦")
    return f"`{line}`" if line else "` `"
