"""The project speaks the field's language: words of its former dialect do not come back."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXTS = {".py", ".md", ".yaml", ".toml", ".j2", ".html", ""}
# Data, what others wrote, and what holds former words by design: this test and the list of renames.
OTHERS = ("results/", "bench/regression/vendor/", "tests/test_language.py", "CHANGELOG.md", "LICENSE")
# Without an ordinary sense that fits anywhere here. Instead: skipped, predicted, correction, candidate,
# option, reference benchmark, competitor, comparison, again, counterpart, image, contaminated, invalid,
# alongside, directory, given.
WORDS = re.compile(
    r"(?<![a-z])(?:fore(?:told|tell|tells|telling)|foreseen|amends|genomes?|yardsticks?|duels?|arenas?|"
    r"contestants?|rivals?|knobs?|hopeless|likeness|anew|milder|mildest|pictures?|flaws?|flawed|"
    r"spoils?|spoilt|cannot tell|in one sentence|the seed's|beside|folders?|told)(?![a-z])",
    re.IGNORECASE,
)


def tracked() -> Iterator[Path]:
    """Every text of the repository that somebody here wrote."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    for name in filter(None, listed.stdout.decode().split("\0")):
        path = ROOT / name
        if path.suffix in TEXTS and not name.startswith(OTHERS) and path.is_file():
            yield path


def former_words(text: str) -> list[tuple[int, str]]:
    """The line and the word of each hit."""
    return [
        (number, word)
        for number, line in enumerate(text.splitlines(), 1)
        for word in WORDS.findall(line.replace("_", " "))
    ]


def test_no_word_of_the_former_dialect_comes_back() -> None:
    """No source, template, suite, document or page uses a word that the field's language replaced."""
    paths = list(tracked())
    if not paths:
        pytest.skip("needs a git checkout")
    hits = [
        f"{path.relative_to(ROOT)}:{number}: {word}"
        for path in paths
        for number, word in former_words(path.read_text(encoding="utf-8"))
    ]
    assert not hits, "\n".join(hits)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "The steps that are foretold, MOST_AMENDS and test_every_knob_is_live.",
            ["foretold", "AMENDS", "knob"],
        ),
        ("A Genome, its rival, and the seed's window.", ["Genome", "rival", "the seed's"]),
        ("Renewed survival; foretelling-free: the image alone, knobbly.", ["foretelling"]),
    ],
)
def test_the_check_finds_words_in_names_and_in_prose(text: str, words: list[str]) -> None:
    """A former word is found in prose, in constants and in names of tests; not within another word."""
    assert [word for _, word in former_words(text)] == words
