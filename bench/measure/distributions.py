"""Distances between distributions of images, by torch-fidelity's own functions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bench import stats
from bench.record import Distance
from dqar.evaluation.frechet import Statistics, fitted, frechet_distance

FEWEST = 4  # images of which there is any distance
LEAST = 16  # images for precision and recall
BLOCKS = 10  # of the kernel distance, where there are images for them: the interval of two is hardly one
NEIGHBOURHOOD = 3  # Kynkäänniemi et al. 2019


def distance(
    features: Tensor,
    reference: Tensor | None,
    extractor: str,
    what: str,
    statistics: Statistics | None = None,
    generated: Statistics | None = None,
) -> Distance:
    """FD, KID, precision and recall of generated images to reference images.

    The Fréchet distance is biased by n, and much so while n is near d.

    Args:
        features: Of the generated images, `[n, d]`, n at least FEWEST.
        reference: Of the reference's images, `[m, d]`, m at least FEWEST; None = it has statistics only.
        extractor: The name of what made the features.
        what: A description of the reference.
        statistics: Stand for the reference in the FD; None = those of its features.
        generated: Of the generated images' features, where they are known.

    Returns:
        The distance; what cannot be had is null, and its `missing` states why.

    Raises:
        ValueError: Neither features nor statistics of the reference.
    """
    missing: dict[str, str] = {}
    given = statistics or (None if reference is None else fitted(reference))
    if given is None:
        raise ValueError("a reference needs features or statistics")
    precision, recall = _precision_recall(features, reference, missing)
    if reference is None:
        missing["kid"] = missing["n_reference"] = "the reference has statistics only, no images"
    return Distance(
        fd=frechet_distance(generated or fitted(features), given),
        kid=None if reference is None else stats.mean_interval(kernel_blocks(features, reference)),
        precision=precision,
        recall=recall,
        extractor=extractor,
        reference=what,
        n=len(features),
        n_reference=None if reference is None else len(reference),
        missing=missing,
    )


def _precision_recall(
    features: Tensor, reference: Tensor | None, missing: dict[str, str]
) -> tuple[float | None, float | None]:
    """The shares of generated images near a real one, and of real ones near a generated one: nearer
    than its third neighbour in its own set (Kynkäänniemi et al. 2019)."""
    from torch_fidelity.metric_prc import (
        KEY_METRIC_PRECISION,
        KEY_METRIC_RECALL,
        prc_features_to_metric,
    )

    if reference is None or min(len(features), len(reference)) < LEAST:
        few = f"fewer than {LEAST} images: three neighbours span the whole set"
        why = few if reference is not None else "the reference has statistics only, no images"
        missing.update(precision=why, recall=why)
        return None, None
    # In parts: the whole matrix of 50,000 images' distances would take 10 GB.
    settings: dict[str, Any] = {"save_cpu_ram": True, "prc_batch_size": 2500, "verbose": False}
    metrics = prc_features_to_metric(features, reference, prc_neighborhood=NEIGHBOURHOOD, **settings)
    return float(metrics[KEY_METRIC_PRECISION]), float(metrics[KEY_METRIC_RECALL])


def kernel_blocks(features: Tensor, reference: Tensor) -> list[float]:
    """The unbiased kernel distances (KID) of disjoint blocks.

    Their spread is that of their mean, which the spread over torch-fidelity's own, overlapping subsets is
    not. Block i is compared with the reference's block i + 1: of two sets made with the same seeds, a block
    and its own counterpart would come out far below zero.

    Args:
        features: Of the generated images, `[n, d]`, n at least FEWEST.
        reference: Of the reference's images, `[m, d]`, m at least FEWEST.

    Returns:
        One distance a block, at most BLOCKS; each may be below 0.
    """
    from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, kid_features_to_metric

    n = min(len(features), len(reference))
    count = min(BLOCKS, n // 2)  # the unbiased distance needs two images of each
    size = n // count
    ours, theirs = _blocks(features, count, size), _blocks(reference, count, size)
    blocks = [
        kid_features_to_metric(a, b, kid_subsets=1, kid_subset_size=size, verbose=False)
        for a, b in zip(ours, theirs[1:] + theirs[:1], strict=True)
    ]
    return [float(block[KEY_METRIC_KID_MEAN]) for block in blocks]


def _blocks(features: Tensor, count: int, size: int) -> list[Tensor]:
    """Disjoint blocks, each spread over the whole set, which may be sorted by class."""
    mixed = shuffled(features)
    return [mixed[i * size : (i + 1) * size] for i in range(count)]


def shuffled(features: Tensor) -> Tensor:
    """Features in an order that is no class's and always the same.

    Args:
        features: Of images, `[n, d]`.

    Returns:
        Their rows, float64 on the CPU.
    """
    order = torch.randperm(len(features), generator=torch.Generator().manual_seed(0))
    return features[order].double().cpu()
