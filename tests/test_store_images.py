"""Images next to records: files of their own or one pack, and what is damaged or claims too much."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bench.store import images

Pixels = np.ndarray[Any, Any]


def noise(height: int, width: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def saved(path: Path, pixels: Pixels) -> Path:
    Image.fromarray(pixels).save(path, "PNG")
    return path


def test_a_digest_is_of_shape_and_pixels() -> None:
    """The digest that records hold: of known pixels a known one; of another shape another."""
    grey = np.full((2, 3, 3), 7, dtype=np.uint8)
    assert images.digest(grey) == "f7b5178c22cd587169cb5816f70166bcfc14b26a48232f643fe2be9d790a7552"
    assert images.digest(grey.reshape(3, 2, 3)) != images.digest(grey)


def test_a_pack_has_its_distinct_tiles_in_rows(tmp_path: Path) -> None:
    """Five distinct tiles stand two to a row, the rest black; the index counts them by row and mosaic."""
    base, first, second = noise(8, 8), noise(4, 8, 1), noise(4, 4, 2)
    one = np.concatenate([base[:4], first])
    other = np.concatenate([base[:4], np.concatenate([first[:, :4], second], axis=1)])
    sources = [saved(tmp_path / name, pixels) for name, pixels in (("b.png", other), ("a.png", one))]
    images.pack([*sources, saved(tmp_path / "hidden.png", base)], ["a.png", "b.png"], tmp_path / "pack")
    assert json.loads((tmp_path / "pack" / "images.json").read_text()) == {
        "across": 2,
        "mosaics": {"a.png": [[0, 1], [2, 3]], "b.png": [[0, 1], [2, 4]], "hidden.png": None},
    }
    assert " " not in (tmp_path / "pack" / "images.json").read_text()
    with logged("bench.store.images") as messages:
        assert images.mosaic(tmp_path / "pack", "hidden.png") is None
    assert not messages
    with Image.open(tmp_path / "pack" / "images.webp") as stored:
        assert stored.size == (8, 12) and not np.asarray(stored)[8:, 4:].any()
    for name, pixels in (("a.png", one), ("b.png", other)):
        read = images.mosaic(tmp_path / "pack", name)
        assert read is not None and np.array_equal(read, pixels)
        assert images.accounted(tmp_path / "pack", name) and images.published(tmp_path / "pack", name)


def test_a_pack_of_one_tile_is_that_tile(tmp_path: Path) -> None:
    """Where all tiles are equal there is one, and nothing next to it."""
    tile = noise(4, 4)
    pixels = np.concatenate([np.concatenate([tile, tile], axis=1)] * 2)
    images.pack([saved(tmp_path / "a.png", pixels)], ["a.png"], tmp_path)
    with Image.open(tmp_path / "images.webp") as stored:
        assert np.array_equal(np.asarray(stored), tile)


def test_a_pack_of_what_is_not_shown_is_an_index(tmp_path: Path) -> None:
    """Without a shown image there is an index and no image; without images there is nothing."""
    images.pack([saved(tmp_path / "a.png", noise(8, 8))], [], tmp_path / "pack")
    assert [path.name for path in (tmp_path / "pack").iterdir()] == ["images.json"]
    images.pack([], [], tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_row_has_whole_tiles_only(tmp_path: Path) -> None:
    """What is left of a row beyond its square tiles is not kept; tiles of two sizes make no pack."""
    wide = saved(tmp_path / "wide.png", noise(8, 11))
    images.pack([wide], ["wide.png"], tmp_path / "pack")
    read = images.mosaic(tmp_path / "pack", "wide.png")
    assert read is not None and np.array_equal(read, noise(8, 11)[:, :8])
    with pytest.raises(ValueError, match="dimension"):
        images.pack([wide, saved(tmp_path / "small.png", noise(4, 8))], ["wide.png", "small.png"], tmp_path)


def test_an_image_next_to_its_record_comes_first(tmp_path: Path) -> None:
    """A file of its own is read as it stands now, and needs no index."""
    path = saved(tmp_path / "a.png", noise(4, 4))
    assert images.accounted(tmp_path, "a.png") and images.published(tmp_path, "a.png")
    for seed in (0, 1):
        saved(path, noise(4, 4, seed))
        os.utime(path, ns=(seed, seed))
        read = images.mosaic(tmp_path, "a.png")
        assert read is not None and np.array_equal(read, noise(4, 4, seed))


def test_an_index_is_read_as_it_stands_now(tmp_path: Path) -> None:
    """An index that was written again is read again."""
    for time, mosaics in enumerate(({}, {"a.png": None})):
        (tmp_path / "images.json").write_text(json.dumps({"across": 1, "mosaics": mosaics}))
        os.utime(tmp_path / "images.json", ns=(time, time))
        assert images.accounted(tmp_path, "a.png") == bool(mosaics)


@contextmanager
def logged(name: str) -> Iterator[list[str]]:
    """The messages of that logger while it is open: pytest's own way is switched off."""
    messages: list[str] = []
    handler, logger = logging.Handler(), logging.getLogger(name)
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    logger.addHandler(handler)
    try:
        yield messages
    finally:
        logger.removeHandler(handler)


def test_what_is_not_there_is_no_image(tmp_path: Path) -> None:
    """Without file and index an image is unaccounted, and one warning names it and the reason."""
    assert not images.accounted(tmp_path, "a.png")
    with logged("bench.store.images") as messages:
        assert images.mosaic(tmp_path, "a.png") is None
    assert messages == ["no samples of a.png: FileNotFoundError"]


def test_an_image_that_claims_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many pixels as allowed are read; one limit below that, the image is none and its digest refused."""
    monkeypatch.setattr(images, "MAX_PIXELS", 16)
    content = saved(tmp_path / "a.png", noise(2, 8)).read_bytes()
    assert images.digest(content) == images.digest(noise(2, 8))
    monkeypatch.setattr(images, "MAX_PIXELS", 15)
    assert images.mosaic(tmp_path, "a.png") is None
    with pytest.raises(ValueError, match="8 x 2 pixels; allowed: at most 15"):
        images.digest(content)


@pytest.mark.filterwarnings("error")
def test_a_large_image_is_no_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow's own limit, which is lower, has no say: ours decides. Grey images are read as colours."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 12)
    Image.fromarray(noise(4, 4)[:, :, 0]).save(tmp_path / "grey.png")
    read = images.mosaic(tmp_path, "grey.png")
    assert read is not None and read.shape == (4, 4, 3)
