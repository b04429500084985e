"""What is published apart from what is run here: identity, images in one file, and the command between."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import every_command
import light_worker
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from bench.cli import options
from bench.cli.main import app
from bench.errors import BadInput
from bench.machine import device, identity, provenance
from bench.run.runner import Runner
from bench.run.suite_run import SuiteRun
from bench.spec.suite import Suite
from bench.store import images, places, record_files, validation

ROOT = Path(__file__).parents[1]
MANY_RECORDS = re.compile("results/published/(?!cost|asv|policy)")  # the others are no other files


def test_a_machine_keeps_its_identity(tmp_path: Path) -> None:
    """Asked at the same time and again, one place of records gives one identity, another place another."""
    with ThreadPoolExecutor(8) as pool:
        ids = set(pool.map(identity.machine_id, [tmp_path] * 8))
    assert ids == {identity.machine_id(tmp_path)}
    assert identity.machine_id(tmp_path / "other") not in ids


@pytest.mark.parametrize("change", [{"model": "another"}, {"cores": 99}, {"memory": 2**50}])
def test_other_hardware_is_another_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    """A directory of records that moves to other hardware, its random id included, is not that machine's."""
    before, cpu = identity.machine_id(tmp_path), provenance.cpu()
    monkeypatch.setattr(provenance, "cpu", lambda: cpu | {"memory": cpu["memory"] + 4096})
    assert identity.machine_id(tmp_path) == before  # a kernel that keeps a page more for itself
    monkeypatch.setattr(provenance, "cpu", lambda: cpu | change)
    assert identity.machine_id(tmp_path) != before


def run_light(results: Path) -> list[str]:
    """Run two configurations without a model; those that were measured, not found."""
    log = results.with_suffix(".log")
    log.unlink(missing_ok=True)
    worker = (sys.executable, light_worker.__file__, "work", str(log))
    for name in light_worker.NAMES[:2]:
        Runner(results=results, worker=worker).run(light_worker.spec(name))
    lines = log.read_text().splitlines() if log.exists() else []
    return [line.split()[1] for line in lines if line.startswith("wrote")]


def test_only_the_machine_that_made_a_record_resumes_it(tmp_path: Path, warm_processes: None) -> None:
    """Records copied from a machine of the same kind are measured again; one's own are not."""
    mine, theirs = tmp_path / "mine", tmp_path / "theirs"
    assert run_light(theirs) == light_worker.NAMES[:2]
    shutil.copytree(theirs, mine, ignore=shutil.ignore_patterns(identity.FILE))
    assert run_light(mine) == light_worker.NAMES[:2]
    assert run_light(mine) == run_light(theirs) == []


def test_a_run_states_what_it_will_do(tmp_path: Path, warm_processes: None) -> None:
    """The first line counts what is there and what is finished on this machine, and names time and place."""
    specs = [light_worker.spec(name) for name in light_worker.NAMES[:4]]
    run_light(tmp_path / "results")
    suite_run = SuiteRun.of(specs, tmp_path / "results")
    assert suite_run.finished == set(light_worker.NAMES[:2])
    assert suite_run.opening.startswith("4 configurations, 2 finished on this machine, about ")
    assert suite_run.opening.endswith(str(suite_run.store.directory))
    closing = suite_run.closing(suite_run.store.records())
    assert closing == "measured now: none; measured before: run-00, run-01"


def test_a_run_leaves_published_records_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The directory of published records, or one below it, is refused as a place of runs."""
    monkeypatch.chdir(tmp_path)
    for place in ("results/published", "results/../results/published/x"):
        with pytest.raises(BadInput, match="holds published records"):
            SuiteRun.of([light_worker.spec("a")], Path(place))


def mosaic(*greys: int) -> np.ndarray[Any, Any]:
    """Two rows of square tiles of 4 pixels, each of one grey, the first row's then the second's."""
    tiles = [np.full((4, 4, 3), grey, dtype=np.uint8) for grey in greys]
    half = len(tiles) // 2
    return np.concatenate([np.concatenate(tiles[:half], axis=1), np.concatenate(tiles[half:], axis=1)])


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    """Two mosaics that share their baseline, one that is not shown, packed with nothing else."""
    for name, greys in {"a": (1, 2, 3, 4), "b": (1, 2, 5, 6), "c": (7, 8, 9, 10)}.items():
        Image.fromarray(mosaic(*greys)).save(tmp_path / f"{name}.png")
    images.pack([*tmp_path.glob("*.png")], {"a.png", "b.png"}, tmp_path / "packed")
    return tmp_path / "packed"


def test_packed_images_come_out_as_they_went_in(packed: Path) -> None:
    """Every pixel of a mosaic is in the pack, and so its digest; tiles that are equal stand there once."""
    first, second = (images.mosaic(packed, name) for name in ("a.png", "b.png"))
    assert first is not None and np.array_equal(first, mosaic(1, 2, 3, 4))
    assert second is not None and np.array_equal(second, mosaic(1, 2, 5, 6))
    assert images.digest(mosaic(1, 2, 3, 4)) == images.digest((packed.parent / "a.png").read_bytes())
    index = json.loads((packed / images.INDEX).read_text())["mosaics"]
    assert index["a.png"][0] == index["b.png"][0]
    assert len({number for rows in (index["a.png"], index["b.png"]) for row in rows for number in row}) == 6


def test_images_that_were_not_published_are_accounted_for(packed: Path) -> None:
    """One that the report does not show is known but not there; an unknown one is missing."""
    assert images.accounted(packed, "c.png") and not images.published(packed, "c.png")
    assert images.mosaic(packed, "c.png") is None
    assert not images.accounted(packed, "d.png")


@pytest.mark.parametrize("file", [images.PACK, images.INDEX])
def test_a_damaged_pack_is_no_image(packed: Path, file: str) -> None:
    """A truncated pack or index gives no image, and stops nothing."""
    path = packed / file
    path.write_bytes(path.read_bytes()[:-9])
    assert images.mosaic(packed, "a.png") is None


def test_a_published_suite_has_its_records_images_and_page(
    tiny_suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warm_processes: None, undrawn: None
) -> None:
    """`publish` moves a run's records with their content, and writes the page; the local place is empty, so
    that the next run measures again; published again, the page is the same. A damaged record is reported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert CliRunner().invoke(app, ["publish", "tiny.yaml"]).exit_code == 2
    done = CliRunner().invoke(app, ["run", "tiny.yaml"])
    assert done.exit_code == 0, done.output
    assert done.output.startswith("1 configuration, 0 finished on this machine, about 1 min (estimated)")
    assert "measured now: half; measured before: none" in done.output
    (local,) = validation.files(places.RESULTS)
    content = json.loads(local.read_text())
    done = CliRunner().invoke(app, ["publish", "tiny.yaml"])
    assert done.exit_code == 0, done.output
    (published,) = validation.files(places.PUBLISHED_RESULTS)
    assert record_files.read(published) == content and published.name == f"{local.name}.xz"
    assert validation.validation_error(published) is None
    assert not validation.files(places.RESULTS)
    page = places.PUBLISHED_REPORTS / "tiny" / "README.md"
    text = page.read_text()
    assert "../../results/published/tiny/" in text
    assert "tiny" in (places.PUBLISHED_REPORTS / "README.md").read_text()
    assert CliRunner().invoke(app, ["publish", "tiny.yaml"]).exit_code == 0
    assert page.read_text() == text
    whole = published.read_bytes()
    for damaged, why in ((whole[:-20], "cut short"), (whole[20:], "not JSON under xz"), (b"", "cut short")):
        published.write_bytes(damaged)
        assert why in str(validation.validation_error(published))


@pytest.mark.parametrize("name", ["embedded", "snr"])
def test_images_are_published_where_the_suite_says_so(name: str) -> None:
    """A suite with `publish_images: false` has none in what is committed, and its page says so."""
    wanted = Suite.load(name).file.publish_images
    assert wanted == (name == "embedded")
    (index,) = (places.PUBLISHED_RESULTS / name).glob("*/images.json")
    assert any(json.loads(index.read_text())["mosaics"].values()) == wanted
    text = (places.PUBLISHED_REPORTS / name / "README.md").read_text()
    assert ("None here: this suite's images stay" in text) == (not wanted)


def git(directory: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
    command = ["git", "-C", str(directory), *identity, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _is_model(name: str) -> bool:
    """Weights, tokenizers, statistics, plans and policies that ship: not code, pages or samples of images."""
    return name.startswith("bench/embedded/") and name.endswith((".safetensors", ".json", ".txt"))


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="this is no checkout")
def test_the_repository_is_small_apart_from_its_models() -> None:
    """All that is tracked apart from the models, records and reports included, is at most 12 MB."""
    names = [name for name in git(ROOT, "ls-files", "-z").split("\0") if (ROOT / name).is_file()]
    sizes = {name: (ROOT / name).stat().st_size for name in names if not _is_model(name)}
    largest = sorted(sizes, key=lambda name: -sizes[name])[:10]
    assert sum(sizes.values()) <= 12_000_000, [(name, sizes[name]) for name in largest]


@pytest.mark.slow
def test_no_command_changes_a_tracked_file(
    tiny_suite: Path, tiny_model_dir: Path, tmp_path: Path, warm_processes: None
) -> None:
    """Run in a copy of this checkout, by that copy's own code, the commands leave git's status empty."""
    copy = tmp_path / "copy"
    for name in git(ROOT, "ls-files", "-z").split("\0"):
        if name and (ROOT / name).is_file() and not MANY_RECORDS.match(name):
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, copy / name)
    git(copy, "init", "-q")
    git(copy, "add", "-A")
    git(copy, "commit", "-qm", "all")
    done = subprocess.run(
        [sys.executable, every_command.__file__, str(tiny_suite), str(tiny_model_dir)],
        cwd=copy, capture_output=True, text=True, timeout=280,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1", "HOME": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(" 0 \n") == len(every_command.commands("", ""))
    assert git(copy, "status", "--porcelain") == ""


@pytest.mark.skipif(device.device_type() == "cuda", reason="torch can use this one")
def test_a_gpu_that_torch_cannot_use_stops_auto(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system lists a GPU that torch cannot use, `auto` reports it and runs nothing on the CPU; it
    does not where the user hid the GPU, or there is none."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert device.unusable_gpu(tmp_path) is None
    (tmp_path / "nvidia0").touch()
    why = device.unusable_gpu(tmp_path)
    assert why and "torch" in why and "\n" not in why
    monkeypatch.setattr(options, "unusable_gpu", lambda: device.unusable_gpu(tmp_path))
    with pytest.raises(BadInput, match="auto: this machine has a GPU"):
        options.chosen("auto")
    assert options.chosen("smoke") == "smoke"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert options.chosen("auto") == "embedded"


@pytest.mark.parametrize("kind", ["pipe", "device", "directory", "dangling", "empty", "garbled"])
def test_a_damaged_random_id_is_refused(kind: str, tmp_path: Path) -> None:
    """What stands in place of the random id is refused by name; nothing waits for it or reads it without
    end: another id would make finished records those of another machine."""
    path = tmp_path / identity.FILE
    make: dict[str, Callable[[], object]] = {
        "pipe": lambda: os.mkfifo(path),
        "device": lambda: path.symlink_to("/dev/zero"),
        "directory": path.mkdir,
        "dangling": lambda: path.symlink_to("nowhere"),
        "empty": lambda: path.write_bytes(b""),
        "garbled": lambda: path.write_bytes(b"\xff" * 32),
    }
    make[kind]()
    with pytest.raises(BadInput, match=r"^results: .*machine-id"):
        identity.machine_id(tmp_path)
