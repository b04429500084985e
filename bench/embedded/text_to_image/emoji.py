"""Every emoji of two vendors as one dataset with names and keywords, and two kinds of held-out images."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import tarfile
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from bench.embedded.data import EXTRA_SKIN_TONES, VENDORS, decode, fetch, heldout_keys, sign_key, unpack

log = logging.getLogger(__name__)

KEYWORDS_VERSION = "4.0.3"
SKIN_WORDS = {"1F3FC": "medium light skin tone", "1F3FE": "medium dark skin tone"}
# A swatch of skin is no image of something.
WITHOUT = frozenset({"skin-tone"})
# Of the signs that are trained on, one in this many has one vendor's drawing held out.
ONE_DRAWING_IN = 12
SPLITS = ("train", "names", "drawings")


@dataclass(frozen=True)
class Sign:
    """What one emoji is called: its names, its keywords, its subcategory's words and its skin tone's."""

    names: tuple[str, ...]
    keywords: tuple[str, ...]
    kind: str
    skin: str = ""


@dataclass(frozen=True)
class TextData:
    """Images uint8 [n, 3, 64, 64]; by image the index of its sign, its subcategory and its split, each [n].

    Splits are indices into SPLITS: of the signs of "names" nothing is trained on; "drawings" are single
    drawings of signs that are known from the other vendor.
    """

    images: Tensor
    signs: Tensor
    kinds: Tensor
    splits: Tensor
    texts: tuple[Sign, ...]

    def rows(self, split: str) -> Tensor:
        """Choose the images of a split.

        Args:
            split: one of SPLITS.

        Returns:
            Their indices.

        Raises:
            ValueError: the split is none of SPLITS.
        """
        if split not in SPLITS:
            raise ValueError(f"split: {split!r}; allowed: {', '.join(SPLITS)}")
        return (self.splits == SPLITS.index(split)).nonzero()[:, 0]


def plain(text: str) -> str:
    """Simplify a text.

    Args:
        text: any text.

    Returns:
        Lower-case words of ASCII letters and digits, separated by one space.
    """
    ascii_text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return " ".join(re.findall(r"[a-z0-9]+", ascii_text.lower().replace("'", "")))


def fetch_keywords(directory: Path) -> dict[str, list[str]]:
    """Fetch the names and keywords of emoji from the npm package `emojilib`.

    Args:
        directory: the archive goes to it, and stays.

    Returns:
        Short name and keywords by emoji without variation selectors.
    """
    archive = directory / f"emojilib-{KEYWORDS_VERSION}.tgz"
    if not archive.exists():
        directory.mkdir(parents=True, exist_ok=True)
        command = ["npm", "pack", f"emojilib@{KEYWORDS_VERSION}", "--pack-destination", str(directory)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    with tarfile.open(archive) as tar:
        content = tar.extractfile("package/dist/emoji-en-US.json")
        assert content is not None
        table: dict[str, list[str]] = json.load(content)
    return {emoji.replace("\ufe0f", ""): words for emoji, words in table.items()}


def sign_of(emoji: dict[str, Any], keywords: dict[str, list[str]], skin: str = "") -> Sign:
    """Collect the words of an emoji.

    Args:
        emoji: an entry of `emoji.json`.
        keywords: as `fetch_keywords` returns them.
        skin: the words of a skin tone; empty: none.

    Returns:
        Its names, keywords and subcategory.
    """
    character = "".join(chr(int(point, 16)) for point in emoji["unified"].split("-"))
    short, *others = keywords.get(character.replace("\ufe0f", ""), [""])
    names = dict.fromkeys(plain(name) for name in (short, emoji["name"], *emoji["short_names"]))
    kept = tuple(name for name in names if name and len(name.split()) <= 12)
    known = dict.fromkeys(plain(word) for word in others)
    kind = plain(emoji["subcategory"])
    return Sign(kept, tuple(word for word in known if word and word not in kept), kind, skin)


def drawings(emoji: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Choose the drawings of an emoji: plain, and two of five skin tones.

    Args:
        emoji: an entry of `emoji.json`.

    Yields:
        File name, and the words of the skin tone.
    """
    yield emoji["image"], ""
    for tone in EXTRA_SKIN_TONES:
        if tone in emoji.get("skin_variations", {}):
            yield emoji["skin_variations"][tone]["image"], SKIN_WORDS[tone]


def split_of(emoji: dict[str, Any], heldout: set[str], vendor: str) -> str:
    """Choose the split of one vendor's drawings of an emoji; skins and sexes of a sign stay together.

    Args:
        emoji: an entry of `emoji.json`.
        heldout: keys of the signs whose names are held out.
        vendor: whose drawings, such as "twitter".

    Returns:
        One of SPLITS.
    """
    key = sign_key(emoji["unified"])
    if key in heldout:
        return "names"
    number = sum(map(ord, key))
    held_vendor = VENDORS[number // ONE_DRAWING_IN % len(VENDORS)]
    return "drawings" if number % ONE_DRAWING_IN == 0 and vendor == held_vendor else "train"


def build(directory: Path) -> TextData:
    """Fetch, unpack, compose and split; the result is kept as `text.safetensors` and `text.json`.

    Args:
        directory: the one that holds the archives and the dataset.

    Returns:
        The dataset.
    """
    keywords = fetch_keywords(directory)
    archives = {vendor: unpack(fetch(directory, vendor), vendor) for vendor in VENDORS}
    table = [e for e in archives[VENDORS[0]][0] if e["subcategory"] not in WITHOUT]
    table.sort(key=lambda e: (e["subcategory"], e["unified"]))
    texts: list[Sign] = []
    rows: list[tuple[Tensor, int, int, int]] = []
    for kind, (_, group) in enumerate(groupby(table, key=lambda e: e["subcategory"])):
        members = list(group)
        heldout = heldout_keys({sign_key(e["unified"]) for e in members})
        for emoji in members:
            for name, skin in drawings(emoji):
                texts.append(sign_of(emoji, keywords, skin))
                for vendor in VENDORS:
                    if name in archives[vendor][1]:
                        split = SPLITS.index(split_of(emoji, heldout, vendor))
                        rows.append((decode(archives[vendor][1][name]), len(texts) - 1, kind, split))
    images, signs, kinds, splits = zip(*rows, strict=True)
    data = TextData(
        torch.stack(images), torch.tensor(signs), torch.tensor(kinds), torch.tensor(splits), tuple(texts)
    )
    save_file({k: v for k, v in vars(data).items() if k != "texts"}, directory / "text.safetensors")
    (directory / "text.json").write_text(json.dumps([vars(text) for text in texts]))
    log.info("data: %d images, %s", len(rows), {s: len(data.rows(s)) for s in SPLITS})
    return data


def load(directory: Path) -> TextData:
    """Load the dataset, built on first use.

    Args:
        directory: the one that holds the archives and the dataset.

    Returns:
        The dataset.
    """
    tensors, texts = directory / "text.safetensors", directory / "text.json"
    if not (tensors.exists() and texts.exists()):
        return build(directory)
    signs = tuple(
        Sign(tuple(row["names"]), tuple(row["keywords"]), row["kind"], row["skin"])
        for row in json.loads(texts.read_text())
    )
    return TextData(**load_file(tensors), texts=signs)
