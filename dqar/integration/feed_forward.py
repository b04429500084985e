"""One block's MLP under DQAR: serve from the cache, or compute and keep."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from dqar.validation import refusal

if TYPE_CHECKING:
    from dqar.integration.manager import DQARManager


class DQARFeedForward:
    """Stands in for a feed-forward module's `forward` and obeys the manager's decision for its block."""

    def __init__(self, site: int, manager: DQARManager, module: nn.Module) -> None:
        self.site = site
        self.manager = manager
        self.inner: Callable[..., Tensor] = module.forward

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Return the MLP's output, `[batch, tokens, width]`, fresh, cached or foretold."""
        if self.manager.reused[self.site]:
            return self.manager.load(self.site)[0]
        output = self.inner(hidden_states, *args, **kwargs)
        self.manager.note(self.site, output)
        return output


def feed_forwards(transformer: nn.Module) -> list[nn.Module]:
    """The MLP of each block, in order. Raises `ValueError` naming `targets` where a block has none of its
    own, or one for each of two streams."""
    blocks = [
        *getattr(transformer, "transformer_blocks", ()),
        *getattr(transformer, "single_transformer_blocks", ()),
    ]
    found = [block.ff for block in blocks if hasattr(block, "ff") and not hasattr(block, "ff_context")]
    if len(found) < len(blocks):
        raise refusal("targets", "mlp", f"'attention' for {type(transformer).__name__}")
    return found
