"""A whole generation as one CUDA graph, one image: baseline and skipped steps, each a graph of its own."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from bench import stats
from bench.methods.dqar import config, shape_of
from bench.pipeline.session import stopwatch
from bench.studies.gpu_check.rig import Rig, scaled, skipping
from bench.studies.gpu_check.step import Value
from dqar.integration.dit_wrapper import DQARDiTWrapper
from dqar.integration.samplers import DQARDDIMSampler, SamplerConfig
from dqar.integration.whole_graph import GraphedSampler, rerun

LABEL, REPEATS = 207, 3  # a class of ImageNet; repeats for each pair that the scale asks for


def whole(rig: Rig) -> dict[str, Value]:
    """Time replays of a whole generation, up to the final latents, of the baseline and of skipped steps.

    Where there is no device the host does the work again in place of a replay.

    Args:
        rig: the loaded model and the scale of the check.

    Returns:
        Whether a replay is the eager sampler's to the bit, the speedup, and its share of what FLOPs allow.
    """
    scale, capture = rig.scale, None if rig.on_cuda else rerun
    plain = _sampler(rig, rig.pipe.transformer, False)
    options = shape_of(rig.pipe) | skipping(scale.model_steps)
    wrapped = DQARDiTWrapper(copy.deepcopy(rig.pipe.transformer), config(options))
    reusing = _sampler(rig, wrapped, True)
    baseline, candidate = (GraphedSampler(sampler, 1, capture) for sampler in (plain, reusing))
    replayed, eager = candidate.sample([LABEL], _noise()), reusing.sample(1, [LABEL], _noise())
    identical = isinstance(eager, Tensor) and torch.equal(replayed, eager)
    pairs = [(_seconds(baseline), _seconds(candidate)) for _ in range(REPEATS * scale.pairs[0])]
    speedup, limit = stats.speedup(pairs), scale.steps / scale.model_steps
    return {
        "identical": identical,
        "speedup": speedup,
        "speedup that FLOPs allow": limit,
        "share of that": scaled(speedup, 1 / limit),
        "baseline, seconds": stats.median_interval([pair[0] for pair in pairs]),
        "DQAR, seconds": stats.median_interval([pair[1] for pair in pairs]),
        "pairs": len(pairs),
    }


def _sampler(rig: Rig, model: Any, reuses: bool) -> DQARDDIMSampler:
    chosen = SamplerConfig(num_inference_steps=rig.scale.steps, enable_dqar=reuses)
    return DQARDDIMSampler(model, copy.deepcopy(rig.pipe.scheduler), chosen)


def _noise() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def _seconds(graph: GraphedSampler) -> float:
    with stopwatch() as seconds:
        graph.sample([LABEL], _noise())
    return seconds[0]
