"""Invalid inputs: mutated suites, configurations, plans, records and command lines."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

ODD: list[Any] = [
    None, True, 0, -1, 10**9, 2**63, 10**25, 0.5, -1e308, float("nan"), float("inf"), "", "a" * 300, "ü",
    "../x", "/etc/passwd", "\0", "{{7*7}}", "<script>alert(1)</script>", "`x`|y", [], {}, [[]], {"a": 1},
    [1, "a", None], "baseline", "dqar", "embedded", "1e400", "0x10", "2001-01-01", ["x"] * 50,
    {"x": [*range(3000)]},
]  # fmt: skip
COMMANDS = [
    "run",
    "report",
    "show",
    "list",
    "doctor",
    "validate",
    "compare",
    "generate",
    "profile",
    "calibrate",
]
OPTIONS = [
    "--seed",
    "--only",
    "--images",
    "--reference",
    "--model",
    "--results",
    "--n",
    "--steps",
    "--guidance",
    "--threshold",
    "--metric",
    "--machine",
    "--classes",
    "--dqar",
    "--speedups",
    "--trials",
    "--help",
]


def mutated(value: Any, rng: random.Random) -> Any:
    """`value` with one part replaced, removed, renamed or doubled, or `value` itself replaced."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice([*value])
        changed = dict(value)
        action = rng.random()
        if action < 0.6:
            changed[key] = mutated(changed[key], rng)
        elif action < 0.75:
            del changed[key]
        elif action < 0.9:
            changed[rng.choice(["x", key + "x", "", "é", key.upper()])] = changed.pop(key)
        else:
            changed[rng.choice([*value, "new"])] = rng.choice(ODD)
        return changed
    if isinstance(value, list) and value and rng.random() < 0.9:
        at = rng.randrange(len(value))
        return [*value[:at], *([mutated(value[at], rng)] * rng.choice((0, 1, 1, 1, 2))), *value[at + 1 :]]
    return rng.choice(ODD)


def garbled(content: bytes, rng: random.Random) -> bytes:
    """Bytes with a few changed, cut, doubled or nested."""
    data = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data) + 1)
        action = rng.randrange(6)
        if action == 0:
            data[at:at] = bytes(rng.randrange(256) for _ in range(rng.randint(1, 9)))
        elif action == 1:
            del data[at : at + rng.randint(1, 40)]
        elif action == 2:
            data[at:] = b""
        elif action == 3:
            data[at:at] = rng.choice(
                (b"[", b"{", b"- ", b"&a ", b"*a ", b"!!python/name:os.system ")
            ) * rng.choice((1, 50, 5000))
        elif action == 4:
            data[at:at] = data[at : at + 60]
        elif at < len(data):
            data[at] ^= 1 << rng.randrange(8)
    return bytes(data)


def as_yaml(value: Any, rng: random.Random) -> bytes:
    """A mutated value as YAML, sometimes garbled as well."""
    for _ in range(rng.randint(1, 3)):
        value = mutated(value, rng)
    text = yaml.safe_dump(value).encode()
    return garbled(text, rng) if rng.random() < 0.3 else text


def as_json(value: Any, rng: random.Random) -> bytes:
    """The same as JSON."""
    for _ in range(rng.randint(1, 3)):
        value = mutated(value, rng)
    text = json.dumps(value).encode()
    return garbled(text, rng) if rng.random() < 0.3 else text


def corrupt(path: Path, rng: random.Random) -> str:
    """Damage a file in one of the ways that disks, people and enemies do; which."""

    def replaced(by: Callable[[], object]) -> None:
        path.unlink()
        by()

    ways: dict[str, Callable[[], object]] = {
        "cut": lambda: path.write_bytes(path.read_bytes()[: rng.randrange(path.stat().st_size + 1)]),
        "garbled": lambda: path.write_bytes(garbled(path.read_bytes(), rng)),
        "empty": lambda: path.write_bytes(b""),
        "deep": lambda: path.write_bytes(b"[" * 200_000),
        "mutated": lambda: path.write_bytes(_mutated_file(path, rng)),
        "pipe": lambda: replaced(lambda: os.mkfifo(path)),
        "device": lambda: replaced(lambda: path.symlink_to("/dev/zero")),
        "directory": lambda: replaced(path.mkdir),
        "dangling": lambda: replaced(lambda: path.symlink_to("nowhere")),
        "gone": path.unlink,
    }
    way = rng.choice([*ways])
    ways[way]()
    return way


def _mutated_file(path: Path, rng: random.Random) -> bytes:
    try:
        return as_json(json.loads(path.read_text()), rng)
    except (ValueError, RecursionError):  # not JSON, or nested too deep: damaged by an earlier try
        return garbled(path.read_bytes(), rng)


def command_line(work: Path, rng: random.Random) -> list[str]:
    """A command with arguments that hardly fit it; none that could run for long."""
    given = [
        "smoke",
        "tiny",
        str(work),
        "x.yaml",
        "",
        "é",
        "a" * 5000,
        "-1",
        "nan",
        "1e999",
        "\udcff",
        "9" * 5000,
    ]
    name = rng.choice(COMMANDS)
    line = [name]
    if name in ("generate", "calibrate"):
        line += ["--model", str(work / "nowhere")]
    if name == "run":
        line += ["--only", "no-such-run"]
    for _ in range(rng.randint(0, 3)):
        line += rng.choice(([rng.choice(given)], [rng.choice(OPTIONS), rng.choice(given)]))
    return [part.replace("\0", "") for part in line]
