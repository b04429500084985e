"""Recognises the numbers in the sentences and tables of a study's page, and has each checked."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from sentence_checks import same

ROOT = Path(__file__).parents[1]
REPORTS, RESULTS = ROOT / "reports", ROOT / "results" / "published"
N = r"(-?\d+(?:\.\d+)?)"
INTERVAL = rf"{N} \[{N}, {N}\]"
Forms = Mapping[str, Callable[..., None]]


def explain(text: str, forms: Forms) -> str:
    """Check every number that has a form; what is left of the lines that hold a digit and have none."""
    for pattern, check in forms.items():
        matches = list(re.finditer(pattern, text))
        assert matches, f"no sentence of the form {pattern}"
        for match in matches:
            check(*match.groups())
        text = re.sub(pattern, " ¤ ", text)
    text = re.sub(r"`[^`]*`|\]\([^)]*\)", " ", text)
    return "\n".join(line for line in text.split("\n") if re.search(r"\d", line))


def sentences(page: Path) -> str:
    """A page's text: its title and paragraphs, neither tables nor the comment at its end."""
    body = re.sub(r"<details>.*?</details>", "", page.read_text(encoding="utf-8"), flags=re.S)
    kept = [line for line in body.split("\n") if not line.startswith(("|", "<!--", "!["))]
    return re.sub(r"(?<=\S)\n(?=[^\n#-])", " ", "\n".join(kept))


def cells(page: Path, first: str) -> list[list[str]]:
    """The rows of the table whose first title is `first`."""
    lines = page.read_text(encoding="utf-8").split("\n")
    start = next(i for i, line in enumerate(lines) if line.startswith(f"| {first} |"))
    table = lines[start + 2 :]
    end = next(i for i, line in enumerate(table) if not line.startswith("|"))
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table[:end]]


def equal(*expected: object) -> Callable[..., None]:
    """A check that each number shown is the one expected; what is given in full is rounded as it is shown."""

    def check(*shown: str) -> None:
        for text, value in zip(shown, expected, strict=True):
            if isinstance(value, float):
                same(text, value)
            else:
                assert text == str(value)

    return check


def interval(shown: str, found: Mapping[str, float]) -> None:
    values = re.findall(N, shown)
    for text, key in zip(values, ("mean", "low", "high"), strict=True):
        same(text, found[key])
