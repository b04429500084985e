"""DQAR: attention reuse for diffusion transformers.

`enable(pipe, DQARConfig(...))` makes a diffusers pipeline reuse attention, `summary(pipe)` reports what
the last generation reused, `disable(pipe)` restores the pipeline, and `plan(...)` shows it beforehand.

Each name is imported when it is first used: torch and diffusers take seconds, which a command that only
refuses its input need not wait for.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dqar.cache.kv_cache import QuantizedKVCache
    from dqar.config import DQARConfig
    from dqar.core.entropy import compute_attention_entropy
    from dqar.core.quantization import KVQuantizer
    from dqar.core.reuse_gate import ReuseGate
    from dqar.core.snr import compute_latent_snr
    from dqar.errors import DQARError, DQARWarning
    from dqar.integration.dit_wrapper import DQARDiTWrapper
    from dqar.integration.pipeline import disable, enable, summary
    from dqar.plan import plan
    from dqar.policy.layer_scheduler import LayerScheduler
    from dqar.policy.mlp_policy import ReusePolicy

_MODULES = {
    "DQARConfig": "config",
    "DQARDiTWrapper": "integration.dit_wrapper",
    "DQARError": "errors",
    "DQARWarning": "errors",
    "KVQuantizer": "core.quantization",
    "LayerScheduler": "policy.layer_scheduler",
    "QuantizedKVCache": "cache.kv_cache",
    "ReuseGate": "core.reuse_gate",
    "ReusePolicy": "policy.mlp_policy",
    "compute_attention_entropy": "core.entropy",
    "compute_latent_snr": "core.snr",
    "disable": "integration.pipeline",
    "enable": "integration.pipeline",
    "plan": "plan",
    "summary": "integration.pipeline",
}

__all__ = [
    "DQARConfig",
    "DQARDiTWrapper",
    "DQARError",
    "DQARWarning",
    "KVQuantizer",
    "LayerScheduler",
    "QuantizedKVCache",
    "ReuseGate",
    "ReusePolicy",
    "compute_attention_entropy",
    "compute_latent_snr",
    "disable",
    "enable",
    "plan",
    "summary",
]


class _Package(ModuleType):
    """This module, whose `plan` is the function, though a submodule has the same name."""

    def __getattr__(self, name: str) -> Any:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)

    def __setattr__(self, name: str, value: Any) -> None:
        # Importing a submodule stores it here by its name.
        if not (name in _MODULES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *__all__})


sys.modules[__name__].__class__ = _Package
