"""Outputs as trees: the tensors in them, and the template that puts tensors back in their places."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor

Template = Any  # LEAF, a constant, or a container's type with the templates of its items
LEAF = "tensor"


def flatten(value: Any) -> tuple[list[Tensor], Template]:
    """The tensors within a tensor, tuple, list, dict or diffusers output, and the template of the rest.

    Args:
        value: What a module returned; anything in it that is no tensor becomes part of the template.

    Returns:
        The tensors in order, and what `unflatten` needs to build the same value from others.
    """
    tensors: list[Tensor] = []
    return tensors, _describe(value, tensors)


def unflatten(template: Template, tensors: Sequence[Tensor]) -> Any:
    """Build the value that `flatten` described, from other tensors.

    Args:
        template: As `flatten` returned it.
        tensors: In the order of `flatten`; as many as the template holds.

    Returns:
        A new value of the same types.
    """
    return _build(template, iter(tensors))


def _describe(value: Any, tensors: list[Tensor]) -> Template:
    if isinstance(value, Tensor):
        tensors.append(value)
        return LEAF
    if isinstance(value, dict):  # a diffusers output is one too
        return (type(value), tuple(value), tuple([_describe(item, tensors) for item in value.values()]))
    if isinstance(value, (tuple, list)):
        return (type(value), None, tuple([_describe(item, tensors) for item in value]))
    return (None, None, value)


def _build(template: Template, tensors: Iterator[Tensor]) -> Any:
    if template == LEAF:
        return next(tensors)
    kind, names, content = template
    if kind is None:
        return content
    items = [_build(part, tensors) for part in content]
    if names is not None:
        return kind(**dict(zip(names, items, strict=True)))
    return kind(*items) if hasattr(kind, "_fields") else kind(items)
