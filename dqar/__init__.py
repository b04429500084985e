"""DQAR: attention reuse for diffusion transformers.

`enable(pipe, DQARConfig(...))` makes a diffusers pipeline reuse attention, `summary(pipe)` says what
the last generation reused, `disable(pipe)` restores the pipeline, and `plan(...)` tells beforehand.
"""

from dqar.cache.kv_cache import QuantizedKVCache
from dqar.config import DQARConfig
from dqar.core.entropy import compute_attention_entropy
from dqar.core.quantization import KVQuantizer
from dqar.core.reuse_gate import ReuseGate
from dqar.core.snr import compute_latent_snr
from dqar.integration.dit_wrapper import DQARDiTWrapper
from dqar.integration.pipeline import disable, enable, summary
from dqar.plan import plan
from dqar.policy.layer_scheduler import LayerScheduler
from dqar.policy.mlp_policy import ReusePolicy

__all__ = [
    "DQARConfig",
    "DQARDiTWrapper",
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
