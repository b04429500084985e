"""The original specification's way in: a transformer wrapped together with its DQAR configuration."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from dqar.config import BALANCED, DQARConfig
from dqar.integration.handles import Handle
from dqar.integration.manager import DQARManager
from dqar.integration.pipeline import attach
from dqar.integration.summary import Summary

__all__ = ["DQARConfig", "DQARDiTWrapper"]


class DQARDiTWrapper(nn.Module):
    """A diffusers transformer that reuses attention according to `config`; called like the transformer.

    Attributes it lacks (`config`, `dtype`, ...) are the transformer's.

    Args:
        transformer: The transformer; it is changed in place, and restored by `remove`.
        config: What may be reused, and when; None = `DQARConfig.preset("balanced")`.
        scheduler: The trajectory is followed along its timesteps; None = a sampler sets it.

    Raises:
        ValueError: For a transformer that cannot do what `config` asks for, which is then left as it was.
    """

    def __init__(
        self, transformer: nn.Module, config: DQARConfig | None = None, scheduler: Any = None
    ) -> None:
        super().__init__()
        self.transformer = transformer
        self.scheduler = scheduler
        self.dqar_config = config or DQARConfig.preset(BALANCED)
        self._handle: Handle | None = self._attach()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call the transformer.

        Args:
            *args: As the transformer takes them.
            **kwargs: As the transformer takes them.

        Returns:
            What the transformer returns.

        Raises:
            RuntimeError: No scheduler is known yet.
        """
        return self.transformer(*args, **kwargs)

    @property
    def manager(self) -> DQARManager | None:
        """What decides the steps; None once the wrapper was removed."""
        return self._handle.manager if self._handle is not None else None

    def summary(self) -> Summary:
        """Describe the last generation.

        Returns:
            What it reused, as it happened.

        Raises:
            RuntimeError: Nothing has run, or the wrapper was removed.
        """
        if self._handle is None:
            raise RuntimeError("nothing to sum up: the wrapper was removed")
        return self._handle.manager.summary()

    def reset(self) -> None:
        """Forget the trajectory and the cache."""
        if self._handle is not None:
            self._handle.manager.reset()

    def remove(self) -> None:
        """Give the transformer its own call back; its output is then bit-identical to before."""
        if self._handle is not None:
            self._handle.remove()
        self._handle = None

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """Within the context nothing is reused or kept: the transformer is as it was."""
        active = self._handle is not None
        self.remove()
        try:
            yield
        finally:
            self._handle = self._attach() if active else None

    def _attach(self) -> Handle:
        return attach(self.transformer, self.dqar_config, self._known_scheduler)

    def _known_scheduler(self) -> Any:
        if self.scheduler is None:
            raise RuntimeError(
                "DQARDiTWrapper has no scheduler; allowed: one given as `scheduler`, or by a DQAR sampler"
            )
        return self.scheduler

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "transformer":  # not set yet: the lookup below would not end
                raise
            return getattr(self.transformer, name)
