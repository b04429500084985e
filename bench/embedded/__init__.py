"""A small class-conditional latent DiT, shipped with the repository as a stock pipeline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # which take seconds: the classes' names are known without
    import torch
    from diffusers.pipelines.dit.pipeline_dit import DiTPipeline

MODEL_DIR = Path(__file__).parent / "model"


def _class_names() -> tuple[str, ...]:
    index = MODEL_DIR / "model_index.json"
    labels = json.loads(index.read_text())["id2label"] if index.exists() else {}
    return tuple(labels[key] for key in sorted(labels, key=int))


CLASSES: tuple[str, ...] = _class_names()


def load_pipeline(dtype: torch.dtype | None = None) -> DiTPipeline:
    """The embedded model as an unchanged `DiTPipeline`, from local files only; default dtype: float32."""
    import torch
    from diffusers.pipelines.dit.pipeline_dit import DiTPipeline

    return DiTPipeline.from_pretrained(MODEL_DIR, torch_dtype=dtype or torch.float32, local_files_only=True)
