"""A transformer class with tiny random weights, and the inputs that a pipeline would call it with."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers.models import transformers
from torch import Tensor, nn

SIZE = 4  # tokens, rows or frames a side: enough for positions to matter
TEXT = 5  # prompt tokens
_SPREAD = 0.2  # of the numbers that replace a parameter of zeros


@dataclass(frozen=True, kw_only=True)
class Draw:
    """The random inputs of one call: latents of one seed, a prompt of another, at one timestep.

    With `halves` both halves of a batch hold the same latents, as classifier-free guidance has them.
    """

    batch: int = 2
    latents: int = 0  # seed
    prompt: int = 1  # seed
    t: Tensor = field(default_factory=lambda: torch.tensor(500.0))  # the scheduler's timestep, 0 to 1000
    halves: bool = False

    def latent(self, *shape: int) -> Tensor:
        """Draw noise, the same at every call of one draw.

        Args:
            *shape: shape of one row.

        Returns:
            Noise `[batch, *shape]`; with `halves` its second half repeats the first.
        """
        if self.halves:
            half = _noise(self.latents, self.batch // 2, shape)
            return torch.cat((half, half))
        return _noise(self.latents, self.batch, shape)

    def text(self, *shape: int) -> Tensor:
        """Draw what stands for a prompt.

        Args:
            *shape: shape of one row.

        Returns:
            Noise `[batch, *shape]` of the prompt's own seed.
        """
        return _noise(self.prompt, self.batch, shape)

    def time(self, scale: float = 1.0) -> Tensor:
        """Repeat the timestep for each row.

        Args:
            scale: factor of the timestep.

        Returns:
            The timesteps, `[batch]`.
        """
        return (self.t * scale).expand(self.batch)

    def flow(self) -> Tensor:
        """Scale the timestep as Flux and its relatives are given it.

        Returns:
            t / 1000, `[batch]`.
        """
        return self.time() / 1000

    def reversed(self) -> Tensor:
        """Scale the timestep as Lumina and Z-Image are given it.

        Returns:
            1 - t / 1000, `[batch]`.
        """
        return 1 - self.flow()

    def rows(self, value: Any) -> Tensor:
        """Repeat a value for each row.

        Args:
            value: a number, or a tensor of one row.

        Returns:
            The values, `[batch, ...]`.
        """
        row = torch.as_tensor(value)
        return row.expand(self.batch, *row.shape).clone()

    def ones(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """Make a mask that hides nothing.

        Args:
            dtype: type of the mask; None: torch's default.
            *shape: shape of one row.

        Returns:
            Ones `[batch, *shape]`.
        """
        return torch.ones(self.batch, *shape, dtype=dtype)


def _noise(seed: int, rows: int, shape: tuple[int, ...]) -> Tensor:
    return torch.randn(rows, *shape, generator=torch.Generator().manual_seed(seed * 7919 + len(shape)))


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """One class with its options: how to build it, how to call it, and where its blocks are.

    `blocks` are the paths of the ModuleLists that a reuse must cover: those that attend along the main
    stream, refiners and embedders left out.
    """

    name: str
    model: str  # a class of diffusers.models.transformers
    options: dict[str, Any]
    inputs: Callable[[Draw], dict[str, Any]]
    blocks: tuple[str, ...] = ("transformer_blocks",)
    layers: int | None = None  # that DQAR may count, where some are not called; None = as many as blocks
    batch: int = 2
    halves: bool = True  # whether guidance may come as two halves of its batch

    def build(self) -> nn.Module:
        """Build the model.

        Returns:
            It is seeded, float32, in evaluation mode, without a parameter of zeros.
        """
        torch.manual_seed(0)
        with _nan_where_unset():
            model: nn.Module = getattr(transformers, self.model)(**self.options).float().eval()
        model.requires_grad_(False)
        for parameter in model.parameters():
            # A gate or a projection that starts at zero would hide every fault behind it.
            if not parameter.any() or parameter.isnan().any():
                nn.init.normal_(parameter, std=_SPREAD)
        return model

    def block_modules(self, model: nn.Module) -> list[nn.Module]:
        """List the blocks.

        Args:
            model: the model, as `build` returns it.

        Returns:
            Its blocks in order.
        """
        return [block for path in self.blocks for block in model.get_submodule(path).children()]


def configurations(*tables: dict[str, Configuration]) -> dict[str, Configuration]:
    """Merge tables.

    Args:
        *tables: configurations by name.

    Returns:
        All of them.

    Raises:
        ValueError: a name comes twice.
    """
    merged: dict[str, Configuration] = {}
    for table in tables:
        if twice := merged.keys() & table.keys():
            raise ValueError(f"configurations: {sorted(twice)} twice; allowed: once")
        merged |= table
    return merged


@contextlib.contextmanager
def _nan_where_unset() -> Iterator[None]:
    """Fill memory that the class leaves uninitialised: some classes leave a parameter to chance."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
