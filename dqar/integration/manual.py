"""Reuse that somebody decides by hand, call by call: for studies of what a single reuse does."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
from torch import Tensor, nn

from dqar.config import DQARConfig
from dqar.core.reuse_gate import ReuseGate
from dqar.integration.adapter import Adapter
from dqar.integration.branch import Branch
from dqar.integration.layer_store import LayerStore, Measurements
from dqar.integration.pipeline import hooks_of
from dqar.integration.planner import quantizers
from dqar.integration.slots import Slots
from dqar.integration.step_decision import DecisionMaker, by_hand
from dqar.integration.summary import Record
from dqar.plan import BOTH, Rules


class ManualReuse:
    """DQAR's hooks on a transformer, within a `with`: every call applies the last `decide`.

    Args:
        transformer: A diffusers transformer.
        config: How outputs are kept; nothing in it decides.
    """

    def __init__(self, transformer: nn.Module, config: DQARConfig) -> None:
        adapter = Adapter(transformer)
        self.layers = min(len(adapter.attentions), config.num_layers)
        slots = Slots(config.targets, self.layers, [len(m) for m in adapter.mlps], adapter.name)
        nothing = Rules(np.zeros((1, self.layers), np.int8), np.full(1, BOTH, np.int8))
        maker = DecisionMaker(config, slots, nothing, np.zeros(1), 0, ReuseGate(config, self.layers))
        store = LayerStore(slots, quantizers(config, slots, adapter.heads), 0)
        measurements = Measurements(self.layers, config.num_heads, config.entropy_stride)
        self.active = Branch(store, measurements, maker, None, Record(1, self.layers), None, None)
        self._hooks = hooks_of(adapter, slots, self, config.reuse_mode == "kv")
        self.decide()

    def decide(self, reuse: Collection[int] = (), keep: bool = False) -> None:
        """Decide the next call, and those after it until the next decision.

        Args:
            reuse: Numbers of the layers that reuse what they kept last; all others compute.
            keep: Whether what the others compute is kept and their entropies are measured.
        """
        slots = self.active.store.slots
        self.active.store.begin(by_hand(slots, tuple(reuse), keep, keep), None)

    @property
    def entropy(self) -> list[Tensor]:
        """The layers' entropies as last measured, nats, scalars on the device."""
        return [entropy for entropy in self.active.measurements.entropy if entropy is not None]

    def __enter__(self) -> ManualReuse:
        for hook in self._hooks:
            hook.install()
        return self

    def __exit__(self, *_: Any) -> None:
        for hook in self._hooks:
            hook.remove()
