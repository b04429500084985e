"""The two tiers of the tests: every day, and slow, of which CI runs a part with each commit."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase

import pytest


def mark(items: Iterable[pytest.Item]) -> None:
    """Of a test with `everyday(*ids)`, every case of another id is slow."""
    for item in items:
        chosen = item.get_closest_marker("everyday")
        if chosen and not any(fnmatchcase(case(item), wanted) for wanted in chosen.args):
            item.add_marker("slow")


def case(item: pytest.Item) -> str:
    """What distinguishes a case of a parametrised test: the part of its name in brackets."""
    return item.name.partition("[")[2].removesuffix("]")


def slow(items: Iterable[pytest.Item]) -> list[str]:
    """The node ids of those that are marked `slow`, by themselves or by `mark`."""
    return [item.nodeid for item in items if item.get_closest_marker("slow")]


def unit(test: str) -> str:
    """What stays in one part: a case of a sweep by itself, a file's other tests together, as they share what
    is made once for a file."""
    return test if test.endswith("]") else test.partition("::")[0]


def part(tests: Iterable[str], which: str) -> set[str]:
    """For "K/N" every N-th unit of the tests (node ids) from the K-th on."""
    numbers = re.fullmatch(r"(\d{1,4})/(\d{1,4})", which)
    k, n = map(int, numbers.groups()) if numbers else (0, 0)
    if not 1 <= k <= n:
        raise pytest.UsageError(f"--part: {which!r} is not allowed; allowed: K/N with K from 1 to N")
    found = [*tests]
    chosen = {*[*dict.fromkeys(map(unit, found))][k - 1 :: n]}
    return {test for test in found if unit(test) in chosen}
