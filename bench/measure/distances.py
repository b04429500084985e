"""Which sets of images are compared: the candidate's with the reference's and the baseline's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bench.measure import features
from bench.measure.distributions import FEWEST, distance
from bench.measure.features import Extractor
from bench.measure.jackknife import with_changes
from bench.measure.moments import Moments
from bench.measure.reference import Reference
from bench.record import Distance
from bench.spec.run_spec import RunSpec
from bench.store.tensors import Cache, Tensors
from dqar.evaluation.frechet import Statistics, fitted

FIELDS = ("to_reference", "to_baseline")
NO_REFERENCE = "no reference images: --reference gives them"


class Real(NamedTuple):
    """What the reference gives: features of its images, or statistics of features, or both."""

    what: str
    features: Tensor | None
    statistics: Statistics | None = None

    @property
    def gaussian(self) -> Statistics:
        """The statistics, else those of the features."""
        if self.statistics is not None:
            return self.statistics
        assert self.features is not None  # it has one or the other
        return fitted(self.features)


def distances(
    spec: RunSpec,
    baseline: Sequence[Tensors],
    candidate: Sequence[Tensors],
    cache: Cache,
    missing: dict[str, str],
) -> dict[str, Distance | None]:
    """Distances of the candidate's images to the reference's and to the baseline's.

    Args:
        spec: The configuration.
        baseline: The baseline's shards, in order.
        candidate: The candidate's.
        cache: Keeps the features that configurations share.
        missing: Gets by field the reason why a distance is None.

    Returns:
        By the names in FIELDS; None where it cannot be had.
    """
    by_field: dict[str, Distance | None] = dict.fromkeys(FIELDS)
    extractor = features.chosen(spec.quality)
    if extractor is None or spec.quality.n < FEWEST:
        why = "no extractor in the suite" if extractor is None else f"fewer than {FEWEST} images"
        missing.update(dict.fromkeys(FIELDS, why))
        return by_field
    if "features" not in candidate[0]:
        missing.update(
            dict.fromkeys(FIELDS, f"{extractor.name} takes images of {extractor.side} pixels a side")
        )
        return by_field
    generated, fit = _streamed(candidate)
    base, base_fit = _streamed(baseline)
    same_seeds = "the baseline's images of the same seeds"
    by_field["to_baseline"] = distance(generated, base, extractor.name, same_seeds, base_fit, fit)
    real = _real(spec, _Keep(spec, cache, extractor))
    if isinstance(real, str):
        missing["to_reference"] = real
    else:
        one = distance(generated, real.features, extractor.name, real.what, real.statistics, fit)
        by_field["to_reference"] = with_changes(one, generated, base, real.features, real.gaussian)
    return by_field


def _streamed(parts: Sequence[Tensors]) -> tuple[Tensor, Statistics]:
    """The features of all shards, for the distances of blocks and neighbours, and the Gaussian of them."""
    moments = Moments()
    for part in parts:
        moments.add(part["features"])
    return torch.cat([part["features"] for part in parts]), moments.statistics


class _Keep(NamedTuple):
    """Features that all configurations of the suite share, made once."""

    spec: RunSpec
    cache: Cache
    extractor: Extractor

    def __call__(self, *of: Any, make: Callable[[], Tensor]) -> Tensor:
        by = [self.cache.inputs.get(name) for name in ("sources", "inception_weights")]
        key = self.cache.key(self.spec, "features", self.extractor.name, *by, *of)
        return self.cache.kept(f"features-{key}", lambda: {"features": make()})["features"]


def _real(spec: RunSpec, keep: _Keep) -> Real | str:
    """The reference, or why there is none."""
    if spec.quality.reference is None:
        return _held_out(spec) if keep.extractor.name != features.INCEPTION else NO_REFERENCE
    reference = Reference(Path(spec.quality.reference))
    name, inception = reference.path.resolve().name, keep.extractor.name == features.INCEPTION
    statistics = reference.statistics if inception else None
    if not reference.has_images:
        return Real(f"{name} (mu and sigma)", None, statistics)
    digest, extract = keep.cache.inputs["reference"], keep.extractor.extract
    of_reference = keep("reference", digest, make=lambda: torch.cat([extract(c) for c in reference.chunks()]))
    if len(of_reference) < FEWEST:
        return f"fewer than {FEWEST} reference images"
    return Real(f"{name} (FID by its mu and sigma)" if statistics else name, of_reference, statistics)


def _held_out(spec: RunSpec) -> Real | str:
    """Real images of the embedded model's kind that it was not trained on."""
    from bench.embedded import extractor

    if spec.prompts is None:
        what = "held-out images of the training set's kind"
        return Real(what, torch.as_tensor(extractor.reference_features("heldout")))
    if spec.model != "embedded-t2i":
        return NO_REFERENCE
    from bench.embedded.text_to_image import reference

    return Real("images under held-out names, of the training set's kind", reference.features())
