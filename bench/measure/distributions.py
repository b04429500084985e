"""Distances between distributions of pictures, by torch-fidelity's own functions."""

from __future__ import annotations

import torch
from torch import Tensor

from bench import stats
from bench.record import Distance

LEAST = 16  # pictures in a block of the kernel distance


def distance(features: Tensor, reference: Tensor, extractor: str, what: str) -> Distance:
    """FD and KID of generated `features` [n, d] to `reference` [m, d]; n and m at least 4.

    The Fréchet distance is biased by n, and much so while n is near d.
    """
    return Distance(
        fd=frechet(features, reference),
        kid=stats.mean_interval(kernel_blocks(features, reference)),
        extractor=extractor,
        reference=what,
        n=len(features),
        n_reference=len(reference),
    )


def frechet(features: Tensor, reference: Tensor) -> float:
    """||m1 - m2||^2 + tr(C1 + C2 - 2 (C1 C2)^1/2) of the Gaussians fitted to both."""
    from torch_fidelity.metric_fid import (
        KEY_METRIC_FID,
        fid_features_to_statistics,
        fid_statistics_to_metric,
    )

    fitted = [fid_features_to_statistics(f.double().cpu()) for f in (features, reference)]
    return float(fid_statistics_to_metric(*fitted, verbose=False)[KEY_METRIC_FID])


def kernel_blocks(features: Tensor, reference: Tensor) -> list[float]:
    """The unbiased kernel distance of disjoint blocks: their spread is that of their mean, which
    the spread over torch-fidelity's own, overlapping subsets is not.

    Block i meets the reference's block i + 1: of two sets made with the same seeds, a block and its
    own likeness would come out far below zero.
    """
    from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, kid_features_to_metric

    n = min(len(features), len(reference))
    count = max(2, min(10, n // LEAST))
    size = n // count
    ours, theirs = _blocks(features, count, size), _blocks(reference, count, size)
    blocks = [
        kid_features_to_metric(a, b, kid_subsets=1, kid_subset_size=size, verbose=False)
        for a, b in zip(ours, theirs[1:] + theirs[:1], strict=True)
    ]
    return [float(block[KEY_METRIC_KID_MEAN]) for block in blocks]


def _blocks(features: Tensor, count: int, size: int) -> list[Tensor]:
    """Disjoint blocks, each spread over the whole set, which may be sorted by class."""
    order = torch.randperm(len(features), generator=torch.Generator().manual_seed(0))
    shuffled = features[order].double().cpu()
    return [shuffled[i * size : (i + 1) * size] for i in range(count)]
