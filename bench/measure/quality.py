"""Quality: against the baseline's own images, the converged trajectory, and real images."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bench import stats
from bench.measure import images, samples
from bench.measure.converged import converged
from bench.measure.distances import distances
from bench.measure.perceptual import lpips
from bench.measure.samples import Samples
from bench.measure.text_score import text_scores
from bench.measure.timing import Pairs
from bench.pipeline import conditions
from bench.pipeline.session import Session
from bench.record import Mean, Quality, Worst
from bench.spec.external_files import lpips_directory
from bench.store.images import digest
from bench.store.tensors import Cache
from dqar.evaluation.psnr import psnr

NO_LPIPS = "no VGG16 weights: --lpips-weights gives them, or torch hub's cache"


def measure(
    session: Session, pairs: Pairs, cache: Cache, image: str, say: Callable[[str], None]
) -> tuple[Quality | None, bytes | None]:
    """All quality metrics, and the mosaic of the worst images.

    Args:
        session: The configuration, timed already.
        pairs: Its timed generations, whose images are used.
        cache: Keeps what the suite's configurations share.
        image: The name that the mosaic's file will have.
        say: Called with a line on what is being done.

    Returns:
        The record's part and the mosaic as PNG; both None where the suite asks for no quality, or random
        weights would make it meaningless.
    """
    spec = session.spec
    if not spec.measures_quality:
        return None, None
    base, cand = samples.collect(session, pairs, cache, say)
    say("quality")
    missing: dict[str, str] = {}
    drift = images.each(images.drift, cand.latents, base.latents)
    psnr_db = images.each(psnr, cand.images, base.images)
    metrics = _paired(drift, psnr_db, missing)
    metrics["ssim"] = stats.mean_interval(images.each(images.ssim, cand.images, base.images))
    metrics["lpips"] = _lpips(session, base, cand, missing)
    metrics |= text_scores(session, base, cand, missing)
    metrics |= _converged(session, base, cand, cache, missing)
    metrics |= distances(spec, base, cand, cache, missing)
    order = drift.argsort(descending=True)[: spec.quality.worst]
    mosaic = images.mosaic(base.images[order], cand.images[order])
    return Quality(
        n=len(drift),
        **metrics,
        drift_per_image=drift.tolist(),
        identical=torch.equal(base.latents, cand.latents),
        latents_sha256=hashlib.sha256(cand.latents.numpy().tobytes()).hexdigest(),
        worst=_worst(session, order, drift, psnr_db),
        image=image,
        image_sha256=digest(mosaic),
        missing=missing,
    ), mosaic


def _paired(drift: Tensor, psnr_db: Tensor, missing: dict[str, str]) -> dict[str, Any]:
    finite = psnr_db[torch.isfinite(psnr_db)]
    if len(finite) < len(psnr_db):
        missing["psnr_db"] = f"{len(psnr_db) - len(finite)} of {len(psnr_db)} images are identical"
    return {
        "drift": stats.mean_interval(drift),
        "psnr_db": stats.mean_interval(finite) if len(finite) else None,
    }


def _lpips(session: Session, base: Samples, cand: Samples, missing: dict[str, str]) -> Mean | None:
    directory = lpips_directory(session.spec.quality)
    if directory is None:
        missing["lpips"] = NO_LPIPS
        return None
    return stats.mean_interval(lpips(cand.images, base.images, directory))


def _worst(session: Session, order: Tensor, drift: Tensor, psnr_db: Tensor) -> list[Worst]:
    names = conditions.names(session.spec, session.pipe)
    return [
        Worst(
            index=i,
            seed=session.spec.seed + i,
            label=names.get(session.label(i), f"class {session.label(i)}"),
            drift=drift[i].item(),
            psnr_db=psnr_db[i].item() if torch.isfinite(psnr_db[i]) else None,
        )
        for i in order.tolist()
    ]


def _converged(
    session: Session, base: Samples, cand: Samples, cache: Cache, missing: dict[str, str]
) -> dict[str, Any]:
    """The drift of both arms from the converged trajectory, image by image and on average."""
    n = session.spec.quality.converged_n
    fields: dict[str, Any] = {"n_converged": n, "drift_converged": None, "baseline_drift_converged": None}
    if not n:
        missing["drift_converged"] = "the suite asks for none"
        return fields
    solved = converged(session, cache)
    for field, arm in (("drift_converged", cand), ("baseline_drift_converged", base)):
        drift = images.drift(arm.latents[:n], solved)
        fields |= {field: stats.mean_interval(drift), f"{field}_per_image": drift.tolist()}
    return fields
