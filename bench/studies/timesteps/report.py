"""Searched timesteps as a table."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bench.report.tables.columns import grid
from bench.studies.timesteps.study import WrittenTimesteps


def table(written: Sequence[WrittenTimesteps]) -> str:
    """Tabulate searched timesteps.

    Args:
        written: what was written.

    Returns:
        A Markdown table, a row a file: drift on the images searched on, next to the best usual spacing's.
    """
    titles = ["file", "evaluations", "geometric mean", "mean", "best spacing, geometric mean"]
    return grid(
        titles,
        [
            [
                one.file.stem,
                str(one.steps),
                f"{one.outcome.score:.4f}",
                f"{float(np.mean(one.outcome.drifts)):.4f}",
                f"{one.spacing.score:.4f}",
            ]
            for one in written
        ],
    )
