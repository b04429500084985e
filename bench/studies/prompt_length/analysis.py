"""How entropy and reuse error go with the number of words, compared within a prompt, step and layer."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from bench import stats
from bench.record import Mean

VALUES = {
    "entropy": "attention entropy (nats)",
    "hold": "error of holding the last output",
    "forecast": "error of a line through the last two",
}
PUBLISHED = 0.5  # the exponent of the original specification's threshold, base · sqrt(p / 77)
SMALL = 0.05  # an exponent below which twice the words change a value by less than 3.5 %


class Exponent(NamedTuple):
    """The b of value ∝ words^b, with its interval over prompts."""

    value: str
    b: Mean
    explained: float  # share of the variance of ln(value), after prompt, step and layer, that length explains

    @property
    def verdict(self) -> str:
        """The conclusion that the interval allows."""
        if self.b.contains(PUBLISHED):
            return "grows as the published threshold does"
        if max(abs(self.b.low), abs(self.b.high)) < SMALL:
            return "does not depend on length"
        if self.b.contains(0.0):
            return "no dependence found"
        return "grows with length" if self.b.mean > 0 else "falls with length"


def exponents(rows: pd.DataFrame) -> list[Exponent]:
    """Fit how every value depends on the number of words.

    ln(value) is regressed on ln(words) with a constant for each prompt, step and layer, so that a prompt is
    compared with its own first words alone; prompts are resampled.

    Args:
        rows: as `measure.measured` makes them.

    Returns:
        The exponent of each value, with its interval.
    """
    return [_exponent(rows, value) for value in VALUES]


def _exponent(rows: pd.DataFrame, value: str) -> Exponent:
    kept = rows[rows[value] > 0]
    by = [kept["label"], kept["step"], kept["layer"]]
    logs = pd.DataFrame({"x": np.log(kept["words"]), "y": np.log(kept[value])})
    logs = logs - logs.groupby(by).transform("mean")
    x, y = logs["x"], logs["y"]
    sums = pd.DataFrame({"xy": x * y, "xx": x * x}).groupby(kept["label"]).sum()
    b = stats.ratio_of_sums(sums["xy"], sums["xx"])
    whole = float((y * y).sum())
    return Exponent(value, b, b.mean**2 * float((x * x).sum()) / whole if whole else 0.0)


def means(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Average every value at every length.

    Args:
        rows: as `measure.measured` makes them.

    Returns:
        A row a length: `words` and the values' means.
    """
    grouped = rows.groupby("words", as_index=False)[list(VALUES)].mean()
    return [{str(name): value for name, value in row.items()} for row in grouped.to_dict("records")]
