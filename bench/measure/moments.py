"""Mean and covariance of features that come in parts, without keeping them: what an FID is made of."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dqar.evaluation.frechet import Statistics


class Moments:
    """The count, mean and scatter of features, in float64.

    Parts are joined as in Chan, Golub and LeVeque (1979), on deviations from the means: plain sums of
    products lose the digits that the squared means have in common. Joined in any order and of any sizes, the
    statistics are those of all features at once up to a relative 1e-10 (`tests/test_bench_shards.py`).
    Memory is d x d, whatever the number of images.
    """

    def __init__(self) -> None:
        self.n = 0
        self.mean: NDArray[np.float64] = np.zeros(0)
        self.scatter: NDArray[np.float64] = np.zeros((0, 0))

    def add(self, features: Tensor) -> None:
        """Join the features [m, d] of a part.

        Args:
            features: float `[m, d]`, of the width that the others have.

        Raises:
            ValueError: a value is NaN or infinite.
        """
        if not features.isfinite().all():
            raise ValueError("features are NaN or infinite; needed: finite numbers")
        values = features.double().cpu().numpy()
        mean = values.mean(axis=0)
        centred = values - mean
        if not self.n:
            self.n, self.mean, self.scatter = len(values), mean, centred.T @ centred
            return
        n, gap = self.n + len(values), mean - self.mean
        self.scatter += centred.T @ centred
        self.scatter += np.outer(gap, gap) * (self.n * len(values) / n)
        self.mean = self.mean + gap * (len(values) / n)
        self.n = n

    @property
    def statistics(self) -> Statistics:
        """The mean [d] and the covariance [d, d], with n - 1.

        Raises:
            ValueError: fewer than two rows, of which there is no covariance.
        """
        if self.n < 2:
            raise ValueError(f"{self.n} image has no covariance; needed: 2 or more images")
        return Statistics(self.mean, self.scatter / (self.n - 1))
