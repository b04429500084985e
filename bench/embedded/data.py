"""Emoji images of two vendors as one tensor dataset with class labels and a held-out split."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import math
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from bench.embedded.classes import CLASSES, ClassSpec, words

log = logging.getLogger(__name__)

VERSION = "16.0.0"
VENDORS = ("google", "twitter")
HELDOUT_SHARE = 0.15
EXTRA_SKIN_TONES = ("1F3FC", "1F3FE")  # two of five: all of them would be near-copies

# Parts of a code point sequence that only vary one drawing: joiner, emoji style, sex, person, skin.
MODIFIERS = words("200D FE0F 2640 2642 1F468 1F469 1F9D1 1F3FB 1F3FC 1F3FD 1F3FE 1F3FF")


@dataclass(frozen=True)
class EmojiData:
    """Images uint8 [n, 3, 64, 64], class labels int64 [n] and held-out flags bool [n]."""

    images: Tensor
    labels: Tensor
    heldout: Tensor

    def split(self, name: str) -> tuple[Tensor, Tensor]:
        """Choose a split.

        Args:
            name: "train" or "heldout".

        Returns:
            Images uint8 `[m, 3, 64, 64]` and labels int64 `[m]`.

        Raises:
            ValueError: it is neither.
        """
        if name not in ("train", "heldout"):
            raise ValueError(f"split: {name!r}; allowed: 'train', 'heldout'")
        mask = self.heldout if name == "heldout" else ~self.heldout
        return self.images[mask], self.labels[mask]


def sign_key(unified: str) -> str:
    """Name what both vendors, all sexes and all skins of one sign share; the split is by this key.

    Args:
        unified: the code points of an emoji, hexadecimal with dashes between.

    Returns:
        The code points without modifiers; all of them where nothing else is left.
    """
    return "-".join(p for p in unified.split("-") if p not in MODIFIERS) or unified


def heldout_keys(keys: set[str]) -> set[str]:
    """Choose the signs of a class that are held out.

    Args:
        keys: the class's signs, see `sign_key`.

    Returns:
        The share HELDOUT_SHARE of them with the smallest hashes, at least one.
    """
    ranked = sorted(keys, key=lambda key: hashlib.sha256(key.encode()).hexdigest())
    return set(ranked[: math.ceil(HELDOUT_SHARE * len(ranked))])


def fetch(directory: Path, vendor: str) -> Path:
    """Fetch a vendor's package with `npm pack`, if it is not there yet.

    Args:
        directory: the archive goes to it.
        vendor: whose drawings, such as "twitter".

    Returns:
        The archive.
    """
    package = f"emoji-datasource-{vendor}"
    archive = directory / f"{package}-{VERSION}.tgz"
    if not archive.exists():
        directory.mkdir(parents=True, exist_ok=True)
        command = ["npm", "pack", f"{package}@{VERSION}", "--pack-destination", str(directory)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return archive


def unpack(archive: Path, vendor: str) -> tuple[list[dict[str, Any]], dict[str, bytes]]:
    """Read a vendor's archive.

    Args:
        archive: as `fetch` returned it.
        vendor: whose drawings, such as "twitter".

    Returns:
        The emoji table, and the 64 px images (PNG) by file name; nothing else is read.
    """
    prefix = f"package/img/{vendor}/64/"
    files: dict[str, bytes] = {}
    table: list[dict[str, Any]] = []
    with tarfile.open(archive) as tar:
        for member in tqdm(tar, desc=f"unpack {vendor}", unit="file"):
            if member.name.startswith(prefix) or member.name == "package/emoji.json":
                content = tar.extractfile(member)
                assert content is not None
                if member.name.endswith(".json"):
                    table = json.load(content)
                else:
                    files[member.name.removeprefix(prefix)] = content.read()
    return table, files


def variants(emoji: dict[str, Any], spec: ClassSpec) -> Iterator[str]:
    """Choose the drawings of one code point that a class takes.

    Args:
        emoji: an entry of `emoji.json`.
        spec: the class that takes them.

    Yields:
        File names, the plain drawing's first.
    """
    yield emoji["image"]
    if spec.skin_tones:
        for tone in EXTRA_SKIN_TONES:
            if tone in emoji.get("skin_variations", {}):
                yield emoji["skin_variations"][tone]["image"]


def decode(content: bytes) -> Tensor:
    """Decode an image, composed on white.

    Args:
        content: bytes of a PNG file.

    Returns:
        uint8 `[3, 64, 64]`.
    """
    image = Image.open(io.BytesIO(content)).convert("RGBA")
    canvas = Image.new("RGBA", image.size, "white")
    canvas.alpha_composite(image)
    rgb = np.asarray(canvas.convert("RGB").resize((64, 64)), dtype=np.uint8)
    return torch.from_numpy(rgb.copy()).permute(2, 0, 1)


def _class_rows(
    spec: ClassSpec, table: list[dict[str, Any]], files: dict[str, bytes]
) -> Iterator[tuple[Tensor, bool]]:
    members = sorted((e for e in table if spec.accepts(e)), key=lambda e: e["unified"])
    heldout = heldout_keys({sign_key(e["unified"]) for e in members})
    for emoji in members:
        for name in variants(emoji, spec):
            if name in files:
                yield decode(files[name]), sign_key(emoji["unified"]) in heldout


def _rows(directory: Path, vendor: str) -> Iterator[tuple[Tensor, int, bool]]:
    table, files = unpack(fetch(directory, vendor), vendor)
    for label, spec in enumerate(CLASSES):
        for image, heldout in _class_rows(spec, table, files):
            yield image, label, heldout


def build(directory: Path) -> EmojiData:
    """Fetch, unpack, compose and split; the result is kept as `dataset.safetensors`.

    Args:
        directory: the one that holds the archives and the dataset.

    Returns:
        The dataset.
    """
    rows = [row for vendor in VENDORS for row in _rows(directory, vendor)]
    images, labels, heldout = zip(*rows, strict=True)
    data = EmojiData(torch.stack(images), torch.tensor(labels), torch.tensor(heldout))
    save_file(vars(data), directory / "dataset.safetensors")
    log.info("data: %d images, %d held out", len(data.labels), int(data.heldout.sum()))
    return data


def load(directory: Path) -> EmojiData:
    """Load the dataset, built on first use.

    Args:
        directory: the one that holds the archives and the dataset.

    Returns:
        The dataset.
    """
    path = directory / "dataset.safetensors"
    return EmojiData(**load_file(path)) if path.exists() else build(directory)


def to_float(images: Tensor) -> Tensor:
    """Scale images for a network.

    Args:
        images: uint8, any shape.

    Returns:
        float32 in [-1, 1], of the same shape.
    """
    return images.float() / 127.5 - 1


def to_uint8(images: Tensor) -> Tensor:
    """Scale a network's images back, clamped.

    Args:
        images: float in [-1, 1], any shape.

    Returns:
        uint8 of the same shape.
    """
    return ((images.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
