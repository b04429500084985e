"""Write the trained parts as a stock `StableDiffusion3Pipeline` directory in half precision."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusion3Pipeline

from bench.embedded import TEXT_MODEL_DIR
from bench.embedded.text_to_image import mmdit, prompts
from bench.embedded.vae import load_shipped

SHIFT = 2.0


def write_model(work: Path, directory: Path = TEXT_MODEL_DIR) -> None:
    """Save transformer, text encoders, tokenizers, autoencoder and scheduler as a pipeline.

    The autoencoder's weights are those of the class-conditional model; its configuration gains the shift that
    Stable Diffusion 3's pipeline adds, 0 here.

    Args:
        work: the directory of the checkpoints.
        directory: the pipeline's directory.
    """
    model = mmdit.load_trained(work)
    vae = load_shipped()
    vae.register_to_config(shift_factor=0.0)
    pipeline: Any = StableDiffusion3Pipeline(
        transformer=model.transformer,
        scheduler=mmdit.new_scheduler(SHIFT),
        vae=vae,
        text_encoder=model.text_encoder,
        tokenizer=prompts.load_tokenizer(work / "tokenizer"),
        text_encoder_2=model.text_encoder_2,
        tokenizer_2=prompts.load_tokenizer(work / "tokenizer"),
        text_encoder_3=None,
        tokenizer_3=None,
    )
    shutil.rmtree(directory, ignore_errors=True)
    pipeline.to(torch.float16).save_pretrained(directory, safe_serialization=True)
    for path in directory.glob("text_encoder*/config.json"):
        # By default diffusers loads in float32, but transformers in the type that the configuration names.
        path.write_text(path.read_text().replace('"dtype": "float16"', '"dtype": "float32"'))
    for path in directory.glob("tokenizer*/tokenizer.json"):  # half the size without its white space
        path.write_text(json.dumps(json.loads(path.read_text()), separators=(",", ":")) + "\n")
