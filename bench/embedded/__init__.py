"""Two small latent transformers as stock pipelines: a class-conditional DiT and a text-to-image MMDiT."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # which take seconds: the classes' names are known without
    import torch
    from diffusers import StableDiffusion3Pipeline
    from diffusers.pipelines.dit.pipeline_dit import DiTPipeline

MODEL_DIR = Path(__file__).parent / "model"
TEXT_MODEL_DIR = Path(__file__).parent / "text_to_image" / "model"
# diffusers loads Stable Diffusion 3 without its T5 only where the caller asks for it.
NO_T5 = {"text_encoder_3": None, "tokenizer_3": None}


def _class_names() -> tuple[str, ...]:
    index = MODEL_DIR / "model_index.json"
    labels = json.loads(index.read_text())["id2label"] if index.exists() else {}
    return tuple(labels[key] for key in sorted(labels, key=int))


CLASSES: tuple[str, ...] = _class_names()


def load_pipeline(dtype: torch.dtype | None = None) -> DiTPipeline:
    """Load the embedded model, from local files only.

    Args:
        dtype: precision of the weights; None: float32.

    Returns:
        An unchanged `DiTPipeline`.
    """
    import torch
    from diffusers.pipelines.dit.pipeline_dit import DiTPipeline

    return DiTPipeline.from_pretrained(MODEL_DIR, torch_dtype=dtype or torch.float32, local_files_only=True)


def load_text_pipeline(dtype: torch.dtype | None = None) -> StableDiffusion3Pipeline:
    """Load the embedded text-to-image model, from local files only.

    It has no T5, whose place the pipeline fills with 256 zero tokens. `max_sequence_length=1` makes that one:
    the model is trained for any number from 1 to 256, and with one it runs four times faster.

    Args:
        dtype: precision of the weights; None: float32.

    Returns:
        An unchanged `StableDiffusion3Pipeline`.
    """
    import torch
    from diffusers import StableDiffusion3Pipeline

    return StableDiffusion3Pipeline.from_pretrained(
        TEXT_MODEL_DIR, torch_dtype=dtype or torch.float32, local_files_only=True, **NO_T5
    )
