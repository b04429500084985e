"""Write the trained parts as a stock `DiTPipeline` directory in half precision."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from diffusers import DiTPipeline

from bench.embedded import MODEL_DIR
from bench.embedded.classes import CLASSES
from bench.embedded.data import EmojiData
from bench.embedded.dit import load_unshared, new_scheduler
from bench.embedded.vae import load_folded


def write_model(data: EmojiData, work: Path, directory: Path = MODEL_DIR) -> None:
    """Save transformer, autoencoder, scheduler and class names as a pipeline.

    Args:
        data: the dataset, which settles the latents' scale.
        work: the directory of the checkpoints.
        directory: the pipeline's; what it held is removed.
    """
    vae, transformer = load_folded(data, work), load_unshared(work)
    pipeline: Any = DiTPipeline(transformer=transformer, vae=vae, scheduler=new_scheduler())
    shutil.rmtree(directory, ignore_errors=True)
    pipeline.to(torch.float16).save_pretrained(directory, safe_serialization=True)
    write_labels(directory)


def write_labels(directory: Path) -> None:
    """Put `id2label` back into `model_index.json`: `save_pretrained` drops it.

    Args:
        directory: the pipeline's directory.
    """
    path = directory / "model_index.json"
    index = json.loads(path.read_text())
    index["id2label"] = {str(label): spec.name for label, spec in enumerate(CLASSES)}
    path.write_text(json.dumps(index, indent=2) + "\n")
