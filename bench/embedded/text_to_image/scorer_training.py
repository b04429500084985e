"""Contrastive training of the scorer, and how often it is right on names and drawings that were held out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from bench.embedded.classifier import augment
from bench.embedded.data import to_float
from bench.embedded.loop import Budget, Trainer, load_ema, seeded
from bench.embedded.text_to_image import prompts, scorer
from bench.embedded.text_to_image.emoji import TextData
from bench.embedded.text_to_image.scorer import Scorer
from bench.machine.device import has_bfloat16

BATCH = 192
SEED = 6


def blurred(images: Tensor, draw: torch.Generator) -> Tensor:
    """Blend each image with its mean over 3x3 pixels, because samples are softer than drawings.

    Args:
        images: RGB images, float `[n, 3, 64, 64]`.
        draw: generator of the random numbers.

    Returns:
        As many images of the same shape.
    """
    share = torch.rand(len(images), 1, 1, 1, generator=draw)
    return torch.lerp(images, F.avg_pool2d(images, 3, 1, 1, count_include_pad=False), share)


def contrast(images: Tensor, texts: Tensor, scale: Tensor, same: Tensor) -> Tensor:
    """Compute the cross-entropy of each image among the texts and of each text among the images (Radford
    et al. 2021).

    Args:
        images: embedded images, unit vectors `[n, 128]`.
        texts: embedded prompts, unit vectors `[n, 128]`.
        scale: logarithm of the inverse temperature, a scalar, clamped to 4.6.
        same: pairs of one name, which share the target, `[n, n]`.

    Returns:
        The loss, a scalar.
    """
    logits = scale.clamp(max=4.6).exp() * images @ texts.T
    target = same / same.sum(dim=1, keepdim=True)
    return 0.5 * (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target))


def make_loss(model: Scorer, data: TextData, table: Tensor) -> Callable[[int], Tensor]:
    """Make the loss of the scorer.

    Args:
        model: the model to train, in training mode.
        data: its training images are drawn from.
        table: prompts of each sign, see `prompts.prompt_table`.

    Returns:
        The contrast of one augmented batch, a drawn prompt each, by the batch's number.
    """
    rows = data.rows("train")
    images, signs = data.images[rows], data.signs[rows]
    names = {name: i for i, name in enumerate(sorted({text.names[0] for text in data.texts}))}
    name_of = torch.tensor([names[text.names[0]] for text in data.texts])[signs]
    weights = data.kinds[rows].bincount()[data.kinds[rows]].float().rsqrt()

    half = has_bfloat16()

    def loss(step: int) -> Tensor:
        draw = seeded(SEED, step)
        chosen = torch.multinomial(weights, BATCH, generator=draw)
        which = torch.randint(table.shape[1], (BATCH,), generator=draw)
        batch = blurred(augment(to_float(images[chosen]), draw), draw)
        same = (name_of[chosen][:, None] == name_of[chosen]).float()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            image = model.image(batch.contiguous(memory_format=torch.channels_last))
            text = model.text(table[signs[chosen], which])
        return contrast(image, text, model.log_scale, same)

    return loss


def train(data: TextData, work: Path, budget: Budget) -> None:
    """Train, or resume, into `work/scorer.pt`.

    Args:
        data: the dataset of images, labels and splits.
        work: the directory of the checkpoints.
        budget: how long to train.
    """
    torch.manual_seed(SEED)
    model = Scorer().to(memory_format=torch.channels_last)
    signs = data.signs[data.rows("train")]
    table = prompts.prompt_table(data, prompts.tokenizer_for(data, work), SEED, signs)
    Trainer(
        model=model,
        loss=make_loss(model, data, table),
        budget=budget,
        checkpoint=work / "scorer.pt",
        learning_rate=2e-3,
        weight_decay=0.05,
        ema_decay=0.99,
    ).run()


def load(work: Path) -> Scorer:
    """Load the trained scorer.

    Args:
        work: the directory of the checkpoints.

    Returns:
        The scorer with averaged weights, in evaluation mode.
    """
    model = Scorer()
    state = load_ema(model, work / "scorer.pt")
    buffers = {k: v for k, v in state["model"].items() if k not in state["ema"]}
    model.load_state_dict(buffers, strict=False)  # the running statistics of batch norm
    return model.eval()


def export(work: Path) -> None:
    """Write the weights in half precision alongside `scorer.py`.

    Args:
        work: the directory of the checkpoints.
    """
    state = {k: v.contiguous() for k, v in load(work).state_dict().items()}
    save_file({k: v.half() if v.is_floating_point() else v for k, v in state.items()}, scorer.WEIGHTS)
    scorer._scorer.cache_clear()


def retrieval(images: Tensor, texts: list[str]) -> dict[str, Any]:
    """Measure how well images find their own prompts.

    Args:
        images: RGB images, uint8 `[n, 3, 64, 64]`.
        texts: a prompt for each image.

    Returns:
        How often an image's own prompt scores above another, and among the best 1 and 5 of them all.
    """
    embedded = scorer.embed_images(images)
    distinct = sorted(set(texts))
    target = torch.tensor([distinct.index(text) for text in texts])
    scores = embedded @ scorer.embed_prompts(distinct).T
    rank = (scores > scores.gather(1, target[:, None])).sum(dim=1)
    return {
        "n": len(texts),
        "distinct prompts": len(distinct),
        "own prompt above another": scorer.own_above_other(scores[:, target], texts),
        "own prompt first": float((rank == 0).float().mean()),
        "own prompt among five": float((rank < 5).float().mean()),
    }
