"""The README's table of all fields, made from their options.

`python -m dqar.config_table README.md` writes it again.
"""

from __future__ import annotations

import sys
from pathlib import Path

from dqar.config import DQARConfig
from dqar.config_option import defaults, options
from dqar.config_yaml import SECTIONS
from dqar.utils.atomic import write_atomic

BEGIN, END = "<!-- fields: python -m dqar.config_table README.md -->", "<!-- /fields -->"


def table() -> str:
    """The README's table: a row for each field of `DQARConfig`, by section.

    Returns:
        Markdown without a final line break: default, allowed values, effect, and what the field needs.
    """
    standard, known = defaults(DQARConfig), options(DQARConfig)
    lines = ["| field | default | allowed | what it does | needs |", "|---|---|---|---|---|"]
    for name in sorted(known, key=lambda name: SECTIONS.index(known[name].section)):
        option = known[name]
        needs = "; ".join(need.text for need in option.needs)
        cells = (f"`{name}`", f"`{standard[name]}`", option.rule.allowed, option.summary, needs)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def rewritten(text: str) -> str:
    """Put the table into a text.

    Args:
        text: Markdown with the marks `BEGIN` and `END`, between which everything is replaced.

    Returns:
        The text with the table between its two marks.

    Raises:
        ValueError: A mark is missing.
    """
    before, after = text.index(BEGIN) + len(BEGIN), text.index(END)
    return f"{text[:before]}\n\n{table()}\n\n{text[after:]}"


if __name__ == "__main__":
    readme = Path(sys.argv[1])
    write_atomic(readme, rewritten(readme.read_text(encoding="utf-8")))
