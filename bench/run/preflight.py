"""Files that the user gave for quality, tried before anything runs."""

from __future__ import annotations

from bench.spec.external_files import refuse
from bench.spec.suite import Quality


def check(quality: Quality) -> None:
    """BadInput unless every file that is given can be used."""
    given = quality.files()
    for field, path in given.items():
        if not path.exists():
            raise refuse(field, path, "does not exist")
    if given:  # else torch need not be loaded
        from bench.measure import features, perceptual, reference

        features.check(quality)
        perceptual.check(quality)
        reference.check(quality)
