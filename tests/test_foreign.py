"""Files that somebody else wrote are read within limits, or refused in one line."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from dqar.errors import MAX_VALUE_LENGTH, InvalidFile, invalid_value
from dqar.utils.atomic import write_atomic
from dqar.utils.foreign import MAX_DEPTH, read_bytes, read_json, read_yaml


def write(tmp_path: Path, content: str | bytes) -> Path:
    path = tmp_path / "file"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def bomb(item: str) -> str:
    """Nine levels of nine aliases each: a kilobyte that stands for 9^9 values."""
    lines = ["a0: &a0 {k: 1}"]
    lines += [f"a{n}: &a{n} {{{item.format(', '.join([f'*a{n - 1}'] * 9))}}}" for n in range(1, 10)]
    return "\n".join(lines)


BAD_JSON = {
    "syntax": ("{", "is not JSON: line 1"),
    "empty": ("", "is not JSON"),
    "bytes": (b"\xff\xfe", "is not UTF-8"),
    "NaN": ('{"a": NaN}', "holds NaN"),
    "infinity": ("[-Infinity]", "holds -Infinity"),
    "overflow": ("[1e999]", "holds 1e999"),
    "digits": ("9" * 5000, "more than 64 bits"),
    "65 bits": (str(2**64), "more than 64 bits"),
    "duplicate": ('{"a": 1, "b": 2, "a": 3}', "key 'a' is there twice"),
    "deep": ("[" * (MAX_DEPTH + 2) + "]" * (MAX_DEPTH + 2), "levels deep"),
    "deeper": ("[" * 100_000 + "]" * 100_000, "levels deep"),
}
BAD_YAML = {
    "syntax": ("a: [", "is not YAML: line 1"),
    "two documents": ("a: 1\n--- \nb: 2", "is not YAML: line 2"),
    "object": ("!!python/object:os.system {}", "is not YAML"),
    "set": ("!!set {a, b}", "holds a set"),
    "control": ("a: \x00", "is not YAML"),
    "bytes": (b"\xff\xfe", "is not UTF-8"),
    "NaN": ("a: .nan", "holds nan"),
    "infinity": ("a: -.inf", "holds -inf"),
    "digits": ("a: " + "9" * 5000, "is not YAML"),
    "hexadecimal": ("a: 0x" + "f" * 5000, "more than 64 bits"),
    "no integer": ("a: !!int x", "is not YAML"),
    "duplicate": ("a: 1\nb: 2\na: 3", "line 3: key 'a' is there twice"),
    "number as key": ("a: {5: 1}", "line 1: key 5 is not text"),
    "boolean as key": ("on: 1", "line 1: key on is not text"),
    "list as key": ("[a]: 1", "line 1: key sequence is not text"),
    "deep": ("[" * 100_000, "levels deep"),
    "alias bomb": (bomb("x: [{}]"), "with its aliases expanded"),
    "merge bomb": (bomb("<<: [{}]"), "with its aliases expanded"),
    "self": ("a: &a [*a]", "alias *a refers to itself"),
    "no anchor": ("a: *b", "is not YAML: line 1: found undefined alias"),
}


@pytest.mark.parametrize(("content", "problem"), BAD_JSON.values(), ids=BAD_JSON)
def test_bad_json_is_one_line(content: str | bytes, problem: str, tmp_path: Path) -> None:
    """Whatever is wrong with a JSON file, the error names the file and the problem in one line."""
    with pytest.raises(InvalidFile) as error:
        read_json(path := write(tmp_path, content), "plan_path")
    assert str(error.value).startswith(f"plan_path = {str(path)!r} ") and problem in str(error.value)
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


@pytest.mark.parametrize(("content", "problem"), BAD_YAML.values(), ids=BAD_YAML)
def test_bad_yaml_is_one_line(content: str | bytes, problem: str, tmp_path: Path) -> None:
    """Whatever is wrong with a YAML file, the error names the file and the problem in one line."""
    with pytest.raises(InvalidFile) as error:
        read_yaml(path := write(tmp_path, content), "config")
    assert str(error.value).startswith(f"config = {str(path)!r} ") and problem in str(error.value)
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


def test_good_files_are_read_as_they_stand(tmp_path: Path) -> None:
    """Values come back exactly: nested, non-ASCII, 64-bit, dates as text, merged keys overridden."""
    content = {"a": [1, 2.5, None, True, {"ä": "x"}], "seed": 2**64 - 1}
    assert read_json(write(tmp_path, json.dumps(content)), "f") == content
    assert read_yaml(write(tmp_path, json.dumps(content)), "f") == content
    text = "base: &b {x: 1, y: 2}\nother: {<<: *b, x: 3}\nday: 2024-01-31\nlimit: .inf"
    read = read_yaml(write(tmp_path, text), "f", infinite=True)
    assert read == {
        "base": {"x": 1, "y": 2},
        "other": {"x": 3, "y": 2},
        "day": "2024-01-31",
        "limit": float("inf"),
    }
    assert read_yaml(write(tmp_path, ""), "f") is None


def test_only_regular_files_of_bounded_size_are_read(tmp_path: Path) -> None:
    """A FIFO does not block; a device, a directory, a missing file and one byte too many are refused."""
    os.mkfifo(tmp_path / "fifo")
    for path, problem in (
        (tmp_path / "fifo", "is not a regular file"),
        (Path("/dev/zero"), "is not a regular file"),
        (tmp_path, "cannot be read: Is a directory"),
        (tmp_path / "none", "cannot be read: No such file"),
        (Path("a\0b"), "cannot be read"),
        (write(tmp_path, "12345"), "is larger than 4 bytes"),
    ):
        with pytest.raises(InvalidFile, match=problem):
            read_bytes(path, "f", limit=4)
    assert read_bytes(write(tmp_path, "1234"), "f", limit=4) == b"1234"


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    """Content is replaced whole; where writing fails the old file stays and no temporary file is left."""
    path = tmp_path / "new" / "file"
    write_atomic(path, "old")
    write_atomic(path, b"new")
    with pytest.raises(UnicodeEncodeError):
        write_atomic(path, "\ud800")
    assert path.read_bytes() == b"new" and list(path.parent.iterdir()) == [path]


def test_what_stands_in_the_way_goes_after_the_new_file_is_whole(tmp_path: Path) -> None:
    """What a write removes first is removed when the new file is on disk; on failure the old one stays."""
    path = tmp_path / "file"
    write_atomic(path, "old")
    on_disk: list[str] = []

    def refuse(standing: Path) -> None:
        on_disk.extend(sorted(file.read_text() for file in standing.parent.iterdir()))
        raise PermissionError

    with pytest.raises(PermissionError):
        write_atomic(path, "new", refuse)
    assert on_disk == ["new", "old"]
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "value", ["x" * 10_000, 10**5000, [1, "a\nb"] * 1000], ids=["text", "digits", "list"]
)
def test_a_refused_value_is_shown_short(value: object) -> None:
    """An error shows a bounded part of the value on one line, also of one that `repr` refuses."""
    message = str(invalid_value("field", value, "less"))
    assert message.startswith("field = ") and message.endswith(" is not allowed; allowed: less")
    assert len(message) < MAX_VALUE_LENGTH + 60 and "\n" not in message
