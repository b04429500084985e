"""How often samples are recognised as their class: a linear discriminant of the stored real features."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import Tensor

from bench.embedded import extractor
from bench.embedded.classes import CLASSES, ClassSpec
from bench.embedded.text_to_image.emoji import Sign, TextData, plain

SEED = 5


@cache
def _discriminant() -> tuple[Tensor, Tensor]:
    """Weights [96, classes] and biases [classes], float64, of the stored training images."""
    features, labels = extractor.reference_features("train").double(), extractor.reference_labels("train")
    means = torch.stack([features[labels == label].mean(dim=0) for label in range(len(CLASSES))])
    within = features - means[labels]
    covariance = within.T @ within / (len(features) - len(CLASSES))
    weights = torch.linalg.solve(covariance, means.T)
    return weights, -0.5 * (means * weights.T).sum(dim=1)


def classify(features: Tensor) -> Tensor:
    """Predict classes by Fisher's linear discriminant: class means and one covariance of all classes.

    Args:
        features: as `extract` returns them, `[n, 96]`.

    Returns:
        Labels `[n]`.
    """
    weights, bias = _discriminant()
    return (features.double() @ weights + bias).argmax(dim=1)


def recognised(features: Tensor, labels: Tensor) -> dict[str, Any]:
    """Count how many images of each class are recognised as that class.

    Args:
        features: as `extract` returns them, `[n, 96]`.
        labels: the classes that the images are of, `[n]`.

    Returns:
        The share over all images with their number, and by class name the share and the number.
    """
    hits = classify(features) == labels
    classes = {
        spec.name: {"share": float(hits[labels == label].double().mean()), "n": int((labels == label).sum())}
        for label, spec in enumerate(CLASSES)
        if (labels == label).any()
    }
    return {"share": float(hits.double().mean()), "n": len(labels), "classes": classes}


def real() -> dict[str, Any]:
    """Count how many held-out real images of each class are recognised.

    Returns:
        As `recognised` returns it.
    """
    return recognised(extractor.reference_features("heldout"), extractor.reference_labels("heldout"))


def balanced(each: int) -> Tensor:
    """Name every class equally often.

    Args:
        each: number of images of a class.

    Returns:
        Labels `[classes * each]`, one class after another.
    """
    return torch.arange(len(CLASSES)).repeat_interleave(each)


def belongs(sign: Sign, spec: ClassSpec) -> bool:
    """Whether a sign of the text-to-image dataset is of a class, by its subcategory and its names.

    Args:
        sign: the words of an emoji.
        spec: the class.

    Returns:
        True where the class merges its subcategory and accepts its names.
    """
    spelled = replace(
        spec,
        subcategories=tuple(plain(each) for each in spec.subcategories),
        only=frozenset(plain(each) for each in spec.only),
        without=frozenset(plain(each) for each in spec.without),
        startswith=plain(spec.startswith),
    )
    return spelled.admits(sign.kind, set(sign.names))


def signs_by_class(data: TextData, each: int) -> tuple[Tensor, Tensor]:
    """Draw training images of the text-to-image dataset for each class; their names are the prompts.

    Args:
        data: the dataset of images, labels and splits.
        each: number of images of a class.

    Returns:
        Indices of the images, and their classes, both `[n]`, one class after another; fewer of a class that
        has not as many.
    """
    draw, train = torch.Generator().manual_seed(SEED), data.rows("train")
    chosen, labels = [], []
    for label, spec in enumerate(CLASSES):
        accepted = [belongs(data.texts[sign], spec) for sign in data.signs[train].tolist()]
        pool = train[torch.tensor(accepted)]
        chosen.append(pool[torch.randperm(len(pool), generator=draw)[:each]])
        labels += [label] * len(chosen[-1])
    return torch.cat(chosen), torch.tensor(labels)
