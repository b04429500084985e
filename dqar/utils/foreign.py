"""Reads files that somebody else wrote (plans, policies, YAML, records): within limits, or one clear error.

Only regular files are opened, so that no FIFO or device blocks. Size, depth, number of entries and numbers
are bounded; keys are unique text. Nothing is executed or unpickled; bad input raises `InvalidFile` alone.
"""

from __future__ import annotations

import json
import math
import os
import stat
from pathlib import Path
from typing import Any

import yaml

from dqar.errors import InvalidFile, short_repr

MAX_JSON_BYTES = 64 * 2**20
MAX_YAML_BYTES = 2**20  # PyYAML reads some 200 kB a second
MAX_DEPTH = 64
MAX_YAML_NODES = 100_000  # with aliases expanded, so that an alias bomb is refused
MAX_INTEGER = 2**64  # the largest random seeds are 64 bits


def read_bytes(path: str | Path, what: str, limit: int = MAX_JSON_BYTES) -> bytes:
    """Read a regular file of at most `limit` bytes.

    Args:
        path: The file.
        what: What the file is to the user (a field, an option), for the error.
        limit: Largest size in bytes.

    Returns:
        Its whole content.

    Raises:
        InvalidFile: Not there, not readable, not a regular file, or larger than `limit`.
    """
    try:
        # Without O_NONBLOCK, opening a FIFO waits for a writer.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise _error(path, what, "is not a regular file")
            content = file.read(limit + 1)
    except InvalidFile:
        raise
    except OSError as error:
        raise _error(path, what, f"cannot be read: {error.strerror or error}") from error
    except (ValueError, MemoryError) as error:  # a NUL character in the path
        raise _error(path, what, f"cannot be read: {error}") from error
    if len(content) > limit:
        raise _error(path, what, f"is larger than {limit:,} bytes")
    return content


def read_json(path: str | Path, what: str, limit: int = MAX_JSON_BYTES) -> Any:
    """Read a JSON file (RFC 8259).

    Args:
        path: The file.
        what: What the file is to the user (a field, an option), for the error.
        limit: Largest size in bytes.

    Returns:
        Dicts with text keys, lists, text, finite numbers, booleans and None.

    Raises:
        InvalidFile: As `read_bytes`; not JSON; a duplicate key; a number that is not finite, or beyond 64
            bits; more than `MAX_DEPTH` levels.
    """
    return parse_json(read_bytes(path, what, limit), path, what)


def parse_json(content: bytes, path: str | Path, what: str) -> Any:
    """Parse bytes read from a file as JSON (RFC 8259), within the limits of `read_json`.

    Args:
        content: All of the file, or the part of it that is JSON.
        path: The file, for the error.
        what: What the file is to the user (a field, an option), for the error.

    Returns:
        As `read_json`.

    Raises:
        InvalidFile: As `read_json`, but for what concerns the file itself.
    """
    text = _text(path, what, content)
    try:
        parsed = json.loads(
            text,
            object_pairs_hook=_unique,
            parse_constant=_not_finite,
            parse_float=_finite,
            parse_int=_bounded,
        )
        _check_tree(parsed, infinite=False)
    except RecursionError as error:
        raise _error(path, what, f"is nested more than {MAX_DEPTH} levels deep") from error
    except json.JSONDecodeError as error:
        raise _error(path, what, f"is not JSON: line {error.lineno}: {error.msg}") from error
    except _Refused as error:
        raise _error(path, what, str(error)) from error
    return parsed


def read_yaml(path: str | Path, what: str, limit: int = MAX_YAML_BYTES, *, infinite: bool = False) -> Any:
    """Read a YAML file with one document.

    Args:
        path: The file.
        what: What the file is to the user (a field, an option), for the error.
        limit: Largest size in bytes.
        infinite: Whether `.inf` and `.nan` are allowed; the caller then checks each field.

    Returns:
        Dicts with text keys, lists, text, numbers, booleans and None; None for an empty file.

    Raises:
        InvalidFile: As `read_json`; a tag beyond plain data; an alias that refers to itself; more than
            `MAX_YAML_NODES` nodes with aliases expanded.
    """
    text = _text(path, what, read_bytes(path, what, limit))
    try:
        content = yaml.load(text, Loader=_Loader)  # a SafeLoader with more limits
        _check_tree(content, infinite)
    except yaml.YAMLError as error:
        raise _error(path, what, f"is not YAML: {_problem(error)}") from error
    except _Refused as error:
        raise _error(path, what, str(error)) from error
    except (ValueError, OverflowError, RecursionError, AttributeError, TypeError) as error:
        # What PyYAML's constructors raise: an integer of 5,000 digits, a date that does not exist, `!!int x`.
        raise _error(path, what, f"is not YAML: {' '.join(str(error).split())}") from error
    return content


class _Refused(Exception):
    """What the file holds is refused; the message lacks the file's name."""


class _Loader(yaml.SafeLoader):
    """A safe loader that bounds depth and nodes, and refuses duplicate and non-text keys."""

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self._depth = self._nodes = 0
        self._sizes: dict[str, int] = {}  # anchor -> nodes beneath it, aliases expanded

    def compose_node(self, parent: Any, index: Any) -> Any:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        anchor: str | None = event.anchor
        if isinstance(event, yaml.AliasEvent):
            if anchor in self.anchors and anchor not in self._sizes:
                raise _Refused(f"alias *{anchor} refers to itself")
            self._count(self._sizes.get(str(anchor), 0))
            return super().compose_node(parent, index)
        self._count(1)
        before = self._nodes
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise _Refused(f"is nested more than {MAX_DEPTH} levels deep")
        node = super().compose_node(parent, index)
        self._depth -= 1
        if anchor is not None:
            self._sizes[anchor] = self._nodes - before + 1
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        if isinstance(node, yaml.MappingNode):
            self._check_keys(node)
        return super().construct_mapping(node, deep=deep)

    def _check_keys(self, node: yaml.MappingNode) -> None:
        """Refuse duplicate and non-text keys; those that `<<` merges in may repeat, and lose."""
        seen: set[str] = set()
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                continue
            name = key.value
            if key.tag != "tag:yaml.org,2002:str":
                shown = name if isinstance(name, str) else key.id
                raise _Refused(f"line {key.start_mark.line + 1}: key {shown} is not text; allowed: text keys")
            if name in seen:
                raise _Refused(f"line {key.start_mark.line + 1}: key {short_repr(name)} is there twice")
            seen.add(name)

    def _count(self, nodes: int) -> None:
        self._nodes += nodes
        if self._nodes > MAX_YAML_NODES:
            raise _Refused(f"has more than {MAX_YAML_NODES:,} nodes with its aliases expanded")


# Plain text that looks like a date stays text.
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _text(path: str | Path, what: str, content: bytes) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _error(path, what, f"is not UTF-8 text: byte {error.start}") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise _Refused(f"key {short_repr(twice)} is there twice")
    return content


def _not_finite(name: str) -> Any:
    raise _Refused(f"holds {name}; allowed: finite numbers")


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _not_finite(text[:20])


def _bounded(text: str) -> int:
    # 2**64 has 20 digits; int() itself refuses more than 4,300.
    return int(text) if len(text) <= 20 else _too_large()


def _too_large() -> Any:
    raise _Refused("holds a whole number of more than 64 bits")


def _check_tree(content: Any, infinite: bool) -> None:
    """Refuse depth, numbers and types that no reader expects."""
    level = [content]
    for _ in range(MAX_DEPTH + 1):
        if not level:
            return
        below: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                below.extend(value.values())
            elif isinstance(value, list):
                below.extend(value)
            else:
                _check_leaf(value, infinite)
        level = below
    raise _Refused(f"is nested more than {MAX_DEPTH} levels deep")


def _check_leaf(value: Any, infinite: bool) -> None:
    if value is None or isinstance(value, (str, bool)):
        return
    if isinstance(value, int):
        if abs(value) >= MAX_INTEGER:
            _too_large()
    elif isinstance(value, float):
        if not (infinite or math.isfinite(value)):
            _not_finite(str(value))
    else:
        raise _Refused(f"holds a {type(value).__name__}; allowed: text, numbers, lists and mappings")


def _problem(error: yaml.YAMLError) -> str:
    """PyYAML's message on one line, with the line of the file."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"line {error.problem_mark.line + 1}: {error.problem}"
    return " ".join(str(error).split())


def _error(path: str | Path, what: str, problem: str) -> InvalidFile:
    return InvalidFile(f"{what} = {short_repr(str(path))} {problem}")
