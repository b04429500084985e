"""How DQAR gets into a diffusers transformer."""

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
