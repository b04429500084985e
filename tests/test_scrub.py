"""Nothing in a record shows whose machine it was: no absolute path, no name of the user or of the host."""

from __future__ import annotations

import json
import platform
import socket
from collections.abc import Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from bench.errors import BadInput
from bench.machine import scrub
from bench.record import Record
from bench.spec.suite import Suite
from bench.store import keys

USER, HOST = "jane-q-doe", "secret-host-7"
PLANTED = (
    "/home/jane-q-doe/models/mine/x.bin",
    "open('/srv/my data/dir with space/w.safetensors') failed",
    "jane-q-doe on secret-host-7.corp.example",
    'File "/opt/hidden/lib/a.py", line 3, in f\n  /var/hidden/b',
    "s3=/mnt/hidden/bucket, C:\\Users\\hidden\\m.bin; ~/hidden/z file:///hidden/dir/u",
)
TELLING = (USER, HOST, "hidden", "my data", "dir with space", "/models/mine", "/home", "corp")


@pytest.fixture
def named(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine whose user and host have names of their own."""
    monkeypatch.setenv("USER", USER)
    monkeypatch.setattr(platform, "node", lambda: f"{HOST}.corp.example")
    monkeypatch.setattr(socket, "gethostname", lambda: HOST)
    scrub._names.cache_clear()
    yield
    scrub._names.cache_clear()


def filled(kind: Any, text: str) -> Any:
    """A value of a type, `text` in every place that may hold text."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return {name: filled(field.annotation, text) for name, field in kind.model_fields.items()}
    origin, args = get_origin(kind), get_args(kind)
    if origin is Literal:
        return args[0]
    if origin in (Union, UnionType):
        return filled(next(part for part in args if part is not NoneType), text)
    if origin is list:
        return [filled(args[0], text)]
    if origin is tuple:
        return tuple(filled(part, text) for part in args)
    if origin is dict and args[1] is Any:
        return {text: text, "deeper": {"list": [text, {text: text}]}}
    if origin is dict:
        return {text: filled(args[1], text)}
    return {str: text, int: 1, float: 1.0, bool: True, Any: text}[kind]


def test_no_path_and_no_name_enters_a_record(named: None) -> None:
    """Paths and names planted in every string and key that a record can hold are gone once it is sealed, the
    digest is of what is left, and sealing once more changes nothing."""
    for text in PLANTED:
        content = filled(Record, text) | dict.fromkeys(keys.IDENTIFIERS, "plain")
        sealed = keys.seal(Record.model_validate(content))
        written = json.dumps(sealed.model_dump(), ensure_ascii=False)
        assert not [word for word in TELLING if word in written], written[:500]
        assert sealed.digest == keys.content_digest(sealed.model_dump())
        assert keys.seal(sealed) == sealed


def test_a_record_is_not_called_after_the_user(named: None, tiny_suite: Path) -> None:
    """A suite or run whose name holds the user's or host's is refused before anything runs."""
    path = tiny_suite.with_name(f"{HOST}.yaml")
    path.write_text(tiny_suite.read_text())
    with pytest.raises(BadInput, match="holds the name of this machine or of its user; allowed: a name that"):
        Suite.load(path)
    content = filled(Record, "x") | dict.fromkeys(keys.IDENTIFIERS, "plain") | {"name": f"run-{USER}"}
    with pytest.raises(BadInput, match="name: 'run-jane-q-doe' holds the name"):
        keys.seal(Record.model_validate(content))


@pytest.mark.parametrize("name", ["baseline", "root", "converged", "ok", "7"])
def test_names_that_disclose_nothing_stay(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user called as a word that records hold anyway, or as many are, changes no record."""
    monkeypatch.setenv("USER", name)
    scrub._names.cache_clear()
    assert name not in scrub._names()
    scrub._names.cache_clear()


def test_what_is_no_path_stays() -> None:
    """Ratios, units, hub ids, URLs, relative and system paths are left as they are."""
    for text in (
        "a/b, 1/2 or tokens/s", "facebook/DiT-XL-2-256", "https://huggingface.co/a/b", "seconds / second",
        "../up/down and ./here", "/proc/self/clear_refs", "reports/front/README.md", "<b>x</b> 3 /4",
    ):  # fmt: skip
        assert scrub.scrub(text) == text


def test_committed_records_are_as_they_would_be_sealed() -> None:
    """Every record in the repository is free of paths already: scrubbing changes none."""
    for path in Path("results").rglob("*.json"):
        if not {".cache", "asv"} & set(path.parts):
            content = json.loads(path.read_text())
            assert scrub.scrubbed(content) == content, path


@settings(max_examples=200, derandomize=True, deadline=None)
@given(st.text(alphabet="/\\~:'\" ab.-<>()\n", max_size=40))
def test_scrubbing_twice_is_scrubbing_once(text: str) -> None:
    """Whatever the text, a second pass finds nothing: keys do not depend on the number of passes."""
    once = scrub.scrub(text)
    assert scrub.scrub(once) == once
