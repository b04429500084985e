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
        """Images and labels of the split "train" or "heldout"."""
        if name not in ("train", "heldout"):
            raise ValueError(f"split: {name!r}; allowed: 'train', 'heldout'")
        mask = self.heldout if name == "heldout" else ~self.heldout
        return self.images[mask], self.labels[mask]


def sign_key(unified: str) -> str:
    """What both vendors, all sexes and all skins of one sign share; the split is by this key."""
    return "-".join(p for p in unified.split("-") if p not in MODIFIERS) or unified


def heldout_keys(keys: set[str]) -> set[str]:
    """The share of a class's signs that is held out: those with the smallest hashes."""
    ranked = sorted(keys, key=lambda key: hashlib.sha256(key.encode()).hexdigest())
    return set(ranked[: math.ceil(HELDOUT_SHARE * len(ranked))])


def fetch(folder: Path, vendor: str) -> Path:
    """Path of the vendor's package archive, fetched with `npm pack` if it is not there yet."""
    package = f"emoji-datasource-{vendor}"
    archive = folder / f"{package}-{VERSION}.tgz"
    if not archive.exists():
        folder.mkdir(parents=True, exist_ok=True)
        command = ["npm", "pack", f"{package}@{VERSION}", "--pack-destination", str(folder)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return archive


def unpack(archive: Path, vendor: str) -> tuple[list[dict[str, Any]], dict[str, bytes]]:
    """The emoji table and the 64 px images by file name; nothing else is read."""
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
    """File names of the drawings of one code point that the class takes."""
    yield emoji["image"]
    if spec.skin_tones:
        for tone in EXTRA_SKIN_TONES:
            if tone in emoji.get("skin_variations", {}):
                yield emoji["skin_variations"][tone]["image"]


def decode(content: bytes) -> Tensor:
    """PNG to uint8 [3, 64, 64], composed on white."""
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


def _rows(folder: Path, vendor: str) -> Iterator[tuple[Tensor, int, bool]]:
    table, files = unpack(fetch(folder, vendor), vendor)
    for label, spec in enumerate(CLASSES):
        for image, heldout in _class_rows(spec, table, files):
            yield image, label, heldout


def build(folder: Path) -> EmojiData:
    """Fetch, unpack, compose and split; the result is kept as `dataset.safetensors`."""
    rows = [row for vendor in VENDORS for row in _rows(folder, vendor)]
    images, labels, heldout = zip(*rows, strict=True)
    data = EmojiData(torch.stack(images), torch.tensor(labels), torch.tensor(heldout))
    save_file(vars(data), folder / "dataset.safetensors")
    log.info("data: %d images, %d held out", len(data.labels), int(data.heldout.sum()))
    return data


def load(folder: Path) -> EmojiData:
    """The dataset under `folder`, built on first use."""
    path = folder / "dataset.safetensors"
    return EmojiData(**load_file(path)) if path.exists() else build(folder)


def to_float(images: Tensor) -> Tensor:
    """uint8 [0, 255] to float32 [-1, 1]."""
    return images.float() / 127.5 - 1


def to_uint8(images: Tensor) -> Tensor:
    """Float [-1, 1] to uint8 [0, 255], clamped."""
    return ((images.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
