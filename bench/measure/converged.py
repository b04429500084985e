"""The converged trajectory: the same noise, solved with hardly any discretisation error left."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.pipeline.session import Session
from bench.store.tensors import Cache, Tensors


def converged(session: Session, cache: Cache) -> Tensor:
    """Final latents of the untouched model at `converged_factor` times the steps, made once a suite and kept.

    Args:
        session: The configuration; its method does not count.
        cache: Keeps the latents.

    Returns:
        Of the first `converged_n` images, float32 `[converged_n, channels, ...]`.
    """
    quality = session.spec.quality
    key = cache.key(session.spec, quality.converged_n, quality.converged_factor)
    return cache.kept(f"converged-{key}", lambda: _solve(session))["latents"]


def _solve(session: Session) -> Tensors:
    spec, n = session.spec, session.spec.quality.converged_n
    trained: int = session.pipe.scheduler.config.num_train_timesteps
    steps = min(trained, spec.num_inference_steps * spec.quality.converged_factor)
    starts = range(0, n, spec.batch_size)
    batches = [range(start, min(start + spec.batch_size, n)) for start in starts]
    latents = [session.baseline(batch, num_inference_steps=steps).latents for batch in batches]
    return {"latents": torch.cat(latents)}
