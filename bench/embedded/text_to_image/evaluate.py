"""Metrics of the text-to-image model: text score, distance to real images, memorisation, a grid."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw
from torch import Tensor
from tqdm import tqdm

from bench.embedded import load_text_pipeline, metrics_file
from bench.embedded.evaluate import nearest
from bench.embedded.extractor import extract
from bench.embedded.text_to_image import scorer, scorer_training
from bench.embedded.text_to_image.emoji import SPLITS, TextData
from bench.embedded.text_to_image.prompts import name_of
from bench.machine.device import sample_dtype
from dqar.evaluation.frechet import fitted, frechet_distance

HERE = Path(__file__).parent
STEPS = 28
GUIDANCE = 4.0
SEED = 7
ZERO_TOKENS = 1  # `max_sequence_length`: see `bench.embedded.load_text_pipeline`


def sample(
    pipe: Any, texts: list[str], guidance: float = GUIDANCE, steps: int = STEPS, batch: int = 50
) -> Tensor:
    """Generate images, one a prompt; the noise of each batch has a seed of its own.

    Args:
        pipe: as `load_text_pipeline` returns it.
        texts: the prompts, one an image.
        guidance: weight of classifier-free guidance.
        steps: number of denoising steps.
        batch: number of images of one call.

    Returns:
        uint8 `[n, 3, 64, 64]`.
    """
    pipe.set_progress_bar_config(disable=True)
    images = []
    for start in tqdm(range(0, len(texts), batch), desc="sample", unit="batch"):
        output = pipe(
            prompt=texts[start : start + batch],
            guidance_scale=guidance,
            num_inference_steps=steps,
            generator=torch.Generator().manual_seed(SEED * 10_000 + start),
            max_sequence_length=ZERO_TOKENS,
            output_type="pt",
        ).images
        images.append((output.float() * 255).round().to(torch.uint8))
    return torch.cat(images)


def choose(data: TextData, split: str, n: int) -> Tensor:
    """Choose images of a split, drawn with replacement where there are fewer.

    Args:
        data: the dataset of images, labels and splits.
        split: one of SPLITS.
        n: number of images or labels to choose.

    Returns:
        Their indices, `[n]`.
    """
    rows = data.rows(split)
    draw = torch.Generator().manual_seed(SEED)
    if n <= len(rows):
        return rows[torch.randperm(len(rows), generator=draw)[:n]]
    return rows[torch.randint(len(rows), (n,), generator=draw)]


def prompts_of(data: TextData, rows: Tensor) -> list[str]:
    """Name the signs of images.

    Args:
        data: the dataset of images, labels and splits.
        rows: indices of images, `[n]`.

    Returns:
        A prompt each.
    """
    return [name_of(data.texts[index]) for index in data.signs[rows].tolist()]


def distances(data: TextData, images: Tensor, rows: Tensor) -> dict[str, Any]:
    """Measure Fréchet distances: samples to the held-out images whose names were their prompts, and real
    to real.

    Args:
        data: the dataset of images, labels and splits.
        images: samples uint8 `[n, 3, 64, 64]`.
        rows: the distinct images of the split "names" whose names were the prompts, `[n]`.

    Returns:
        The distances with both numbers of images.
    """
    real, generated = extract(data.images[rows]), extract(images)
    halves = torch.randperm(len(rows), generator=torch.Generator().manual_seed(SEED)).chunk(2)
    training = extract(data.images[matching_training_rows(data, rows)])
    pairs = {
        "samples to held-out": (generated, real),
        "training to held-out, same subcategories": (training, real),
        "halves of held-out": (real[halves[0]], real[halves[1]]),
        "samples to held-out, n of a half": (generated[halves[0]], real[halves[1]]),
    }
    return {
        name: {"fd": frechet_distance(fitted(a), fitted(b)), "n": [len(a), len(b)]}
        for name, (a, b) in pairs.items()
    }


def matching_training_rows(data: TextData, rows: Tensor) -> Tensor:
    """Draw a training image of the same subcategory for each image, with replacement.

    Args:
        data: the dataset of images, labels and splits.
        rows: indices of images, `[n]`.

    Returns:
        Indices of training images, `[n]`.
    """
    draw, train = torch.Generator().manual_seed(SEED), data.rows("train")
    kinds = data.kinds[train]
    chosen = []
    for kind in data.kinds[rows].tolist():
        candidates = train[kinds == kind]
        pool = candidates if len(candidates) else train
        chosen.append(pool[torch.randint(len(pool), (), generator=draw)])
    return torch.stack(chosen)


def memorisation(data: TextData, images: Tensor) -> dict[str, float]:
    """Measure how near samples lie to training images, and how near held-out images do.

    Args:
        data: the dataset of images, labels and splits.
        images: samples uint8 `[n, 3, 64, 64]`.

    Returns:
        RMSEs in [0, 1] by what they are.
    """
    train = data.images[data.rows("train")]
    ours, real = nearest(images, train)[0], nearest(data.images[data.rows("names")], train)[0]
    return {
        "samples: median RMSE to the nearest training image": float(ours.median()),
        "held-out: median RMSE to the nearest training image": float(real.median()),
        "held-out: 5th percentile": float(real.quantile(0.05)),
        "share of samples below it": float((ours < real.quantile(0.05)).float().mean()),
    }


def metrics(data: TextData, images: dict[str, Tensor], rows: dict[str, Tensor]) -> dict[str, Any]:
    """Measure all values of the README.

    Args:
        data: the dataset of images, labels and splits.
        images: samples uint8 `[n, 3, 64, 64]` by the split that their prompts are from, "train" and "names".
        rows: the images of the dataset whose names were the prompts, by split.

    Returns:
        The values, ready for JSON.
    """
    real = {split: data.rows(split) for split in SPLITS}
    return {
        "text_score": {
            "network": scorer.SCORER,
            "real images": {s: scored(data.images[r], prompts_of(data, r)) for s, r in real.items()},
            "samples": {s: scored(images[s], prompts_of(data, rows[s])) for s in images},
        },
        "frechet_distance": distances(data, images["names"], rows["names"]),
        "memorisation": {split: memorisation(data, images[split]) for split in images},
    }


def scored(images: Tensor, texts: list[str]) -> dict[str, Any]:
    """Score images against their prompts.

    Args:
        images: RGB images, uint8 `[n, 3, 64, 64]`.
        texts: a prompt for each image.

    Returns:
        The mean text score, and how often the own prompt wins.
    """
    mean = float(scorer.text_scores(images, texts).mean())
    return {"mean": mean, **scorer_training.retrieval(images, texts)}


def grid(samples: list[tuple[str, Tensor]], columns: int = 8) -> Image.Image:
    """Draw images with their prompts below, as they came.

    Args:
        samples: prompt and image uint8 `[3, 64, 64]` of each.
        columns: number of the grid's columns.

    Returns:
        The grid.
    """
    width, height = 100, 90
    sheet = Image.new("RGB", (columns * width, -(-len(samples) // columns) * height), "white")
    pen = ImageDraw.Draw(sheet)
    for index, (text, image) in enumerate(samples):
        x, y = index % columns * width, index // columns * height
        sheet.paste(Image.fromarray(image.permute(1, 2, 0).numpy()), (x + 18, y))
        for line, part in enumerate(textwrap.wrap(text, 20)[:2]):
            pen.text((x + 2, y + 66 + 10 * line), part, fill="black", font_size=9)
    return sheet.quantize(128)


def write(data: TextData, n: int) -> str:
    """Sample prompts of each split, draw the grids, and measure.

    Args:
        data: the dataset of images, labels and splits.
        n: number of images of each split.

    Returns:
        What it writes to `metrics.json`.
    """
    pipe = load_text_pipeline(sample_dtype())
    rows = {split: choose(data, split, n) for split in ("train", "names")}
    images = {split: sample(pipe, prompts_of(data, chosen)) for split, chosen in rows.items()}
    shown = {split: list(zip(prompts_of(data, rows[split]), images[split], strict=True)) for split in rows}
    grid(shown["train"][:40] + shown["names"][:24]).save(HERE / "samples.webp", quality=70, method=6)
    drawn = nearest_pairs(data, shown["train"][:12])
    grid(drawn, columns=6).save(HERE / "nearest.png", optimize=True)
    return metrics_file.write(HERE, {"guidance": GUIDANCE, "steps": STEPS, **metrics(data, images, rows)})


def nearest_pairs(data: TextData, samples: list[tuple[str, Tensor]]) -> list[tuple[str, Tensor]]:
    """Arrange six samples, then the training image nearest to each, with its name, and so on.

    Args:
        data: the dataset of images, labels and splits.
        samples: prompt and image uint8 `[3, 64, 64]` of each.

    Returns:
        Text and image of each cell, in order.
    """
    pool = data.rows("train")
    indices = nearest(torch.stack([image for _, image in samples]), data.images[pool])[1]
    names = prompts_of(data, pool[indices])
    pairs = list(zip(names, data.images[pool[indices]], strict=True))
    order: list[tuple[str, Tensor]] = []
    for start in range(0, len(samples), 6):
        order += samples[start : start + 6] + pairs[start : start + 6]
    return order
