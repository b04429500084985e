"""The converged trajectory: the same noise, solved with hardly any discretisation error left."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.pipeline.session import Session
from bench.store.tensors import Cache, Tensors


def converged(session: Session, cache: Cache, numbers: range | None = None) -> Tensor:
    """Final latents of the untouched model at `converged_factor` times the steps, made once a suite and kept.

    Args:
        session: The configuration; its method does not count.
        cache: Keeps the latents.
        numbers: Of some of these images, the first of a batch; None: all.

    Returns:
        Of these images, or the first `converged_n`, float32 `[n, channels, ...]`.
    """
    quality = session.spec.quality
    numbers = numbers or range(quality.converged_n)
    part = () if numbers == range(quality.converged_n) else (numbers.start, numbers.stop)
    key = cache.key(session.spec, quality.converged_n, quality.converged_factor, *part)
    return cache.kept(f"converged-{key}", lambda: _solve(session, numbers))["latents"]


def _solve(session: Session, numbers: range) -> Tensors:
    spec = session.spec
    trained: int = session.pipe.scheduler.config.num_train_timesteps
    steps = min(trained, spec.num_inference_steps * spec.quality.converged_factor)
    size = spec.batch_size
    batches = [range(i, min(i + size, numbers.stop)) for i in range(numbers.start, numbers.stop, size)]
    latents = [session.baseline(batch, num_inference_steps=steps).latents for batch in batches]
    return {"latents": torch.cat(latents)}
