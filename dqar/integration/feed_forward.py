"""One MLP of a block under DQAR."""

from __future__ import annotations

from dqar.integration.hooks import ForwardHook


class DQARFeedForward(ForwardHook):
    """Stands in for a feed-forward module's `forward`: reuses its output, or computes and keeps it."""
