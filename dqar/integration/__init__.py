"""How DQAR gets into a diffusers transformer."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dqar.config import DQARConfig
    from dqar.integration.attention_processor import DQARAttentionProcessor
    from dqar.integration.dit_wrapper import DQARDiTWrapper
    from dqar.integration.manager import DQARManager
    from dqar.integration.samplers import DQARDDIMSampler, DQARDPMSolverSampler, SamplerConfig

__all__ = [
    "DQARAttentionProcessor",
    "DQARConfig",
    "DQARDDIMSampler",
    "DQARDPMSolverSampler",
    "DQARDiTWrapper",
    "DQARManager",
    "SamplerConfig",
]

# Imported when they are first asked for: the samplers alone need diffusers' schedulers.
_HOMES = {
    "DQARAttentionProcessor": "dqar.integration.attention_processor",
    "DQARConfig": "dqar.config",
    "DQARDDIMSampler": "dqar.integration.samplers",
    "DQARDPMSolverSampler": "dqar.integration.samplers",
    "DQARDiTWrapper": "dqar.integration.dit_wrapper",
    "DQARManager": "dqar.integration.manager",
    "SamplerConfig": "dqar.integration.samplers",
}


def __getattr__(name: str) -> Any:
    """A public name, from the module that defines it."""
    if name not in _HOMES:
        raise AttributeError(f"module 'dqar.integration' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
