"""In place of a module's `forward`: reuse its output, or compute it as the module does and keep it."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol, cast
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from dqar.integration.step_decision import COMPUTED, REUSED
from dqar.integration.tree import LEAF, flatten, unflatten

if TYPE_CHECKING:
    from dqar.integration.branch import Branch


class Decider(Protocol):
    """Who decides what the hooks do: a manager along a schedule, or somebody by hand."""

    @property
    def active(self) -> Branch | None:
        """The branch whose call of the transformer is running; None = the model runs untouched."""


class Patch:
    """Stands in for a method of one object, as an attribute of the instance.

    Copies and pickles of the object are clean: they have the method of their class.

    Args:
        owner: The object; it is not changed before `install`.
        name: Name of the method.
    """

    def __init__(self, owner: Any, name: str) -> None:
        self.owner, self.name = owner, name
        self.inner = getattr(owner, name)
        self.own = vars(owner).get(name)  # the instance's, None = its class's
        functools.update_wrapper(cast(Any, self), self.inner)

    def install(self) -> None:
        """Take the method's place."""
        setattr(self.owner, self.name, self)

    def remove(self) -> bool:
        """Give the object its own method back. Where somebody has wrapped this one meanwhile, it stays.

        Returns:
            Whether it is gone.
        """
        if vars(self.owner).get(self.name) is not self:
            return False
        if self.own is None:
            delattr(self.owner, self.name)
        else:
            setattr(self.owner, self.name, self.own)
        return True

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        copied = memo.get(id(self.owner))
        if copied is None or self.own is not None:
            return copy.deepcopy(self.own, memo)
        return getattr(type(copied), self.name).__get__(copied)

    def __reduce__(self) -> Any:
        return getattr, (self.owner, self.name)


class ForwardHook(Patch):
    """Stands in for the `forward` of one module.

    The module keeps everything else: its processor, its parameters, the hooks of others.

    Args:
        slots: Cache slots of its first, second, ... call in a step.
        decider: Decides what each call does.
        module: The module; it is not changed before `install`.
    """

    def __init__(self, slots: tuple[int, ...], decider: Decider, module: nn.Module) -> None:
        super().__init__(module, "forward")
        self.slots, self.module = slots, module
        self.decider: Decider = decider

    def remove(self) -> bool:
        """Give the module its own `forward` back, and decide nothing any more."""
        self.decider = UNTOUCHED
        return super().remove()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return the module's output, fresh, cached or forecast."""
        branch = self.decider.active
        slot = None if branch is None else branch.store.next_of(self.slots)
        if branch is None or slot is None:
            return self.inner(*args, **kwargs)
        if branch.store.can_reuse(slot):
            branch.store.did[slot] = REUSED
            return self._reused(branch, slot, args, kwargs)
        branch.store.did[slot] = COMPUTED
        return self._computed(branch, slot, args, kwargs)

    def _reused(self, branch: Branch, slot: int, args: Any, kwargs: Any) -> Any:
        tensors, template = branch.store.load(slot), branch.store.templates[slot]
        return tensors[0] if template == LEAF else unflatten(template, tensors)

    def _computed(self, branch: Branch, slot: int, args: Any, kwargs: Any) -> Any:
        output = self.inner(*args, **kwargs)
        self._keep(branch, slot, output)
        return output

    def _keep(self, branch: Branch, slot: int, output: Any) -> None:
        """Compare what was computed with the entry it replaces, and keep it, as decided."""
        if isinstance(output, Tensor):
            tensors = [output]
        else:
            tensors, branch.store.templates[slot] = flatten(output)
        self._keep_tensors(branch, slot, *tensors)

    def _keep_tensors(self, branch: Branch, slot: int, *tensors: Tensor) -> None:
        store = branch.store
        layer = store.layer_of[slot]
        first = slot == store.slots.targets[layer][0]
        if store.decision.compare[layer] and first and store.cache.has(slot):
            branch.measurements.measure_change(layer, store.load(slot)[0], tensors[0])
        if store.decision.keep[slot] and tensors:
            store.store(slot, *tensors)


class _Untouched:
    """Decides nothing: the model runs untouched."""

    active: Branch | None = None


UNTOUCHED = _Untouched()
# The hooks that a model had, by module: torch.compile would not know another object, and compile all again.
_known: WeakKeyDictionary[nn.Module, dict[int, ForwardHook]] = WeakKeyDictionary()


def same_hook(model: nn.Module, hook: ForwardHook) -> ForwardHook:
    """The hook that a model had on the same module before, made to do what another would.

    Args:
        model: The unwrapped transformer.
        hook: The hook to be installed.

    Returns:
        The earlier hook, so that torch.compile knows it again; `hook` itself where there was none.
    """
    before = _known.get(model, {}).pop(id(hook.module), None)
    if before is None or type(before) is not type(hook) or before.module is not hook.module:
        return hook
    vars(before).update(vars(hook))
    return before


def remember(model: nn.Module, hook: ForwardHook) -> None:
    """Note a removed hook for `same_hook`; one that is in use would keep its pipeline alive.

    Args:
        model: The unwrapped transformer.
        hook: A hook that was removed; it is kept as long as the model lives.
    """
    _known.setdefault(model, {})[id(hook.module)] = hook


class ContextWatch(Patch):
    """Stands in for a transformer's `cache_context`, by which a pipeline names a guidance branch.

    Args:
        transformer: A model of diffusers with `cache_context`.
    """

    def __init__(self, transformer: Any) -> None:
        super().__init__(transformer, "cache_context")
        self.current: str | None = None

    @contextmanager
    def __call__(self, name: str, **kwargs: Any) -> Iterator[None]:
        """The transformer's context, whose name is known while it is open."""
        self.current = name
        try:
            with self.inner(name, **kwargs):
                yield
        finally:
            self.current = None
