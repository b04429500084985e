"""Training of the feature extractor: a classifier of the same images, whose head is dropped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from bench.embedded import extractor
from bench.embedded.classes import CLASSES
from bench.embedded.data import EmojiData, to_float
from bench.embedded.dit import balanced_weights
from bench.embedded.loop import Budget, Trainer, load_ema, seeded

BATCH = 64
SEED = 3


class Classifier(nn.Module):
    """The feature network and a linear head; logits [n, classes]."""

    def __init__(self) -> None:
        super().__init__()
        self.features = extractor.EmojiFeatures()
        self.head = nn.Linear(extractor.FEATURES, len(CLASSES))

    def forward(self, images: Tensor) -> Tensor:
        """Classify images.

        Args:
            images: RGB images, float `[n, 3, 64, 64]` in [-1, 1].

        Returns:
            Logits `[n, classes]`.
        """
        logits: Tensor = self.head(self.features(images))
        return logits


def augment(images: Tensor, draw: torch.Generator) -> Tensor:
    """Shift each image by up to 3 px, change its brightness by up to 10 %, and add noise of 0.05.

    Args:
        images: RGB images, float `[n, 3, 64, 64]` in [-1, 1].
        draw: generator of the random numbers.

    Returns:
        As many images of the same shape.
    """
    n = len(images)
    dy, dx = torch.randint(-3, 4, (2, n), generator=draw)
    padded = F.pad(images, (3, 3, 3, 3), value=1.0)
    moved = [p[:, 3 + y : 67 + y, 3 + x : 67 + x] for p, y, x in zip(padded, dy, dx, strict=True)]
    gain = 0.9 + 0.2 * torch.rand(n, 1, 1, 1, generator=draw)
    noise = 0.05 * torch.randn(n, 3, 64, 64, generator=draw)
    return torch.stack(moved) * gain + noise


def make_loss(model: Classifier, data: EmojiData) -> Callable[[int], Tensor]:
    """Make the loss of the classifier.

    Args:
        model: the model to train, in training mode.
        data: its training images are drawn from.

    Returns:
        Cross-entropy of one augmented batch by the batch's number.
    """
    images, labels = data.split("train")
    weights = balanced_weights(labels)

    def loss(step: int) -> Tensor:
        draw = seeded(SEED, step)
        chosen = torch.multinomial(weights, BATCH, replacement=True, generator=draw)
        logits = model(augment(to_float(images[chosen]), draw))
        return F.cross_entropy(logits, labels[chosen], label_smoothing=0.05)

    return loss


def train(data: EmojiData, work: Path, budget: Budget) -> None:
    """Train, or resume, into `work/extractor.pt`.

    Args:
        data: the dataset of images, labels and splits.
        work: the directory of the checkpoints.
        budget: how long to train.
    """
    torch.manual_seed(SEED)
    model = Classifier()
    Trainer(
        model=model,
        loss=make_loss(model, data),
        budget=budget,
        checkpoint=work / "extractor.pt",
        learning_rate=3e-3,
        weight_decay=0.02,
        ema_decay=0.99,
    ).run()


def load(work: Path) -> Classifier:
    """Load the trained classifier.

    Args:
        work: the directory of the checkpoints.

    Returns:
        The classifier with averaged weights, in evaluation mode.
    """
    model = Classifier()
    state = load_ema(model, work / "extractor.pt")
    buffers = {k: v for k, v in state["model"].items() if k not in state["ema"]}
    model.load_state_dict(buffers, strict=False)  # the running statistics of batch norm
    return model.eval()


@torch.inference_mode()
def accuracy(model: Classifier, data: EmojiData) -> float:
    """Measure the classifier on held-out images.

    Args:
        model: the classifier, in evaluation mode.
        data: the dataset of images, labels and splits.

    Returns:
        The share classified right, in [0, 1].
    """
    images, labels = data.split("heldout")
    return float((model(to_float(images)).argmax(dim=1) == labels).float().mean())


def export(data: EmojiData, work: Path) -> None:
    """Write the feature network and the reference features next to `extractor.py`.

    Args:
        data: both of its splits are stored as features.
        work: the directory of the checkpoints.
    """
    extractor.DIRECTORY.mkdir(exist_ok=True)
    save_file(load(work).features.state_dict(), extractor.WEIGHTS)
    extractor._extractor.cache_clear()
    reference = {}
    for split in ("heldout", "train"):
        images, labels = data.split(split)
        reference[f"{split}.features"] = extractor.extract(images).half()
        reference[f"{split}.labels"] = labels.to(torch.uint8)
    save_file(reference, extractor.REFERENCE)
