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
        """Logits of float images in [-1, 1]."""
        logits: Tensor = self.head(self.features(images))
        return logits


def augment(images: Tensor, draw: torch.Generator) -> Tensor:
    """Float [n, 3, 64, 64], each shifted by up to 3 px, brightness +-10 %, noise of 0.05."""
    n = len(images)
    dy, dx = torch.randint(-3, 4, (2, n), generator=draw)
    padded = F.pad(images, (3, 3, 3, 3), value=1.0)
    moved = [p[:, 3 + y : 67 + y, 3 + x : 67 + x] for p, y, x in zip(padded, dy, dx, strict=True)]
    gain = 0.9 + 0.2 * torch.rand(n, 1, 1, 1, generator=draw)
    noise = 0.05 * torch.randn(n, 3, 64, 64, generator=draw)
    return torch.stack(moved) * gain + noise


def make_loss(model: Classifier, data: EmojiData) -> Callable[[int], Tensor]:
    """Cross-entropy of one augmented batch of training images."""
    images, labels = data.split("train")
    weights = balanced_weights(labels)

    def loss(step: int) -> Tensor:
        draw = seeded(SEED, step)
        chosen = torch.multinomial(weights, BATCH, replacement=True, generator=draw)
        logits = model(augment(to_float(images[chosen]), draw))
        return F.cross_entropy(logits, labels[chosen], label_smoothing=0.05)

    return loss


def train(data: EmojiData, work: Path, budget: Budget) -> None:
    """Train, or resume, into `work/extractor.pt`."""
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
    """The trained classifier with averaged weights."""
    model = Classifier()
    state = load_ema(model, work / "extractor.pt")
    buffers = {k: v for k, v in state["model"].items() if k not in state["ema"]}
    model.load_state_dict(buffers, strict=False)  # the running statistics of batch norm
    return model.eval()


@torch.inference_mode()
def accuracy(model: Classifier, data: EmojiData) -> float:
    """Share of held-out images classified right."""
    images, labels = data.split("heldout")
    return float((model(to_float(images)).argmax(dim=1) == labels).float().mean())


def export(data: EmojiData, work: Path) -> None:
    """Write the feature network and the reference features next to `extractor.py`."""
    extractor.FOLDER.mkdir(exist_ok=True)
    save_file(load(work).features.state_dict(), extractor.WEIGHTS)
    extractor._extractor.cache_clear()
    reference = {}
    for split in ("heldout", "train"):
        images, labels = data.split(split)
        reference[f"{split}.features"] = extractor.extract(images).half()
        reference[f"{split}.labels"] = labels.to(torch.uint8)
    save_file(reference, extractor.REFERENCE)
