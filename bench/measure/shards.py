"""Shards of quality: what is measured on some of a run's images, small enough to travel and to be kept.

A shard holds no images but the few worst, and depends on nothing but its configuration and the numbers of its
images: made twice, it is the same. The baseline's is shared by all configurations. Tensors of a shard of m
images, of which the first k have a converged trajectory:

    drift, psnr, ssim, lpips, text_score    float64 [m]
    drift_converged                         float64 [k]
    features, text_embedding                float32 [m, d]
    identical                               bool [m]
    digests                                 uint8 [m, 32], SHA-256 of each latent
    worst, worst_baseline                   uint8 [w, 3, height, width]
    worst_facts                             uint8, JSON: a `Worst` of each
"""

from __future__ import annotations

import hashlib
import json

import torch
from torch import Tensor

from bench.measure import features, paired
from bench.measure.converged import converged
from bench.measure.perceptual import lpips
from bench.measure.samples import Samples
from bench.measure.text_score import scored
from bench.pipeline import conditions
from bench.pipeline.session import Session
from bench.record import Worst
from bench.spec.external_files import lpips_directory
from bench.spec.run_spec import RunSpec
from bench.spec.settings import FILES
from bench.store.tensors import Cache, Tensors
from dqar.evaluation.psnr import psnr


def key(cache: Cache, spec: RunSpec, baseline: bool) -> str:
    """Hash all that a configuration's shards depend on: not how many images.

    Args:
        cache: knows the inputs of the run.
        spec: the configuration.
        baseline: whether the shards are its baseline's.

    Returns:
        The key of the shards in the cache.
    """
    settings = spec.quality.model_dump(exclude={"n", *FILES})
    by = ("shard", settings, *(cache.inputs.get(name) for name in ("sources", *FILES)))
    return cache.key(spec, *by) if baseline else cache.candidate_key(spec, *by)


def of_baseline(session: Session, base: Samples, numbers: range, solved: Tensor | None) -> Tensors:
    """Measure what all configurations share.

    Args:
        session: under any of the configurations.
        base: the baseline's samples.
        numbers: of the images.
        solved: latents of the first images, None where none is asked for.

    Returns:
        Features, scores, and the drift from `solved`, by name, one value or row an image.
    """
    return _unpaired(session, base, numbers, solved)


def of_candidate(
    session: Session, base: Samples, cand: Samples, numbers: range, solved: Tensor | None
) -> Tensors:
    """Measure a configuration's samples, in pairs with the baseline's; see `of_baseline`.

    Args:
        session: the model under the configuration.
        base: the baseline's samples.
        cand: the configuration's samples, of the same images.
        numbers: numbers of the images.
        solved: the converged latents of the first images; None: none is asked for.

    Returns:
        The measurements by name, one value or row an image.
    """
    drift = paired.each(paired.drift, cand.latents, base.latents)
    psnr_db = paired.each(psnr, cand.images, base.images)
    order = drift.argsort(descending=True)[: session.spec.quality.worst]
    worst = json.dumps([one.model_dump() for one in _worst(session, numbers, order, drift, psnr_db)])
    measured = {
        "drift": drift,
        "psnr": psnr_db,
        "ssim": paired.each(paired.ssim, cand.images, base.images),
        "identical": (cand.latents == base.latents).flatten(1).all(dim=1),
        "digests": torch.stack([_digest(latent) for latent in cand.latents]),
        "worst": cand.images[order],
        "worst_baseline": base.images[order],
        "worst_facts": torch.frombuffer(bytearray(worst.encode()), dtype=torch.uint8),
    }
    if weights := lpips_directory(session.spec.quality):
        measured["lpips"] = lpips(cand.images, base.images, weights)
    return measured | _unpaired(session, cand, numbers, solved)


def solved(session: Session, cache: Cache, numbers: range) -> Tensor | None:
    """Load or make the converged latents.

    Args:
        session: the model under any configuration.
        cache: keeps the latents.
        numbers: numbers of the images asked for.

    Returns:
        The latents of those of the images that have them; None where none has.
    """
    within = range(numbers.start, min(numbers.stop, session.spec.quality.converged_n))
    return converged(session, cache, within) if within else None


def _unpaired(session: Session, arm: Samples, numbers: range, solved: Tensor | None) -> Tensors:
    """What is measured on an arm's samples without the other's."""
    measured = scored(session, arm.images, numbers)
    extractor = features.chosen(session.spec.quality)
    if extractor and extractor.takes(arm.images):
        measured["features"] = extractor.extract(arm.images)
    if solved is not None:
        measured["drift_converged"] = paired.drift(arm.latents[: len(solved)], solved)
    return measured


def _digest(latent: Tensor) -> Tensor:
    content = hashlib.sha256(latent.contiguous().numpy().tobytes()).digest()
    return torch.frombuffer(bytearray(content), dtype=torch.uint8)


def _worst(session: Session, numbers: range, order: Tensor, drift: Tensor, psnr_db: Tensor) -> list[Worst]:
    names = conditions.names(session.spec, session.pipe)
    return [
        Worst(
            index=numbers[i],
            seed=session.spec.seed + numbers[i],
            label=names.get(session.label(numbers[i]), f"class {session.label(numbers[i])}"),
            drift=drift[i].item(),
            psnr_db=psnr_db[i].item() if torch.isfinite(psnr_db[i]) else None,
        )
        for i in order.tolist()
    ]
