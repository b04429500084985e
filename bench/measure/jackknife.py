"""Intervals of Fréchet distances, and how far distances differ from the baseline's of the same seeds.

A block of images is left out at a time (jackknife, Miller 1974). With g blocks, the distance T of all
images and T_i without block i, the g pseudo-values g T - (g - 1) T_i have a mean without the bias of order
1 / n that makes small sets look far, and scatter as T does. Baseline and candidate leave out the same images:
the difference of their pseudo-values is paired, and far better known than either.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bench import stats
from bench.measure.distributions import BLOCKS, kernel_blocks, shuffled
from bench.record import Distance
from dqar.evaluation.frechet import Statistics, fitted, frechet_distance

IMAGES_PER_DIMENSION = 2  # fewer images give a covariance whose bias is no longer of order 1 / n
WIDEST = 512  # dimensions of the features: the distance of a wider one takes minutes, twenty times


def with_changes(
    distance: Distance, features: Tensor, baseline: Tensor, reference: Tensor | None, given: Statistics
) -> Distance:
    """Add the distance without bias, and the changes from the baseline's.

    Args:
        distance: Of the candidate's images to the reference.
        features: Of the candidate's images, `[n, d]`.
        baseline: Of the baseline's images of the same seeds, `[n, d]`.
        reference: Of the reference's images, `[m, d]`; None: it has statistics only.
        given: The reference's Gaussian.

    Returns:
        The distance with what can be had of the three; its `missing` states why one is null.
    """
    changes: dict[str, object] = {}
    if reference is not None:
        pairs = zip(kernel_blocks(features, reference), kernel_blocks(baseline, reference), strict=True)
        changes["kid_change"] = stats.mean_interval([ours - theirs for ours, theirs in pairs])
    if why := _unsuitable(features):
        missing = distance.missing | dict.fromkeys(("fd_unbiased", "fd_change"), why)
        return distance.model_copy(update=changes | {"missing": missing})
    ours, theirs = pseudo_values(features, given), pseudo_values(baseline, given)
    changes["fd_unbiased"] = stats.mean_interval(ours)
    changes["fd_change"] = stats.mean_interval([a - b for a, b in zip(ours, theirs, strict=True)])
    return distance.model_copy(update=changes)


def _unsuitable(features: Tensor) -> str | None:
    n, width = features.shape
    if width > WIDEST:
        return f"features of {width} dimensions; at most {WIDEST} are resampled"
    if n < IMAGES_PER_DIMENSION * width:
        return f"{n} images; {IMAGES_PER_DIMENSION * width} are needed, twice the features' dimensions"
    return None


def pseudo_values(features: Tensor, given: Statistics) -> list[float]:
    """The jackknife's pseudo-values of a Fréchet distance.

    Args:
        features: Of the generated images, `[n, d]`, in the order of their seeds.
        given: The reference's Gaussian.

    Returns:
        One for each of BLOCKS blocks, the same images each time.
    """
    mixed = shuffled(features)
    whole = frechet_distance(fitted(mixed), given)
    edges = [round(i * len(mixed) / BLOCKS) for i in range(BLOCKS + 1)]
    left = [torch.cat([mixed[: edges[i]], mixed[edges[i + 1] :]]) for i in range(BLOCKS)]
    return [BLOCKS * whole - (BLOCKS - 1) * frechet_distance(fitted(rest), given) for rest in left]
