"""Metrics of the shipped model: reconstruction, distance to real images, memorisation, a grid."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw
from torch import Tensor
from tqdm import tqdm

from bench.embedded.classes import CLASSES
from bench.embedded.data import EmojiData
from bench.embedded.extractor import extract
from bench.embedded.vae import load_folded, reconstruction_psnr
from dqar.evaluation.frechet import fitted, frechet_distance

SEED = 4


def sample(pipe: Any, labels: Tensor, guidance: float, steps: int, batch: int = 50) -> Tensor:
    """Generate images, one generator seed a batch.

    Args:
        pipe: the pipeline with its scheduler.
        labels: a class for each image, `[n]`.
        guidance: weight of classifier-free guidance.
        steps: number of denoising steps.
        batch: number of images of one call.

    Returns:
        uint8 `[n, 3, 64, 64]`.
    """
    pipe.set_progress_bar_config(disable=True)
    samples = []
    for start in tqdm(range(0, len(labels), batch), desc="sample", unit="batch"):
        images = pipe(
            class_labels=labels[start : start + batch].tolist(),
            guidance_scale=guidance,
            num_inference_steps=steps,
            generator=torch.Generator().manual_seed(SEED * 10_000 + start),
            output_type="pt",
        ).images
        samples.append((images.float() * 255).round().to(torch.uint8))
    return torch.cat(samples)


def like(labels: Tensor, n: int) -> Tensor:
    """Draw labels with the class shares of others.

    Args:
        labels: classes whose shares are kept, `[m]`.
        n: number of images or labels to choose.

    Returns:
        Labels `[n]`.
    """
    draw = torch.Generator().manual_seed(SEED)
    return labels[torch.randint(len(labels), (n,), generator=draw)]


def match(pool: Tensor, wanted: Tensor) -> Tensor:
    """Match images to labels, each taken at most once while there are any.

    Args:
        pool: labels of the images to choose from, `[m]`.
        wanted: classes to match, `[n]`.

    Returns:
        Indices into `pool`, one class after another.
    """
    draw = torch.Generator().manual_seed(SEED)
    chosen = []
    for label in wanted.unique():
        candidates = (pool == label).nonzero()[:, 0]
        order = candidates[torch.randperm(len(candidates), generator=draw)]
        chosen.append(order[: int((wanted == label).sum())])
    return torch.cat(chosen)


def distances(data: EmojiData, samples: Tensor, wanted: Tensor) -> dict[str, Any]:
    """Measure Fréchet distances of samples to the held-out images alongside those of real images.

    Args:
        data: the dataset of images, labels and splits.
        samples: generated images, uint8 `[n, 3, 64, 64]`.
        wanted: classes of the samples, `[n]`.

    Returns:
        The distances with both numbers of images.
    """
    heldout, _ = data.split("heldout")
    train, train_labels = data.split("train")
    real = extract(heldout)
    order = torch.randperm(len(real), generator=torch.Generator().manual_seed(SEED))
    halves = order.chunk(2)
    matched = extract(train[match(train_labels, wanted)])
    generated = extract(samples)
    pairs = {
        "samples to held-out": (generated, real),
        "training to held-out, same classes": (matched, real),
        "halves of held-out": (real[halves[0]], real[halves[1]]),
        "samples to held-out, n of a half": (generated[: len(halves[0])], real[halves[1]]),
    }
    return {
        k: {"fd": frechet_distance(fitted(a), fitted(b)), "n": [len(a), len(b)]}
        for k, (a, b) in pairs.items()
    }


def nearest(samples: Tensor, pool: Tensor) -> tuple[Tensor, Tensor]:
    """Find the nearest images, mirrored or not.

    Args:
        samples: generated images, uint8 `[n, 3, 64, 64]`.
        pool: images to search, uint8 `[m, 3, 64, 64]`.

    Returns:
        The RMSE to the nearest, `[n]` in [0, 1], and its index in `pool`, `[n]`.
    """
    flat = (pool.float() / 255).flatten(1)
    mirrored = (pool.flip(-1).float() / 255).flatten(1)
    query = (samples.float() / 255).flatten(1)
    both = torch.minimum(torch.cdist(query, flat), torch.cdist(query, mirrored))
    best = both.min(dim=1)
    return best.values / query.shape[1] ** 0.5, best.indices


def memorisation(data: EmojiData, samples: Tensor) -> dict[str, float]:
    """Measure how near samples lie to training images, and how near unseen real images do.

    Args:
        data: the dataset of images, labels and splits.
        samples: generated images, uint8 `[n, 3, 64, 64]`.

    Returns:
        RMSEs in [0, 1] by what they are.
    """
    train, _ = data.split("train")
    ours, real = nearest(samples, train)[0], nearest(data.split("heldout")[0], train)[0]
    return {
        "samples: median RMSE to the nearest training image": float(ours.median()),
        "held-out: median RMSE to the nearest training image": float(real.median()),
        "held-out: 5th percentile": float(real.quantile(0.05)),
        "share of samples below it": float((ours < real.quantile(0.05)).float().mean()),
    }


def metrics(data: EmojiData, samples: Tensor, wanted: Tensor, work: Path) -> dict[str, Any]:
    """Measure all values of the README.

    Args:
        data: the dataset of images, labels and splits.
        samples: generated images, uint8 `[n, 3, 64, 64]`.
        wanted: classes of the samples, `[n]`.
        work: the directory of the checkpoints; without one of the autoencoder it is the shipped one's.

    Returns:
        The values, ready for JSON.
    """
    return {
        "vae_psnr_heldout_db": reconstruction_psnr(load_folded(data, work), data.split("heldout")[0]),
        "frechet_distance": distances(data, samples, wanted),
        "memorisation": memorisation(data, samples),
    }


def grid(samples: Tensor, labels: Tensor, columns: int = 6) -> Image.Image:
    """Draw one class a row with its name: the first images of each class as they came, none chosen.

    Args:
        samples: generated images, uint8 `[n, 3, 64, 64]`.
        labels: classes of the samples, `[n]`.
        columns: images of a class.

    Returns:
        The grid.
    """
    sheet = Image.new("RGB", (100 + 66 * columns, 66 * len(CLASSES)), "white")
    for row, spec in enumerate(CLASSES):
        ImageDraw.Draw(sheet).text((4, 66 * row + 26), spec.name, fill="black")
        for column, sample in enumerate(samples[labels == row][:columns]):
            tile = Image.fromarray(sample.permute(1, 2, 0).numpy())
            sheet.paste(tile, (100 + 66 * column, 66 * row + 1))
    return sheet.quantize(128)
