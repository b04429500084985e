"""Where records stand, what keys and digests are of, and the one line for each that is invalid."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from report_records import quality
from test_bench_store import record
from test_store_images import logged, noise, saved

from bench.errors import BadInput
from bench.machine import hashing, provenance
from bench.record import SCHEMA_VERSION
from bench.spec.prompts import Prompts
from bench.spec.run_spec import RunSpec
from bench.spec.settings import QualitySettings
from bench.store import keys, validation
from bench.store.records import Store


@pytest.fixture
def there(tmp_path: Path) -> Store:
    return Store(tmp_path, "tiny", "m")


def written(there: Store, **changes: Any) -> Path:
    changed = record().model_copy(update=changes)
    there.write(changed)
    return there.path(changed.name, changed.key)


def edited(path: Path, **changes: Any) -> Path:
    """The record with its content changed, and sealed again."""
    content = json.loads(path.read_text()) | changes
    digest = keys.content_digest(content)
    path.write_text(json.dumps(content | {"digest": digest}))
    return path


def test_records_stand_by_suite_and_machine(there: Store, tmp_path: Path) -> None:
    """<results>/<suite>/<machine>/<name>-<key>.json, and what only the machine needs in .cache."""
    assert there.path("run", "k") == tmp_path / "tiny" / "m" / "run-k.json"
    assert there.path("run", "k", ".png") == tmp_path / "tiny" / "m" / "run-k.png"
    assert there.cache == tmp_path / "tiny" / "m" / ".cache" and there.machine == "m"


def test_a_place_is_prepared_without_a_trace(there: Store) -> None:
    """The directories are made, twice if asked, and the try of a write leaves nothing."""
    there.prepare()
    there.prepare()
    assert list(there.directory.iterdir()) == [there.cache] and not list(there.cache.iterdir())


def test_the_try_is_where_records_will_stand(there: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not where the system keeps temporary files, which may be another disk."""
    monkeypatch.setattr(tempfile, "tempdir", str(there.directory / "nowhere"))
    there.prepare()


def test_what_a_record_supersedes_goes(there: Store) -> None:
    """Records and images of that name with another key, and its own fragments; nothing else."""
    old, new = record("run", 1), record("run", 2)
    there.write(old, image=b"old")
    others = ["run-more-k.json", "run-k.txt", "images.json", f".run-{old.key}.9.tmp", ".other-k.9.tmp"]
    for name in [*others, f".run-{new.key}.9.tmp"]:
        (there.directory / name).write_text("it")
    there.write(new, image=b"new")
    kept = {there.path("run", new.key).name, there.path("run", new.key, ".png").name}
    assert {path.name for path in there.directory.iterdir()} == kept | set(others)
    assert there.path("run", new.key, ".png").read_bytes() == b"new"


def test_records_come_in_the_order_asked_for(there: Store) -> None:
    """By name where nothing is asked; names without a record are passed over."""
    for name in ("b", "c", "a"):
        there.write(record(name))
    assert [found.name for found in there.records()] == ["a", "b", "c"]
    assert [found.name for found in there.records(["c", "x", "a"])] == ["c", "a"]


def test_only_a_valid_record_is_finished(there: Store) -> None:
    """One that is there, has no validation error, and did not fail."""
    written_record = record()
    assert not there.finished(written_record.name, written_record.key)
    path = written(there)
    assert there.finished(written_record.name, written_record.key)
    path.write_text(path.read_text()[:-9])
    assert not there.finished(written_record.name, written_record.key)


def test_a_lock_stays_where_it_was_held(there: Store) -> None:
    """It makes its directory, is held again after an error, and warns of nothing where it is free."""
    with logged("bench.store.records") as messages:
        for _ in range(2):
            with pytest.raises(KeyError), there.lock("k"):
                raise KeyError
    assert [path.name for path in there.cache.iterdir()] == ["k.lock"] and not messages


def test_a_lock_that_cannot_be_is_named(there: Store) -> None:
    """Where its directory cannot be made, one line states it."""
    there.directory.parent.mkdir(parents=True)
    there.directory.write_text("a file")
    with pytest.raises(BadInput, match="cannot be written"), there.lock("k"):
        pass


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("{", "truncated, or not JSON"),
        ("[]", "not a record: content: Input should be a valid dictionary or instance of Record"),
        ('{"schema_version": 99}', f"schema 99, but this harness reads {SCHEMA_VERSION}"),
        (None, "not readable: cannot be read: No such file or directory"),
        ('{"a": 1, "a": 2}', "not readable: "),
    ],
)
def test_what_is_no_record_is_one_line(tmp_path: Path, content: str | None, why: str) -> None:
    """Truncated, of another schema, unreadable or another thing altogether."""
    path = tmp_path / "it.json"
    if content is not None:
        path.write_text(content)
    error = validation.validation_error(path)
    assert error is not None and error.startswith(why) and str(tmp_path) not in error and "\n" not in error


def test_the_field_that_is_wrong_is_named(there: Store) -> None:
    """With its path in the record; a schema that is not stated is this one."""
    path = edited(written(there), quality=quality("it", 0.1).model_dump() | {"drift": {"mean": "much"}})
    assert str(validation.validation_error(path)).startswith(
        "not a record: quality.drift.low: Field required"
    )
    content = json.loads(edited(path, quality=None).read_text())
    del content["schema_version"]
    path.write_text(json.dumps(content))
    assert "schema" not in str(validation.validation_error(path))


def test_a_misplaced_record_is_known_by_its_place(there: Store, tmp_path: Path) -> None:
    """By file name, by suite, by machine: each names what its content is of."""
    path, valid = written(there), record()
    moved = {
        path.with_name("other.json"): f"{valid.name}-{valid.key}",
        tmp_path / "else" / "m" / path.name: "suite tiny",
        tmp_path / "tiny" / "n" / path.name: "machine m",
    }
    for place, what in moved.items():
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(path.read_text())
        assert validation.validation_error(place) == f"misplaced: its content is of {what}"


def test_a_mismatch_is_named(there: Store) -> None:
    """A change that is not sealed, and a sealed one of what the key is of."""
    path = written(there)
    content = json.loads(written(there).read_text())
    path.write_text(json.dumps(content | {"reason": "none"}))
    assert validation.validation_error(path) == "checksum mismatch: its content does not match its digest"
    edited(written(there), config={"seed": 9})
    assert validation.validation_error(path) == "key mismatch: its configuration does not match its key"


def test_a_record_without_inputs_has_a_key_of_its_configuration(there: Store) -> None:
    """Where the environment names no inputs the key is of none."""
    bare = {"environment": {"machine": "m"}, "config": {"a": 1}, "key": keys.key_of({"a": 1}, {})}
    assert validation.validation_error(written(there, **bare)) is None


def test_an_image_is_named_its_record(there: Store) -> None:
    """One that is there but elsewhere, is not there, or cannot be read, is a validation error; one
    without a digest is only looked for."""
    there.directory.mkdir(parents=True)
    saved(there.directory.parent / "it.png", noise(4, 4))
    lost = quality("it", 0.1, drift_per_image=[], image="../it.png")
    assert (
        validation.validation_error(written(there, quality=lost))
        == "incomplete: its image ../it.png is missing"
    )
    named = lost.model_copy(update={"image": "it.png"})
    assert (
        validation.validation_error(written(there, quality=named))
        == "incomplete: its image it.png is missing"
    )
    (there.directory / "it.png").write_text("no image")
    assert validation.validation_error(written(there, quality=named)) is None
    digested = named.model_copy(update={"image_sha256": "a"})
    assert (
        validation.validation_error(written(there, quality=digested))
        == "incomplete: its image it.png is damaged"
    )
    saved(there.directory / "it.png", noise(4, 4))
    assert validation.validation_error(written(there, quality=digested)) == (
        "checksum mismatch: its image it.png does not match its digest"
    )


def test_a_record_that_is_not_there_is_invalid(there: Store) -> None:
    """Where a record's file is missing, the one line states that, as for any other that cannot be read."""
    path = there.path("it", "0" * 16)
    assert validation.validation_error(path) == "not readable: cannot be read: No such file or directory"


def test_records_are_looked_for_where_they_can_be(tmp_path: Path) -> None:
    """Not in caches, nor in the data of studies, at any depth; the index of images is no record."""
    records = ["a.json", "s/m/b.json", "s/m/asv.json"]
    others = ["asv/x.json", "s/.cache/x.json", "s/m/.cache/deep/x.json", "s/m/images.json", "s/m/x.txt"]
    for name in records + others:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}")
    found = [str(path.relative_to(tmp_path)) for path in validation.files(tmp_path)]
    assert found == ["a.json", "s/m/asv.json", "s/m/b.json"]


def test_an_invalid_record_is_logged(there: Store) -> None:
    """By its file's name and its validation error; the others are read."""
    there.write(record("good"))
    (there.directory / "bad-k.json").write_text("{")
    with logged("bench.store.validation") as messages:
        assert [found.name for found in validation.valid_records(there.directory)] == ["good"]
    assert messages == ["bad-k.json: truncated, or not JSON; skipped"]


def test_keys_and_digests_are_what_they_were() -> None:
    """Known content has known hashes, or every record that was published would be made again."""
    assert keys.key_of({"a": 1, "b": "é"}, {"c": None}) == "167a3c9db3630924"
    assert keys.content_digest({"a": [1.5, True], "digest": "any"}) == "ed79c86586cc9792"
    assert keys.content_digest({"digest": "other", "a": [1.5, True]}) == "ed79c86586cc9792"


def test_a_key_is_of_sources_model_and_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the sources only those that produce values; of files only those that the run uses."""
    for name in (
        "bench/stats.py",
        "dqar/core/snr.py",
        "bench/embedded/extractor/deep/x",
        "bench/report/a.py",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    timed = QualitySettings(n=0, converged_n=0)
    spec = RunSpec(suite="s", name="n", method="baseline", model="embedded", quality=timed)
    inputs = keys.inputs(spec, tmp_path / "results")
    assert inputs.keys() == {"sources", "model", "packages", "machine", "machine_id"}
    decisive = [tmp_path / "bench/stats.py", tmp_path / "dqar/core/snr.py"]
    assert inputs["sources"] == hashing.digest(decisive, tmp_path)
    assert (inputs["packages"], inputs["machine"]) == (provenance.versions(), provenance.machine())
    (tmp_path / "bench/report/a.py").write_text("edited")
    assert keys.inputs(spec, tmp_path / "results") == inputs
    elsewhere = keys.inputs(spec, tmp_path / "elsewhere")
    assert elsewhere.pop("machine_id") != inputs.pop("machine_id") and elsewhere == inputs
    prompts = Prompts(file="p.txt", texts=("a face",), negatives=("",))
    prompted = spec.model_copy(update={"prompts": prompts})
    assert keys.inputs(prompted, tmp_path / "results")["prompts"] == prompts.digest
    weights = tmp_path / "weights"
    weights.write_text("it")
    used = spec.model_copy(
        update={"quality": spec.quality.model_copy(update={"n": 2, "reference": str(weights)})}
    )
    assert keys.inputs(used, tmp_path / "results")["reference"] == hashing.digest([weights], tmp_path)
    unused = used.model_copy(update={"weights": "random"})
    assert "reference" not in keys.inputs(unused, tmp_path / "results")
