"""Quality: against the baseline's own images, the converged trajectory, and real images."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from bench import stats
from bench.measure import paired, shards
from bench.measure.distances import distances
from bench.measure.samples import Collector
from bench.measure.text_score import text_scores
from bench.measure.timing import Pairs
from bench.pipeline.session import Session
from bench.record import Quality, Worst
from bench.spec.run_spec import RunSpec
from bench.store.images import digest
from bench.store.tensors import Cache, Tensors

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
    numbers = range(spec.quality.n)
    base, cand = Collector(session, pairs, cache, say).both(numbers)
    say("quality")
    solved = shards.solved(session, cache, numbers)
    name = f"shards/{shards.key(cache, spec, baseline=True)}/{0:07d}-{spec.quality.n:07d}"
    baseline = cache.kept(name, lambda: shards.of_baseline(session, base, numbers, solved))
    candidate = shards.of_candidate(session, base, cand, numbers, solved)
    return merged(spec, [baseline], [candidate], cache, image)


def merged(
    spec: RunSpec, baseline: Sequence[Tensors], candidate: Sequence[Tensors], cache: Cache, image: str
) -> tuple[Quality, bytes]:
    """The metrics of all images and the mosaic of the worst, from shards.

    Args:
        spec: the configuration.
        baseline: the baseline's shards, in order, of all images.
        candidate: the configuration's, likewise; cut alike or not.
        cache: where features of the reference are kept.
        image: the name that the mosaic will have.

    Returns:
        The quality and the mosaic of the worst images as PNG.
    """
    missing: dict[str, str] = {}
    drift = joined(candidate, "drift")
    metrics = _paired(drift, joined(candidate, "psnr"), missing)
    metrics["ssim"] = stats.mean_interval(joined(candidate, "ssim"))
    metrics["lpips"] = stats.mean_interval(joined(candidate, "lpips")) if "lpips" in candidate[0] else None
    if metrics["lpips"] is None:
        missing["lpips"] = NO_LPIPS
    metrics |= text_scores(spec, baseline, candidate, missing)
    metrics |= _converged(spec, baseline, candidate, missing)
    metrics |= distances(spec, baseline, candidate, cache, missing)
    worst, mosaic = _worst(candidate, spec.quality.worst)
    return Quality(
        n=len(drift),
        **metrics,
        drift_per_image=drift.tolist(),
        identical=bool(joined(candidate, "identical").all()),
        latents_sha256=hashlib.sha256(joined(candidate, "digests").numpy().tobytes()).hexdigest(),
        worst=worst,
        image=image,
        image_sha256=digest(mosaic),
        missing=missing,
    ), mosaic


def joined(parts: Sequence[Tensors], name: str) -> Tensor:
    """Join one tensor of all shards that have it.

    Args:
        parts: the shards, in order; at least one has it.
        name: the tensor's name.

    Returns:
        The tensor of all their images.
    """
    return torch.cat([part[name] for part in parts if name in part])


def _paired(drift: Tensor, psnr_db: Tensor, missing: dict[str, str]) -> dict[str, Any]:
    finite = psnr_db[torch.isfinite(psnr_db)]
    if len(finite) < len(psnr_db):
        missing["psnr_db"] = f"{len(psnr_db) - len(finite)} of {len(psnr_db)} images are identical"
    return {
        "drift": stats.mean_interval(drift),
        "psnr_db": stats.mean_interval(finite) if len(finite) else None,
    }


def _worst(candidate: Sequence[Tensors], count: int) -> tuple[list[Worst], bytes]:
    """The images furthest from the baseline's, and their mosaic."""
    facts = [(part, i, Worst(**one)) for part in candidate for i, one in enumerate(_facts(part))]
    facts = sorted(facts, key=lambda found: -found[2].drift)[:count]
    rows = (torch.stack([part[row][i] for part, i, _ in facts]) for row in ("worst_baseline", "worst"))
    return [worst for _, _, worst in facts], paired.mosaic(*rows)


def _facts(part: Tensors) -> list[dict[str, Any]]:
    facts: list[dict[str, Any]] = json.loads(part["worst_facts"].numpy().tobytes())
    return facts


def _converged(
    spec: RunSpec, baseline: Sequence[Tensors], candidate: Sequence[Tensors], missing: dict[str, str]
) -> dict[str, Any]:
    """The drift of both arms from the converged trajectory, image by image and on average."""
    n = spec.quality.converged_n
    fields: dict[str, Any] = {"n_converged": n, "drift_converged": None, "baseline_drift_converged": None}
    if not n:
        missing["drift_converged"] = "the suite asks for none"
        return fields
    for field, parts in (("drift_converged", candidate), ("baseline_drift_converged", baseline)):
        drift = joined(parts, "drift_converged")
        fields |= {field: stats.mean_interval(drift), f"{field}_per_image": drift.tolist()}
    return fields
