"""The store: whole records or none, found by content, and every validation error named."""

from __future__ import annotations

import json
import os
import resource
import signal
import threading
from pathlib import Path

import pytest

from bench.errors import BadInput
from bench.record import Record
from bench.store import keys, validation
from bench.store.records import Store


def record(name: str = "baseline", seed: int = 0, status: str = "ok") -> Record:
    inputs = {"machine": "m", "sources": "s", "model": "w", "packages": {}}
    config = {"name": name, "seed": seed}
    return Record.model_validate(
        {
            "key": keys.key_of(config, inputs),
            "suite": "tiny",
            "name": name,
            "method": "baseline",
            "config": config,
            "status": status,
            "environment": {"machine": "m", "inputs": inputs},
        }
    )


@pytest.fixture
def there(tmp_path: Path) -> Store:
    return Store(tmp_path, "tiny", "m")


def test_a_record_is_read_as_it_was_written(there: Store) -> None:
    """Writing and reading gives the same record, sealed, with no validation error and no temporary file."""
    written = record()
    there.write(written, image=b"png")
    path = there.path(written.name, written.key)
    assert validation.checked(path) == keys.seal(written)
    assert validation.validation_error(path) is None
    assert there.finished(written.name, written.key)
    assert sorted(p.suffix for p in there.directory.iterdir()) == [".json", ".png"]


def test_only_records_of_the_same_name_are_superseded(there: Store) -> None:
    """A new key removes the old record of that name, and leaves names that begin alike."""
    for old in (record("quick", 1), record("quick-age2", 1), record("quick", 2)):
        there.write(old)
    assert [r.config["seed"] for r in there.records(["quick", "quick-age2"])] == [2, 1]


def test_failures_are_run_again(there: Store) -> None:
    """A failed record is valid but does not count as finished."""
    failed = record(status="failed")
    there.write(failed)
    assert validation.validation_error(there.path(failed.name, failed.key)) is None
    assert not there.finished(failed.name, failed.key)


def damage(path: Path, how: str) -> Path:
    text = path.read_text()
    if how == "truncated":
        path.write_text(text[: len(text) // 2])
    elif how == "not a record":
        path.write_text('{"a": 1}')
    elif how == "misplaced":
        return path.rename(path.with_name(f"other-{path.name.split('-')[1]}"))
    else:
        content = json.loads(text)
        content["config"]["seed"] = 7
        path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize("how", ["truncated", "not a record", "misplaced", "checksum mismatch"])
def test_validation_errors_are_named(there: Store, how: str) -> None:
    """A damaged record is named with its validation error, is not finished, and is left out when reading."""
    written = record()
    there.write(written)
    path = damage(there.path(written.name, written.key), how)
    assert how in (validation.validation_error(path) or "")
    assert not there.finished(written.name, written.key)
    assert there.records([written.name]) == []


def test_a_resealed_change_of_configuration_is_found(there: Store) -> None:
    """Even with its digest computed again, a configuration that does not match the key is a mismatch."""
    written = record()
    forged = keys.seal(written.model_copy(update={"config": {"name": "baseline", "seed": 9}}))
    there.write(written)
    path = there.path(written.name, written.key)
    path.write_text(forged.model_dump_json())
    assert "key" in (validation.validation_error(path) or "")


def test_a_record_from_before_a_field_is_valid(there: Store) -> None:
    """A record sealed before the schema gained a field with a default is no checksum mismatch."""
    written = record()
    there.write(written)
    path = there.path(written.name, written.key)
    content = json.loads(path.read_text())
    del content["traceback"], content["digest"]  # a field with a default, as if unknown then
    path.write_text(json.dumps(content | {"digest": keys.content_digest(content)}))
    assert validation.validation_error(path) is None


def test_the_committed_records_are_valid() -> None:
    """Every record that the repository holds is read as written: reports can be made from them again."""
    results = Path(__file__).parents[1] / "results" / "published"
    assert [
        (path, why) for path in validation.files(results) if (why := validation.validation_error(path))
    ] == []


def test_the_key_is_of_content() -> None:
    """The order of fields does not matter to a key; any input does."""
    config, inputs = {"a": 1, "b": 2}, {"sources": "x", "machine": "m"}
    assert keys.key_of(config, inputs) == keys.key_of({"b": 2, "a": 1}, inputs)
    assert keys.key_of(config, inputs) != keys.key_of(config, inputs | {"sources": "y"})
    assert keys.key_of(config, inputs) != keys.key_of(config | {"b": 3}, inputs)


def test_a_full_disk_leaves_what_was_there(there: Store) -> None:
    """A write that fails half-way is one line, and the old record and no fragment remain."""
    there.write(record())
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))  # bytes: less than a record
    try:
        with pytest.raises(BadInput, match="File too large"):
            there.write(record(seed=1))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [r.config["seed"] for r in there.records(["baseline"])] == [0]
    assert [p.suffix for p in there.directory.iterdir()] == [".json"]


def test_a_directory_that_cannot_be_written_is_found_before_anything_runs(tmp_path: Path) -> None:
    """Where results cannot be written, `prepare` reports it in one line."""
    (tmp_path / "results").write_text("a file, where a directory should be")
    with pytest.raises(BadInput, match=r"^results: [^\n]+ cannot be written"):
        Store(tmp_path / "results", "tiny", "m").prepare()


def test_a_write_that_was_killed_leaves_nothing_behind(there: Store) -> None:
    """Whoever is killed before the rename leaves the old record; the next write, no fragment."""
    there.write(record())
    written = record(seed=1)
    child = os.fork()
    if child == 0:
        os.fsync = lambda fd: os.kill(os.getpid(), signal.SIGKILL)
        try:
            there.write(written)
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert [r.config["seed"] for r in there.records(["baseline"])] == [0]
    assert list(there.directory.glob("*.tmp"))
    there.write(written)
    assert [r.config["seed"] for r in there.records(["baseline"])] == [1]
    assert [p.suffix for p in there.directory.iterdir()] == [".json"]


def test_a_lock_is_held_by_one(there: Store) -> None:
    """Whoever comes second to a configuration waits until the first has done with it."""
    order: list[str] = []

    def second() -> None:
        with there.lock("k"):
            order.append("second")

    with there.lock("k"):
        waiting = threading.Thread(target=second)
        waiting.start()
        waiting.join(timeout=0.2)
        order.append("first")
    waiting.join()
    assert order == ["first", "second"]
