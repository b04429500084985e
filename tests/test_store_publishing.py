"""What is published, what stays with the machine, and where a run may write."""

from __future__ import annotations

import json
import lzma
from pathlib import Path

import pytest
from report_records import quality
from test_bench_store import record
from test_store_images import noise, saved

from bench.errors import BadInput
from bench.record import Record
from bench.store import images, validation
from bench.store.places import check_local
from bench.store.publishing import publish_records, publish_tree
from bench.store.records import Store


def pictured(name: str) -> Record:
    return record(name).model_copy(update={"quality": quality(name, 0.1, drift_per_image=[])})


@pytest.fixture
def local(tmp_path: Path) -> Store:
    """Records with and without an image, and what only this machine needs."""
    there = Store(tmp_path / "local", "tiny", "m")
    for name in ("shown", "other"):
        there.write(pictured(name))
    there.write(record("plain").model_copy(update={"reason": "größer"}))
    for seed, name in enumerate(("shown", "other")):
        saved(there.directory / f"{name}.png", noise(8, 8, seed))
    for inside in (".cache/a.safetensors", ".machine-id", "partial/x"):
        (there.directory / inside).parent.mkdir(exist_ok=True)
        (there.directory / inside).write_text("it")
    return there


def names(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file())


def test_records_move_with_the_images_that_are_shown(local: Store, tmp_path: Path) -> None:
    """Each record is published packed, with its digest; of the images those that are shown; of the rest only
    what the machine needs stays; what was published before goes."""
    sealed = {r.name: r for r in validation.valid_records(local.directory)}
    published = Store(tmp_path / "published", "tiny", "m")
    published.write(record("before"))
    publish_records(local, published, ["shown"])
    assert names(local.directory) == [".cache/a.safetensors", ".machine-id"]
    files = [f"{name}-{sealed[name].key}.json.xz" for name in sealed]
    assert names(published.directory) == sorted([*files, "images.json", "images.webp"])
    for name, before in sealed.items():
        path = published.path(name, before.key, ".json.xz")
        assert validation.checked(path) == before
        text = lzma.decompress(path.read_bytes()).decode()
        assert text == json.dumps(json.loads(text), separators=(",", ":"), ensure_ascii=False) + "\n"
    index = json.loads((published.directory / "images.json").read_text())["mosaics"]
    assert {name: places is None for name, places in index.items()} == {"shown.png": False, "other.png": True}
    assert images.published(published.directory, "shown.png")


def test_what_cannot_be_published_stays(local: Store, tmp_path: Path) -> None:
    """Where the place cannot be written nothing local is removed."""
    before = names(local.directory)
    (tmp_path / "published").write_text("a file, where a directory should be")
    with pytest.raises(BadInput, match="cannot be written"):
        publish_records(local, Store(tmp_path / "published", "tiny", "m"), [])
    assert names(local.directory) == before


def test_a_study_moves_but_for_what_the_machine_needs(tmp_path: Path) -> None:
    """Files keep their places; caches, the random id, locks and fragments stay."""
    stays = [".cache/a", "deep/.cache/b", ".machine-id", "c.tmp", "deep/d.lock"]
    moves = ["a.json", "deep/er/b.csv", "deep/er/e.csv"]
    for inside in stays + moves:
        (tmp_path / "local" / inside).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "local" / inside).write_text(inside)
    publish_tree(tmp_path / "local", tmp_path / "published")
    assert names(tmp_path / "local") == sorted(stays)
    assert names(tmp_path / "published") == sorted(moves)
    assert (tmp_path / "published" / "deep/er/b.csv").read_text() == "deep/er/b.csv"


def test_a_run_stays_out_of_what_is_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The directory of published records is refused by name, and any below; others are not."""
    monkeypatch.chdir(tmp_path)
    for place in ("results/published", "results/published/deep", "results/local/../published"):
        with pytest.raises(BadInput, match=f"^results: {place} holds published records"):
            check_local(Path(place))
    for place in ("results/local", "results", "elsewhere"):
        check_local(Path(place))
