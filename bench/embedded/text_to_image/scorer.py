"""How well an image fits its prompt: a small two-tower network, trained on this data alone.

It stands in for CLIP where CLIP's weights are not available. Its text score is no CLIP score: it compares
images and prompts of this kind only, and carries the network's name.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPTokenizer

from bench.embedded import TEXT_MODEL_DIR
from bench.embedded.text_to_image import prompts

SCORER = "dqar-emoji-text-128"
WIDTH = 128
TOKEN_WIDTH = 96
WEIGHTS = Path(__file__).parent / "scorer.safetensors"
SPECIAL_TOKENS = 3  # start, end (which also pads) and unknown have the ids 0 to 2


def _stage(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
    return [convolution, nn.BatchNorm2d(outputs), nn.ReLU()]


class ImageTower(nn.Module):
    """Five convolutions, means over the plane's quarters, a linear layer: [n, 3, 64, 64] to [n, 128]."""

    def __init__(self) -> None:
        super().__init__()
        widths = [(3, 32, 2), (32, 64, 2), (64, 96, 1), (96, 128, 2), (128, 128, 1)]
        self.body = nn.Sequential(*[layer for width in widths for layer in _stage(*width)])
        self.head = nn.Linear(128 * 4, WIDTH)

    def forward(self, images: Tensor) -> Tensor:
        """Embed images.

        Args:
            images: RGB images, float `[n, 3, 64, 64]` in [-1, 1].

        Returns:
            Unit vectors `[n, 128]`.
        """
        quarters = F.adaptive_avg_pool2d(self.body(images), 2).flatten(1)
        return F.normalize(self.head(quarters).float(), dim=-1)


class TextTower(nn.Module):
    """The mean of the tokens' embeddings through two layers: ids [n, tokens] to [n, 128]; no order."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(prompts.VOCABULARY, TOKEN_WIDTH)
        self.head = nn.Sequential(nn.Linear(TOKEN_WIDTH, 256), nn.GELU(), nn.Linear(256, WIDTH))

    def forward(self, ids: Tensor) -> Tensor:
        """Embed prompts; special tokens are ignored.

        Args:
            ids: tokens `[n, tokens]`.

        Returns:
            Unit vectors `[n, 128]`.
        """
        kept = (ids >= SPECIAL_TOKENS).float()[..., None]
        mean = (self.tokens(ids) * kept).sum(dim=1) / kept.sum(dim=1).clamp(min=1)
        return F.normalize(self.head(mean).float(), dim=-1)


class Scorer(nn.Module):
    """Both towers and the temperature of their training."""

    def __init__(self) -> None:
        super().__init__()
        self.image, self.text = ImageTower(), TextTower()
        self.log_scale = nn.Parameter(torch.tensor(2.5))


@cache
def _scorer() -> Scorer:
    scorer = Scorer()
    scorer.load_state_dict({key: value.float() for key, value in load_file(WEIGHTS).items()})
    return scorer.eval().requires_grad_(False)


@cache
def tokenizer() -> Any:
    """Load the text-to-image model's tokenizer, which the scorer shares.

    Returns:
        A `CLIPTokenizer`.
    """
    return CLIPTokenizer.from_pretrained(TEXT_MODEL_DIR / "tokenizer", local_files_only=True)


@torch.inference_mode()
def embed_images(images_uint8: Tensor) -> Tensor:
    """Embed images.

    Args:
        images_uint8: RGB images, uint8 `[n, 3, 64, 64]`.

    Returns:
        Unit vectors float32 `[n, 128]`.

    Raises:
        TypeError: the images are not uint8.
        ValueError: the images have another shape.
    """
    if images_uint8.dtype != torch.uint8:
        raise TypeError(f"images: {images_uint8.dtype}; allowed: torch.uint8")
    if images_uint8.shape[1:] != (3, 64, 64):
        raise ValueError(f"images: shape {tuple(images_uint8.shape)}; allowed: (n, 3, 64, 64)")
    chunks = [_scorer().image(chunk.float() / 127.5 - 1) for chunk in images_uint8.split(256)]
    return torch.cat(chunks).clone()


@torch.inference_mode()
def embed_prompts(texts: list[str]) -> Tensor:
    """Embed prompts, of which at most TOKENS tokens count.

    Args:
        texts: the prompts, one an image.

    Returns:
        Unit vectors float32 `[n, 128]`.
    """
    embedded: Tensor = _scorer().text(prompts.encode(tokenizer(), texts))
    return embedded.clone()


def text_scores(images_uint8: Tensor, texts: list[str]) -> Tensor:
    """Compute the cosine of each image with its own prompt.

    Args:
        images_uint8: RGB images, uint8 `[n, 3, 64, 64]`.
        texts: a prompt for each image.

    Returns:
        Scores `[n]` in [-1, 1].

    Raises:
        ValueError: the numbers of images and prompts differ.
    """
    if len(images_uint8) != len(texts):
        raise ValueError(f"prompts: {len(texts)}; allowed: one for each of the {len(images_uint8)} images")
    return (embed_images(images_uint8) * embed_prompts(texts)).sum(dim=-1)


def own_above_other(scores: Tensor, texts: list[str]) -> float:
    """Count how often an image fits its own prompt better than another one.

    Args:
        scores: image i against prompt j, `[n, n]`.
        texts: the prompts; equal ones make no pair.

    Returns:
        The share of pairs (image i, prompt j with another text), in [0, 1].
    """
    numbers = torch.tensor([sorted(set(texts)).index(text) for text in texts])
    pairs = numbers[:, None] != numbers
    return float((scores.diagonal()[:, None] > scores)[pairs].float().mean())
