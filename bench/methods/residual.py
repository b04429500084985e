"""The blocks of a transformer, which run or are left out: then their last residual stands for them."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from torch import Tensor

Streams = tuple[Tensor, ...]  # the tokens of the image, and of the prompt where blocks take both


class HeldResidual(ABC):
    """Runs the blocks of a transformer, or adds what their last run added to its input.

    Args:
        transformer: With one list of blocks, `transformer_blocks`; their `forward` is replaced.
    """

    def __init__(self, transformer: Any) -> None:
        blocks = list(transformer.transformer_blocks)
        self.names = tuple(inspect.signature(type(blocks[0]).forward).parameters)[1:]
        self.last = len(blocks) - 1
        self.held = False
        self.inputs: Streams = ()
        self.residual: list[Tensor] = []
        for number, block in enumerate(blocks):
            block.forward = self._in_place_of(number, block.forward)

    @abstractmethod
    def holds(self, given: dict[str, Any]) -> bool:
        """Decide a step.

        Args:
            given: The arguments of the first block, by name.

        Returns:
            Whether the residual is held.
        """

    def ran(self, output: Tensor) -> None:
        """Note that all blocks ran.

        Args:
            output: The image's tokens behind the last.
        """
        del output  # a cache that decides by it keeps it

    @property
    def bytes(self) -> int:
        """What the residual takes."""
        return sum(each.nbytes for each in self.residual)

    def _in_place_of(self, number: int, forward: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            given = dict(zip(self.names, args, strict=False)) | kwargs
            streams = _streams(given)
            if number == 0:
                self.held, self.inputs = self.holds(given), streams
            if self.held:
                return _output(self._added(streams) if number == 0 else streams)
            output = forward(*args, **kwargs)
            if number == self.last:
                self._end(output)
            return output

        return run

    def _added(self, streams: Streams) -> Streams:
        held = [value + added for value, added in zip(streams, self.residual, strict=False)]
        return tuple(held) + streams[len(held) :]

    def _end(self, output: Any) -> None:
        # The image's tokens are the last of a block's outputs; the prompt's may end with the last block.
        outputs = (output,) if isinstance(output, Tensor) else tuple(output)[::-1]
        pairs = zip(outputs, self.inputs, strict=True)
        self.residual = [after - before for after, before in pairs if after is not None]
        self.ran(outputs[0])


def _streams(given: dict[str, Any]) -> Streams:
    prompt = given.get("encoder_hidden_states")
    return (given["hidden_states"],) if prompt is None else (given["hidden_states"], prompt)


def _output(streams: Streams) -> Any:
    return streams[0] if len(streams) == 1 else streams[::-1]
