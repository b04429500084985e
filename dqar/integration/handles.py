"""What DQAR puts on a transformer and a pipeline, and how it is taken off again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from dqar.integration.adapter import Adapter, unwrapped
from dqar.integration.hooks import ContextWatch, ForwardHook, remember, same_hook
from dqar.integration.manager import DQARManager
from dqar.integration.summary import Summary, merged
from dqar.plan import CONDITIONAL
from dqar.utils.warn import warn


class TransformerCall:
    """Stands in for a transformer's call, outside of its `forward`, which offloading replaces before and
    after each generation. Copies and pickles of a module leave it out.

    Args:
        adapter: The transformer, understood.
        manager: Decides what each call does.
        context: Knows the name of the open cache context; None = the transformer has none.
    """

    def __init__(self, adapter: Adapter, manager: DQARManager, context: ContextWatch | None) -> None:
        self.adapter, self.manager, self.context = adapter, manager, context
        self.module = adapter.outer
        self.own = vars(self.module).get("_compiled_call_impl")  # of `module.compile()`
        self.inner: Callable[..., Any] = self.own or self.module._call_impl
        self.warned = False

    def install(self) -> None:
        """Take the call's place."""
        vars(self.module)["_compiled_call_impl"] = self

    def remove(self) -> None:
        """Give the transformer its own call back, unless somebody has put another in its place."""
        if vars(self.module).get("_compiled_call_impl") is self:
            if self.own is None:
                del vars(self.module)["_compiled_call_impl"]
            else:
                vars(self.module)["_compiled_call_impl"] = self.own

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The transformer's output: of a model that runs whole, in part or not at all."""
        manager = self.manager
        if torch.is_grad_enabled() or self.adapter.base.training:
            self._warn_once()
            return self.inner(*args, **kwargs)
        call = self.adapter.call(args, kwargs)
        if not manager.begin_step(call, self.context.current if self.context else None):
            return self.inner(*args, **kwargs)
        try:
            if not manager.runs():
                return manager.end_step()
            if manager.branches == CONDITIONAL:
                given = self.adapter.arguments(args, kwargs)
                return manager.end_step(self.inner(**manager.inputs(given, len(call.latent))))
            return manager.end_step(self.inner(*args, **kwargs))
        except BaseException:
            manager.abandon()
            raise

    def _warn_once(self) -> None:
        if not self.warned:
            self.warned = True
            warn(f"{self.adapter.name} runs in training mode or with gradients: nothing is reused")


class Handle:
    """What DQAR changed on a transformer, and how to undo it. A copy of a pipeline holds none.

    Args:
        manager: Of the transformer.
        transformer: As the pipeline holds it.
        patches: What stands in for its methods, in the order of installation.
    """

    def __init__(self, manager: DQARManager, transformer: nn.Module, patches: Sequence[Any]) -> None:
        self.manager, self.transformer, self.patches = manager, transformer, patches

    def install(self) -> None:
        """Put everything in its place."""
        model = unwrapped(self.transformer)
        self.patches = [same_hook(model, p) if isinstance(p, ForwardHook) else p for p in self.patches]
        for patch in self.patches:
            patch.install()

    def remove(self) -> None:
        """Put back what is still DQAR's; hooks that others added since stay."""
        for patch in reversed(self.patches):
            gone = patch.remove()
            if gone and isinstance(patch, ForwardHook):
                remember(unwrapped(self.transformer), patch)
        self.manager.detach()

    def __deepcopy__(self, memo: Any) -> None:
        return None

    def __reduce__(self) -> Any:
        return _nothing, ()


class PipelineHandle:
    """What DQAR changed on a pipeline: one part for each of its transformers. A copy holds none.

    Args:
        parts: One for each transformer of the pipeline, the first one's first.
    """

    def __init__(self, parts: Sequence[Handle]) -> None:
        self.parts = parts
        for part in parts:
            part.manager.others = [other.manager for other in parts if other is not part]

    @property
    def manager(self) -> DQARManager:
        """The first transformer's."""
        return self.parts[0].manager

    def summary(self) -> Summary:
        """Describe the last generation, of all transformers that had a share in it.

        Returns:
            What it reused, as it happened.

        Raises:
            RuntimeError: No generation has run since `enable`.
        """
        runs = [(p.manager.trajectory, p.manager) for p in self.parts if p.manager.trajectory is not None]
        if not runs:
            return self.manager.summary()
        newest = max(runs, key=lambda pair: pair[0].number)[0]
        shared = (
            sorted(
                (run.begin, manager.summary()) for run, manager in runs if run.timesteps is newest.timesteps
            )
            if len(runs) > 1
            else [(0, runs[0][1].summary())]
        )
        return merged([part for _, part in shared])

    def remove(self) -> None:
        """Undo all of it."""
        for part in self.parts:
            part.remove()

    def __deepcopy__(self, memo: Any) -> None:
        return None

    def __reduce__(self) -> Any:
        return _nothing, ()


def _nothing() -> None:
    return None
