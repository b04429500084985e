"""DQAR: attention reuse for diffusion transformers.

`enable(pipe, DQARConfig(...))` makes a diffusers pipeline reuse attention, `summary(pipe)` says what
the last generation reused, `disable(pipe)` restores the pipeline, and `plan(...)` tells beforehand.
"""

from dqar.config import DQARConfig
from dqar.integration.pipeline import disable, enable, summary
from dqar.plan import plan

__all__ = ["DQARConfig", "disable", "enable", "plan", "summary"]
