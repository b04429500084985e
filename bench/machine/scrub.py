"""Takes out of texts what identifies the machine: absolute paths, the user's name, the host's.

`scrubbed` goes through a whole record when it is sealed, so that no string in it has to be thought of. A name
is kept where it identifies nothing: where it is one that many machines share ("root", "runner"), or a
word that records hold anyway (a user called "baseline").
"""

from __future__ import annotations

import getpass
import os
import platform
import re
import socket
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel

from bench.record import Record

ROOT = Path(__file__).resolve().parents[2]
SHARED_NAMES = frozenset(
    [
        "root",
        "user",
        "admin",
        "administrator",
        "ubuntu",
        "debian",
        "fedora",
        "centos",
        "ec2-user",
        "runner",
        "docker",
        "guest",
        "nobody",
        "localhost",
        "localdomain",
        "home",
        "local",
        "linux",
        "darwin",
        "windows",
        "container",
    ]
)
SHORTEST = 3  # characters of a name: a shorter one is part of anything
# Absolute: a slash that no part of a word or of another path stands before. Quoted ones may hold spaces.
_URL = r"\b(?!file:)[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"<>]*"
_FILE_URL = r"\bfile://[^\s'\"<>]*"
_QUOTED = r"(?<=['\"`])(?:/|~[\w.-]*/|[A-Za-z]:[\\/]|\\\\)[^'\"`\n]+(?=['\"`])"
_STANDS_IN = "".join(rf"(?<!<{name}>)" for name in ("path", "venv", "python", "tmp", "repository"))
_START = r"(?:/(?=[^\s/\d])|~[\w.-]*/|[A-Za-z]:[\\/](?![\\/\s])|\\\\(?=\w))"
_PLAIN = rf"(?<![\w.~*/)\]<]){_STANDS_IN}{_START}[^\s'\"`,;:()\[\]{{}}<>|]+"
_PATH = re.compile("|".join((_URL, _FILE_URL, _QUOTED, _PLAIN)))
_SYSTEM = ("/proc/", "/sys/", "/dev/")  # the same everywhere
_CREDENTIALS = re.compile(r"://[^/@\s]*@")


def scrubbed(value: Any, places: Iterable[Path] = ()) -> Any:
    """A value without paths and names in any of its texts, keys included.

    Args:
        value: What is to be written: dicts, lists, texts, numbers.
        places: Paths that the user gave, in whatever form; of each the last part stays.

    Returns:
        The value with its texts replaced, lists and tuples of the same types.
    """
    return _clean(value, _places(places))


def scrub(text: str, places: Iterable[Path] = ()) -> str:
    """One text without paths and names.

    Args:
        text: What is to be written.
        places: Paths that the user gave, in whatever form; of each the last part stays.

    Returns:
        The text, names as `<user>` and `<host>`, known directories as `<repository>` and the like.
    """
    return _text(text, _places(places))


def refused_name(text: str) -> str | None:
    """Why a text may not be the name of a suite or a run, by which records are called.

    Args:
        text: The name.

    Returns:
        A clause for an error: the name holds the user's or the host's. None where it may be used.
    """
    if not any(_word(name).search(text) for name in _names()):
        return None
    return f"{text!r} holds the name of this machine or of its user; allowed: a name that may be published"


def _clean(value: Any, places: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return _text(value, places)
    if isinstance(value, Mapping):
        return {_clean(key, places): _clean(item, places) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_clean(item, places) for item in value)
    return value


def _text(text: str, places: Mapping[str, str]) -> str:
    for place, shown in places.items():
        text = text.replace(place, shown)
    text = _PATH.sub(lambda match: _shown(match.group()), text)
    for name, shown in _names().items():
        text = _word(name).sub(shown, text)
    return text


def _shown(path: str) -> str:
    """What stays of an absolute path: its last part."""
    if "://" in path and not path.startswith("file:"):
        return _CREDENTIALS.sub("://", path)
    if path.startswith(_SYSTEM):
        return path
    return "<path>/" + re.split(r"[\\/]", path.rstrip("\\/"))[-1]


def _places(given: Iterable[Path]) -> dict[str, str]:
    """Known directories and what stands in their place, the longest first: they may hold spaces."""
    known = {
        str(ROOT): "<repository>",
        sys.prefix: "<venv>",
        sys.base_prefix: "<python>",
        _home(): "~",
    }
    with suppress(OSError):  # no directory for temporary files
        known[tempfile.gettempdir()] = "<tmp>"
    for path in given:
        for form in {str(path), str(path.absolute()), str(path.resolve())}:
            known[form] = Path(form).name
    # A single top directory such as / or /usr is no place of its own, nor is a relative name.
    return {p: known[p] for p in sorted(known, key=len, reverse=True) if p.count(os.sep) > 1 or p == "/tmp"}


@cache
def _names() -> dict[str, str]:
    """Names of the user and of the host, and what stands in their place, the longest first."""
    host = {platform.node(), socket.gethostname()}
    names = dict.fromkeys(host | {name.partition(".")[0] for name in host}, "<host>")
    names |= dict.fromkeys(_users(), "<user>")
    kept = [name for name in names if len(name) >= SHORTEST and not _identifies_nothing(name)]
    return {name: names[name] for name in sorted(kept, key=len, reverse=True)}


def _users() -> set[str]:
    names = {os.environ.get(name, "") for name in ("USER", "LOGNAME", "USERNAME", "SUDO_USER")}
    names.add(Path(_home()).name)
    with suppress(KeyError, OSError, ImportError):  # a user without an entry, in a container
        names.add(getpass.getuser())
    return names


def _home() -> str:
    try:
        return str(Path.home())
    except RuntimeError:  # neither HOME nor an entry
        return ""


def _identifies_nothing(name: str) -> bool:
    return name.lower() in SHARED_NAMES or name.lower() in _vocabulary() or name.isdigit()


@cache
def _vocabulary() -> frozenset[str]:
    """Words that records hold whoever writes them: the schema's, the shipped suites', the hardware's."""
    from bench.machine import nvml, provenance

    texts = [file.read_text(encoding="utf-8") for file in (ROOT / "bench" / "suites").glob("*.yaml")]
    texts += [*_schema(Record), provenance.cpu()["model"], str(nvml.describe() or "")]
    return frozenset(word for text in texts for word in re.findall(r"[a-z0-9]+", text.lower()))


def _schema(kind: Any) -> Iterator[str]:
    """The fields below a type, and the values that a field is one of."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        for name, field in kind.model_fields.items():
            yield name
            yield from _schema(field.annotation)
    for part in get_args(kind):
        yield from [part] if isinstance(part, str) else _schema(part)


@cache
def _word(name: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![A-Za-z0-9]){re.escape(name)}(?![A-Za-z0-9])", re.IGNORECASE)
