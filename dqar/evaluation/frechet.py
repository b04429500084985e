"""The Fréchet distance of two sets of features, the one definition for the runtime and the harness."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dqar.utils.extras import imported


class Statistics(NamedTuple):
    """A Gaussian fitted to features, float64: mean `[d]` and covariance `[d, d]`."""

    mu: NDArray[np.float64]
    sigma: NDArray[np.float64]


def fitted(features: Tensor) -> Statistics:
    """Fit a Gaussian to features.

    Args:
        features: `[n, d]`, n of 2 or more.

    Returns:
        Their mean, and their covariance with n - 1.

    Raises:
        ValueError: Fewer than two rows, of which there is no covariance, or a value that is not finite.
    """
    metric_fid = imported("torch_fidelity.metric_fid", "bench")

    if len(features) < 2:
        raise ValueError(f"{len(features)} image has no covariance; needed: 2 or more images")
    if not features.isfinite().all():
        raise ValueError("features are NaN or infinite; needed: finite numbers")
    return Statistics(**metric_fid.fid_features_to_statistics(features.double().cpu()))


def frechet_distance(one: Statistics, other: Statistics) -> float:
    """||m1 - m2||² + tr(C1 + C2 - 2 (C1 C2)^½) (Heusel et al. 2017), by torch-fidelity.

    The root of a singular product leaves rounding, so that equal Gaussians come out near 0 and on either
    side of it: they are exactly 0, and nothing is below.

    Args:
        one: Fitted to the features of one set of images.
        other: Fitted to those of the other, by the same extractor.

    Returns:
        0 or more, in squared units of the features.
    """
    metric_fid = imported("torch_fidelity.metric_fid", "bench")

    if np.array_equal(one.mu, other.mu) and np.array_equal(one.sigma, other.sigma):
        return 0.0
    metrics = metric_fid.fid_statistics_to_metric(one._asdict(), other._asdict(), verbose=False)
    return max(0.0, float(metrics[metric_fid.KEY_METRIC_FID]))
