"""Fixtures shared by the tests: a stock pipeline small enough to run hundreds of steps a second."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, DiTPipeline, DiTTransformer2DModel

torch.set_num_threads(1)  # the tiny model's operations are far too small to share out


def build_tiny_pipeline() -> DiTPipeline:
    """A stock DiTPipeline with seeded random weights: 6 layers, width 32, 16 tokens, 16 px pictures."""
    torch.manual_seed(0)
    transformer = DiTTransformer2DModel(
        num_attention_heads=4,
        attention_head_dim=8,
        in_channels=4,
        out_channels=4,
        num_layers=6,
        sample_size=8,
        num_embeds_ada_norm=1000,
    )
    vae = AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
        sample_size=16,
    )
    scheduler = DDIMScheduler(beta_start=1e-4, beta_end=0.02, beta_schedule="linear", clip_sample=False)
    # .eval(): a model built by hand is in training mode, where labels are dropped at random.
    pipe = DiTPipeline(transformer=transformer.eval(), vae=vae.eval(), scheduler=scheduler)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def generate(pipe: Any, labels: tuple[int, ...] = (1, 2), steps: int = 10, **options: Any) -> torch.Tensor:
    """The final latents of one `pipe(...)` call, seeded."""
    seen: list[torch.Tensor] = []
    hook = pipe.vae.post_quant_conv.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    generator = torch.Generator().manual_seed(7)
    try:
        pipe(list(labels), generator=generator, num_inference_steps=steps, output_type="pt", **options)
    finally:
        hook.remove()
    return seen[0]


@pytest.fixture
def pipe() -> DiTPipeline:
    """A fresh tiny pipeline."""
    return build_tiny_pipeline()


@pytest.fixture(scope="session")
def tiny_model_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The tiny pipeline saved as a stock model directory."""
    path = tmp_path_factory.mktemp("models") / "tiny"
    build_tiny_pipeline().save_pretrained(path)
    yield path
