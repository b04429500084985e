"""Where records and reports stand: what a user runs apart from what is published."""

from __future__ import annotations

from pathlib import Path

from bench.errors import BadInput

# What commands write; git ignores it.
RESULTS, REPORTS = Path("results/local"), Path("reports/local")
# Committed evidence and its reports; `publish` alone writes them.
PUBLISHED_RESULTS, PUBLISHED_REPORTS = Path("results/published"), Path("reports")


def check_local(results: Path) -> None:
    """Refuse to run into the published records.

    Args:
        results: The root of the records that a run would write.

    Raises:
        BadInput: `results` is the directory of the published records, or below it.
    """
    if results.resolve().is_relative_to(PUBLISHED_RESULTS.resolve()):
        raise BadInput(
            f"results: {results} holds published records, which no run may change; allowed: another"
            " directory, and `python -m bench publish` afterwards"
        )
