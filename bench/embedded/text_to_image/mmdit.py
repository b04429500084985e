"""The text-to-image transformer and its two text encoders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from bench.embedded.loop import load_ema
from bench.embedded.text_to_image import prompts

TEXT_WIDTH = 64


def new_text_encoder() -> Any:
    """Make a text encoder, untrained: 2 layers, 2 heads x 32.

    Returns:
        The encoder; the pipeline reads the first layer's tokens and the last one's pool.
    """
    return CLIPTextModelWithProjection(
        CLIPTextConfig(
            vocab_size=prompts.VOCABULARY,
            hidden_size=TEXT_WIDTH,
            intermediate_size=4 * TEXT_WIDTH,
            projection_dim=TEXT_WIDTH,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=prompts.TOKENS,
            hidden_act="gelu",
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=1,
        )
    )


def new_mmdit() -> Any:
    """Make the transformer, untrained: 7 joint layers, 4 heads x 32.

    Returns:
        The transformer; every layer's output starts at 0 (adaLN-zero, Peebles & Xie 2023).
    """
    model: Any = SD3Transformer2DModel(
        sample_size=16,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=7,
        attention_head_dim=32,
        num_attention_heads=4,
        joint_attention_dim=2 * TEXT_WIDTH,
        caption_projection_dim=128,
        pooled_projection_dim=2 * TEXT_WIDTH,
        pos_embed_max_size=8,
    )
    zeroed = [model.proj_out, model.norm_out.linear]
    for block in model.transformer_blocks:
        zeroed += [block.norm1.linear, block.norm1_context.linear]
    for layer in zeroed:
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    return model


def new_scheduler(shift: float) -> Any:
    """Make the scheduler: Euler steps of the flow.

    Args:
        shift: moves the steps towards noise above 1 (Esser et al. 2024, eq. 23).

    Returns:
        The scheduler.
    """
    return FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=shift)


class TextToImage(nn.Module):
    """The parts that are trained together, called on token ids."""

    def __init__(self) -> None:
        super().__init__()
        self.transformer = new_mmdit()
        self.text_encoder = new_text_encoder()
        self.text_encoder_2 = new_text_encoder()

    def embed(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Encode prompts.

        Args:
            ids: tokens int64 `[b, TOKENS]`.

        Returns:
            Text tokens `[b, TOKENS + 1, 128]`, the last of them zero, and the pooled vector `[b, 128]`.
        """
        outputs = [e(ids, output_hidden_states=True) for e in (self.text_encoder, self.text_encoder_2)]
        tokens = torch.cat([output.hidden_states[-2] for output in outputs], dim=-1)
        pooled = torch.cat([output.text_embeds for output in outputs], dim=-1)
        return F.pad(tokens, (0, 0, 0, 1)), pooled


def load_trained(work: Path) -> TextToImage:
    """Load the averaged weights of the checkpoint.

    Args:
        work: the directory of the checkpoints.

    Returns:
        The model, in evaluation mode.
    """
    model = TextToImage()
    load_ema(model, work / "mmdit.pt")
    return model.eval()
