"""The ways in which a user compiles a transformer."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from dqar.integration.adapter import blocks_of

WHOLE, REGIONAL, MAX_AUTOTUNE, CUDA_GRAPHS = KINDS = ("whole", "regional", "max-autotune", "cuda-graphs")
MODES = {MAX_AUTOTUNE: MAX_AUTOTUNE, CUDA_GRAPHS: "reduce-overhead"}  # as torch.compile names them


def compiled(transformer: nn.Module, kind: str) -> nn.Module:
    """Compile a transformer, as one graph or block by block.

    Args:
        transformer: As diffusers builds it; its blocks are changed where `kind` is regional.
        kind: One of KINDS. `regional` compiles each of the repeated blocks, which share their graphs, as
            `compile_repeated_blocks` does for those classes of diffusers that name them.

    Returns:
        What a pipeline holds in its place; `transformer` itself where `kind` is regional.
    """
    if kind != REGIONAL:
        whole: Any = torch.compile(transformer, fullgraph=True, mode=MODES.get(kind), dynamic=False)
        return whole  # type: ignore[no-any-return]
    for block in blocks_of(transformer):
        block.compile(fullgraph=True, dynamic=False)
    return transformer
