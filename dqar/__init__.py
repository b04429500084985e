"""DQAR: attention reuse for diffusion transformers.

`enable(pipe, DQARConfig(...))` makes a diffusers pipeline reuse attention, `summary(pipe)` reports what
the last generation reused, `disable(pipe)` restores the pipeline, and `plan(...)` shows it beforehand.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from dqar.plan import plan  # now: later the module of that name would take the function's place

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
    from dqar.policy.layer_scheduler import LayerScheduler
    from dqar.policy.mlp_policy import ReusePolicy

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

# Imported when they are first asked for.
_HOMES = {
    "DQARConfig": "dqar.config",
    "DQARDiTWrapper": "dqar.integration.dit_wrapper",
    "DQARError": "dqar.errors",
    "DQARWarning": "dqar.errors",
    "KVQuantizer": "dqar.core.quantization",
    "LayerScheduler": "dqar.policy.layer_scheduler",
    "QuantizedKVCache": "dqar.cache.kv_cache",
    "ReuseGate": "dqar.core.reuse_gate",
    "ReusePolicy": "dqar.policy.mlp_policy",
    "compute_attention_entropy": "dqar.core.entropy",
    "compute_latent_snr": "dqar.core.snr",
    "disable": "dqar.integration.pipeline",
    "enable": "dqar.integration.pipeline",
    "summary": "dqar.integration.pipeline",
}


def __getattr__(name: str) -> Any:
    """A public name, from the module that defines it."""
    if name not in _HOMES:
        raise AttributeError(f"module 'dqar' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
