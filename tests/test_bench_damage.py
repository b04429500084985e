"""Records that were damaged, or belong elsewhere, are named by `validate` and made again by a resume."""

from __future__ import annotations

import os
import shutil
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import light_worker
import pytest
from typer.testing import CliRunner

from bench.cli.main import app
from bench.record import Record
from bench.run.runner import Runner
from bench.store import images

pytestmark = pytest.mark.usefixtures("warm_processes")
VICTIM, OTHER = "run-00", "run-01"


def run(results: Path, suite: str = "light") -> list[str]:
    """Run two configurations as `bench run` does; which of them were made, not found."""
    log = results / "log"
    log.unlink(missing_ok=True)
    worker = (sys.executable, light_worker.__file__, "work", str(log))
    for name in (VICTIM, OTHER):
        Runner(results=results, worker=worker).run(light_worker.spec(name, suite))
    lines = log.read_text().splitlines() if log.exists() else []
    return [line.split()[1] for line in lines if line.startswith("wrote")]


def validate(results: Path) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["validate", str(results)])
    return done.exit_code, done.output


def of(results: Path, name: str, suite: str = "light") -> Path:
    return next((results / suite).glob(f"*/{name}-*.json"))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip_a_bit(path: Path) -> None:
    """In a value: 1.25 becomes 1.35, and the record is still one."""
    text = path.read_bytes()
    at = text.index(b"1.25") + 2
    path.write_bytes(text[:at] + bytes([text[at] ^ 1]) + text[at + 1 :])
    assert Record.model_validate_json(path.read_bytes()).limits != light_worker.LIMITS


def take_another_runs(path: Path) -> None:
    shutil.copy(of(path.parents[2], OTHER), path)


def take_another_suites(path: Path) -> None:
    run(path.parents[2], "other")
    shutil.copy(of(path.parents[2], VICTIM, "other"), path)


def become_noise(path: Path) -> None:
    path.write_bytes(bytes(range(256)))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut, "truncated, or not JSON"),
        (empty, "truncated, or not JSON"),
        (become_noise, "not readable: "),
        (flip_a_bit, "checksum mismatch: its content does not match its digest"),
        (take_another_runs, f"misplaced: its content is of {OTHER}-"),
        (take_another_suites, f"misplaced: its content is of {VICTIM}-"),
    ],
)
def test_a_damaged_record_is_named_and_made_again(
    tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    """`validate` names the file and its error and exits with 1; a resume makes it again, and it alone."""
    run(tmp_path)
    path = of(tmp_path, VICTIM)
    damage(path)
    code, output = validate(tmp_path)
    assert code == 1
    (line,) = [line for line in output.splitlines() if line.startswith(str(path))]
    assert line.startswith(f"{path}: {message}")
    assert run(tmp_path) == [VICTIM]
    assert validate(tmp_path)[0] == 0


def test_copies_in_other_directories_are_named(tmp_path: Path) -> None:
    """A record copied under another machine's or suite's directory is named with where it belongs."""
    run(tmp_path)
    machine = of(tmp_path, VICTIM).parent
    shutil.copytree(machine, tmp_path / "light" / "elsewhere")
    shutil.copytree(machine, tmp_path / "another" / machine.name)
    code, output = validate(tmp_path)
    assert code == 1
    assert output.count(f"misplaced: its content is of machine {machine.name}") == 2
    assert output.count("misplaced: its content is of suite light") == 2
    assert "2 of 6 records are valid" in output


@pytest.mark.parametrize("kind", ["pipe", "device", "bomb", "noise", "index"])
def test_what_is_no_image_of_a_record_is_not_read(kind: str, tmp_path: Path) -> None:
    """A pipe, a device, 400 megapixels, noise, or an index that is none in place of an image: it is
    missing or damaged; nothing waits for it, nothing is unpacked."""
    name = "a.png"
    if kind == "pipe":
        os.mkfifo(tmp_path / name)
    elif kind == "device":
        (tmp_path / name).symlink_to("/dev/zero")
    elif kind == "bomb":
        header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
        chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")]
        parts = [struct.pack(">I", len(d)) + t + d + struct.pack(">I", zlib.crc32(t + d)) for t, d in chunks]
        (tmp_path / name).write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    elif kind == "noise":
        (tmp_path / name).write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)))
    else:
        (tmp_path / images.INDEX).write_text("[" * 100_000)
    assert images.mosaic(tmp_path, name) is None
    assert images.accounted(tmp_path, name) == (kind in ("bomb", "noise"))
