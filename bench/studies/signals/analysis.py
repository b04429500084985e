"""How well each signal ranks errors, and how much of the error's logarithm it explains, with intervals.

Intervals are over images, each with a seed and a class of its own: whole images are resampled, for
the rows of one image are anything but independent.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench import stats
from bench.record import Mean

SIGNALS = ("entropy", "log_snr", "latent_norm")
Array = NDArray[np.float64]

# What an error's logarithm is regressed on. A calibration is a constant a layer, learned on other
# images; SNR enters with its square, for errors rise at both ends of a trajectory.
MODELS: dict[str, tuple[str, ...]] = {
    "SNR": ("snr",),
    "entropy": ("entropy",),
    "SNR + entropy": ("snr", "entropy"),
    "calibration of each layer": ("layer",),
    "SNR + calibration": ("snr", "layer"),
    "SNR + calibration + entropy": ("snr", "layer", "entropy"),
}


class Ranking(NamedTuple):
    """Rank correlation of a signal with an error, mean over groups and images."""

    signal: str
    error: str
    within_step: Mean | None  # over the layers of a step; None where the signal is the same for all
    within_layer: Mean  # over the steps of a layer


class Explained(NamedTuple):
    """Share of the variance of ln(error) that a model explains on images that it was not fitted to."""

    model: str
    error: str
    share: Mean


def rankings(rows: pd.DataFrame, error: str) -> list[Ranking]:
    """Rank-correlate every signal with an error.

    Args:
        rows: as `measure.table` makes them.
        error: `hold` or `forecast`.

    Returns:
        A ranking a signal.
    """
    return [
        Ranking(
            signal,
            error,
            None if signal != "entropy" else _ranked(rows, signal, error, "step"),
            _ranked(rows, signal, error, "layer"),
        )
        for signal in SIGNALS
    ]


def _ranked(rows: pd.DataFrame, signal: str, error: str, group: str) -> Mean:
    """Spearman's correlation in each group of each image; an image's mean is one value."""
    ranks = rows.groupby(["image", group])[[signal, error]].rank()
    ranks[["image", group]] = rows[["image", group]]
    each = ranks.groupby(["image", group])[[signal, error]].apply(_pearson, signal, error)
    return stats.mean_interval(each.groupby("image").mean().to_numpy())


def _pearson(group: pd.DataFrame, a: str, b: str) -> float:
    if group[a].nunique() < 2 or group[b].nunique() < 2:
        return float("nan")
    return float(np.corrcoef(group[a], group[b])[0, 1])


def explained(rows: pd.DataFrame, error: str) -> list[Explained]:
    """Measure what each model explains of ln(error), fitted on one half of the images and tested on the
    other, and the other way round.

    Args:
        rows: as `measure.table` makes them.
        error: `hold` or `forecast`.

    Returns:
        A share of the variance a model, with its interval.
    """
    return [Explained(name, error, _explained(rows, error, parts)) for name, parts in MODELS.items()]


def added(rows: pd.DataFrame, error: str, model: str) -> Mean:
    """Measure what entropy adds to a model, both tested on the same images.

    Args:
        rows: as `measure.table` makes them.
        error: `hold` or `forecast`.
        model: a name in MODELS, without entropy.

    Returns:
        The share of the variance that it adds, with its interval.
    """
    parts = MODELS[model]
    less, more = (_left(rows, error, each) for each in (parts, (*parts, "entropy")))
    return _share(rows["image"].to_numpy(), less - more, _whole(rows, error))


def _explained(rows: pd.DataFrame, error: str, parts: tuple[str, ...]) -> Mean:
    whole = _whole(rows, error)
    return _share(rows["image"].to_numpy(), whole - _left(rows, error, parts), whole)


def _whole(rows: pd.DataFrame, error: str) -> Array:
    """The squared distance of each row's ln(error) from the mean."""
    target = np.log(rows[error].to_numpy(dtype=float))
    return np.asarray((target - target.mean()) ** 2)


def _left(rows: pd.DataFrame, error: str, parts: tuple[str, ...]) -> Array:
    """The squared residual of each row, by the model fitted on the other half of the images."""
    target = np.log(rows[error].to_numpy(dtype=float))
    design = np.column_stack([np.ones(len(rows)), *(_PARTS[part](rows) for part in parts)])
    even = rows["image"].to_numpy() % 2 == 0
    left = np.empty(len(rows))
    for fitted, tested in ((even, ~even), (~even, even)):
        weights = np.linalg.lstsq(design[fitted], target[fitted], rcond=None)[0]
        left[tested] = (target[tested] - design[tested] @ weights) ** 2
    return left


def _share(sample: Array, explained: Array, whole: Array) -> Mean:
    """Explained of the whole variance, its interval by resampling images."""
    sums = pd.DataFrame({"explained": explained, "whole": whole}).groupby(sample).sum()
    return stats.ratio_of_sums(sums["explained"], sums["whole"])


def _snr(rows: pd.DataFrame) -> Array:
    value = rows["log_snr"].to_numpy(dtype=float)
    return np.column_stack([value, value**2])


def _entropy(rows: pd.DataFrame) -> Array:
    return rows[["entropy"]].to_numpy(dtype=float)


def _layer(rows: pd.DataFrame) -> Array:
    return pd.get_dummies(rows["layer"]).to_numpy(dtype=float)[:, 1:]  # the constant stands for the first


_PARTS: dict[str, Callable[[pd.DataFrame], Array]] = {"snr": _snr, "entropy": _entropy, "layer": _layer}
