"""How the tables of configurations are written: one entry a configuration."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bench.studies.families.configuration import Configuration, Draw


class Table(dict[str, Configuration]):
    """Configurations by name."""

    def add(
        self,
        name: str,
        model: str,
        options: dict[str, Any],
        inputs: Callable[[Draw], dict[str, Any]],
        *blocks: str,
        **more: Any,
    ) -> None:
        """Add a configuration.

        Args:
            name: the configuration's name in the report.
            model: the class's name in diffusers.
            options: arguments of the class's constructor.
            inputs: makes the arguments of a call.
            *blocks: paths of the lists of blocks; none: `transformer_blocks`.
            **more: other fields of `Configuration`.
        """
        where = blocks or ("transformer_blocks",)
        self[name] = Configuration(
            name=name, model=model, options=options, inputs=inputs, blocks=where, **more
        )


def grid(*sizes: int) -> Tensor:
    """List the positions of a grid, as image ids are.

    Args:
        *sizes: number of positions on each axis.

    Returns:
        Positions `[tokens, axes]`.
    """
    return torch.cartesian_prod(*[torch.arange(size).float() for size in sizes])


def rotary(tokens: int, width: int) -> tuple[Tensor, Tensor]:
    """Make a rotary embedding.

    Args:
        tokens: number of positions.
        width: channels of a head, an even number.

    Returns:
        Cosines and sines, `[tokens, width]` each.
    """
    angle = torch.arange(tokens)[:, None] * torch.linspace(1, 0.1, width // 2)[None]
    angle = angle.repeat_interleave(2, dim=1)
    return angle.cos(), angle.sin()
