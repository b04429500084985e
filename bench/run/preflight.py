"""Files that the user gave for quality, tried before anything runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from bench.spec.external_files import refuse
from bench.spec.settings import QualitySettings


def check(quality: QualitySettings) -> list[str]:
    """What each given file holds, one line each; BadInput unless every one can be used."""
    return list(_lines(quality))


def _lines(quality: QualitySettings) -> Iterator[str]:
    given = quality.files()
    for field, path in given.items():
        _check_kind(field, path)
    if given:  # else torch need not be loaded
        from bench.measure import features, perceptual, reference

        features.check(quality)
        perceptual.check(quality)
        if held := reference.check(quality):
            yield f"reference: {held}"


def _check_kind(field: str, path: Path) -> None:
    if not path.exists():
        raise refuse(field, path, "does not exist")
    if not (path.is_file() or path.is_dir()):  # reading a pipe would wait for ever
        raise refuse(field, path, "is no regular file")
