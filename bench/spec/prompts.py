"""Prompts: a text file with one a line; what stands behind a tab is its negative prompt.

Empty lines and lines that begin with # are comments. The file is read once, when the suite is: a run holds
the prompts themselves, and a record their number and a digest of them, never the file's path.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, model_validator

from bench.errors import without_path
from bench.spec.part import SuitePart
from dqar.errors import InvalidFile
from dqar.utils.foreign import read_bytes

SHIPPED = Path(__file__).parents[1] / "suites" / "prompts"
MAX_BYTES = 2**20
MOST = 10_000  # prompts
LONGEST = 2000  # characters of a prompt
Text = Annotated[str, Field(max_length=LONGEST)]


class Prompts(SuitePart):
    """The prompts of a suite, in order."""

    file: str = Field(max_length=255)  # the last part of its path
    texts: tuple[Text, ...] = Field(min_length=1, max_length=MOST)
    negatives: tuple[Text, ...]  # one a prompt, empty where it has none

    @model_validator(mode="after")
    def _paired(self) -> Self:
        if len(self.negatives) != len(self.texts):
            raise ValueError(f"{len(self.negatives)} negative prompts for {len(self.texts)} prompts")
        return self

    @property
    def has_negatives(self) -> bool:
        """Whether any prompt has a negative one."""
        return any(self.negatives)

    @property
    def digest(self) -> str:
        """A hash of the prompts' texts, 16 hex digits; the file's name and comments are no part of it."""
        content = json.dumps([self.texts, self.negatives])
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    def public(self) -> dict[str, Any]:
        """The prompts as a record holds them.

        Returns:
            `file`, number `n` and `digest`; no text of them.
        """
        return {"file": self.file, "n": len(self.texts), "digest": self.digest}

    @classmethod
    def read(cls, name: str) -> Self:
        """Read a file.

        Args:
            name: the path of a .txt file, or the name of one that ships (see `shipped`).

        Returns:
            Its prompts, in its order.

        Raises:
            ValueError: there is no such file, or it holds no prompts within the limits; naming what is wrong.
        """
        path = Path(name) if name.endswith(".txt") else SHIPPED / f"{name}.txt"
        if not name.endswith(".txt") and name not in shipped():
            raise ValueError(f"no such prompts; allowed: {', '.join(shipped())}, or the path of a .txt file")
        pairs = [_pair(line) for line in _lines(path)]
        if not pairs:
            raise ValueError("the file holds no prompt; needed: one a line")
        if len(pairs) > MOST:
            raise ValueError(f"the file holds {len(pairs):,} prompts; allowed: at most {MOST:,}")
        texts, negatives = zip(*pairs, strict=True)
        return cls(file=path.name, texts=texts, negatives=negatives)


def shipped() -> list[str]:
    """The prompt files that come with the harness.

    Returns:
        Their names without suffix, sorted.
    """
    return sorted(path.stem for path in SHIPPED.glob("*.txt"))


def _lines(path: Path) -> list[tuple[int, str]]:
    """Number and content of each line that holds a prompt."""
    try:
        content = read_bytes(path, "prompts", MAX_BYTES).decode("utf-8-sig")
    except InvalidFile as error:
        raise ValueError(without_path(error, path)) from error
    except UnicodeDecodeError as error:
        raise ValueError(f"the file is not UTF-8 text at byte {error.start}") from error
    lines = enumerate(content.splitlines(), 1)
    return [(number, line) for number, line in lines if line.strip() and not line.startswith("#")]


def _pair(line: tuple[int, str]) -> tuple[str, str]:
    """The prompt and the negative prompt of a line."""
    number, content = line
    columns = [column.strip() for column in content.split("\t")]
    if len(columns) > 2:
        raise ValueError(
            f"line {number}: {len(columns)} columns; allowed: a prompt, a tab, its negative prompt"
        )
    text, negative = (*columns, "")[:2]
    if not text:
        raise ValueError(f"line {number}: the prompt before the tab is missing")
    if not content.replace("\t", "").isprintable():
        raise ValueError(f"line {number}: a control character is not allowed")
    if max(len(text), len(negative)) > LONGEST:
        raise ValueError(f"line {number}: longer than {LONGEST} characters")
    return text, negative


def _read(value: Any) -> Any:
    return Prompts.read(value) if isinstance(value, str) else value


# As a suite has them, a name or a path, or as a worker is sent them.
PromptFile = Annotated[Prompts, BeforeValidator(_read)]
