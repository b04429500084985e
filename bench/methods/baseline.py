"""The untouched pipeline: timed against itself it must come out at 1 (the control)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bench.methods.base import Arm, Method, only


@contextmanager
def apply(pipe: Any, options: dict[str, Any]) -> Iterator[Arm]:
    """Change nothing.

    Args:
        pipe: A pipeline of diffusers.
        options: None; `check` lets no other through.

    Yields:
        An arm that differs in nothing.
    """
    yield Arm()


METHOD = Method(check=lambda options: only(options, ()), apply=apply)
