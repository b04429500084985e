"""Quality: against the baseline's own pictures, the converged trajectory, and real pictures."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load, save
from torch import Tensor

from bench import models, stats, store
from bench.measure import images
from bench.measure.distributions import distance
from bench.measure.generation import Generation, Session
from bench.measure.timing import Pairs
from bench.record import Distance, Mean, Quality, Worst
from bench.suite import RunSpec


class Pictures(NamedTuple):
    """All pictures of one arm."""

    latents: Tensor  # float32 [n, channels, height, width]
    images: Tensor  # uint8 [n, 3, height, width]


def measure(session: Session, pairs: Pairs, cache: Path, picture: str) -> tuple[Quality | None, bytes | None]:
    """All quality figures and the mosaic of the worst pictures, which will be named `picture`;
    None where the suite asks for none, or random weights would make them meaningless."""
    spec, n = session.spec, session.spec.quality.n
    if not n or spec.weights == "random":
        return None, None
    base, cand = _joined(pairs.baseline, n), _joined(pairs.candidate, n)
    drift = images.drift(cand.latents, base.latents)
    order = drift.argsort(descending=True)[: spec.quality.worst]
    missing: dict[str, str] = {}
    psnr = images.psnr(cand.images, base.images)
    figures = _paired(drift, psnr, images.ssim(cand.images, base.images), missing)
    figures |= _converged(session, base, cand, cache, missing)
    figures |= _distances(spec, base, cand, missing)
    return Quality(
        n=n,
        **figures,
        drift_per_image=drift.tolist(),
        identical=torch.equal(base.latents, cand.latents),
        latents_sha256=hashlib.sha256(cand.latents.numpy().tobytes()).hexdigest(),
        worst=_worst(session, order, drift, psnr),
        picture=picture,
        missing=missing,
    ), images.mosaic(base.images[order], cand.images[order])


def _joined(made: list[Generation], n: int) -> Pictures:
    latents, shown = [m.latents for m in made], [m.images for m in made]
    return Pictures(torch.cat(latents)[:n], torch.cat(shown)[:n])


def _paired(drift: Tensor, psnr: Tensor, ssim: Tensor, missing: dict[str, str]) -> dict[str, Any]:
    finite = psnr[torch.isfinite(psnr)]
    if len(finite) < len(psnr):
        missing["psnr_db"] = f"{len(psnr) - len(finite)} of {len(psnr)} pictures are identical"
    return {
        "drift": stats.mean_interval(drift),
        "psnr_db": stats.mean_interval(finite) if len(finite) else None,
        "ssim": stats.mean_interval(ssim),
    }


def _worst(session: Session, order: Tensor, drift: Tensor, psnr: Tensor) -> list[Worst]:
    names = models.label_names(session.spec, session.pipe)
    return [
        Worst(
            index=i,
            seed=session.spec.seed + i,
            label=names.get(session.label(i), f"class {session.label(i)}"),
            drift=drift[i].item(),
            psnr_db=psnr[i].item() if torch.isfinite(psnr[i]) else None,
        )
        for i in order.tolist()
    ]


def _converged(
    session: Session, base: Pictures, cand: Pictures, cache: Path, missing: dict[str, str]
) -> dict[str, Any]:
    n = session.spec.quality.converged_n
    drifts: list[Mean | None] = [None, None]
    if n:
        solved = converged(session, cache)
        drifts = [stats.mean_interval(images.drift(p.latents[:n], solved)) for p in (cand, base)]
    else:
        missing["drift_converged"] = "the suite asks for none"
    names = ("drift_converged", "baseline_drift_converged")
    return dict(zip(names, drifts, strict=True)) | {"n_converged": n}


def converged(session: Session, cache: Path) -> Tensor:
    """Final latents of the untouched model at `converged_factor` times the steps: the same noise
    with hardly any discretisation error left. Made once a suite and kept in `cache`."""
    file = cache / f"converged-{_converged_key(session.spec)}.safetensors"
    if file.exists():
        return load(file.read_bytes())["latents"]
    latents = _solve(session)
    store.write_atomic(file, save({"latents": latents}))
    return latents


def _solve(session: Session) -> Tensor:
    spec, n = session.spec, session.spec.quality.converged_n
    trained: int = session.pipe.scheduler.config.num_train_timesteps
    steps = min(trained, spec.num_inference_steps * spec.quality.converged_factor)
    starts = range(0, n, spec.batch_size)
    batches = [range(start, min(start + spec.batch_size, n)) for start in starts]
    made = [session.baseline(batch, num_inference_steps=steps).latents for batch in batches]
    return torch.cat(made).contiguous()


def _converged_key(spec: RunSpec) -> str:
    """All that the converged trajectory depends on: not the method, nor this project's sources."""
    config = spec.public()
    for name in ("suite", "name", "method", "options", "timing", "memory", "timeout_s"):
        del config[name]
    inputs = {name: value for name, value in store.inputs(spec).items() if name != "sources"}
    return hashlib.sha256(json.dumps([config, inputs], sort_keys=True).encode()).hexdigest()[:16]


def _distances(
    spec: RunSpec, base: Pictures, cand: Pictures, missing: dict[str, str]
) -> dict[str, Distance | None]:
    found: dict[str, Distance | None] = {"to_reference": None, "to_baseline": None}
    if spec.quality.extractor is None or len(cand.images) < 4:
        why = "no extractor in the suite" if len(cand.images) >= 4 else "fewer than 4 pictures"
        missing.update(dict.fromkeys(found, why))
        return found
    from bench.embedded import extractor

    made, own = extractor.extract(cand.images), extractor.extract(base.images)
    real = torch.as_tensor(extractor.reference_features("heldout"))
    name = extractor.EXTRACTOR
    found["to_reference"] = distance(made, real, name, "held-out pictures of the training set's kind")
    found["to_baseline"] = distance(made, own, name, "the baseline's pictures of the same seeds")
    return found
