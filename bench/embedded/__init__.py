"""A small class-conditional latent DiT, shipped with the repository as a stock pipeline."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers.pipelines.dit.pipeline_dit import DiTPipeline

MODEL_DIR = Path(__file__).parent / "model"


def _class_names() -> tuple[str, ...]:
    index = MODEL_DIR / "model_index.json"
    labels = json.loads(index.read_text())["id2label"] if index.exists() else {}
    return tuple(labels[key] for key in sorted(labels, key=int))


CLASSES: tuple[str, ...] = _class_names()


def load_pipeline(dtype: torch.dtype = torch.float32) -> DiTPipeline:
    """The embedded model as an unchanged `DiTPipeline`, from local files only."""
    return DiTPipeline.from_pretrained(MODEL_DIR, torch_dtype=dtype, local_files_only=True)
