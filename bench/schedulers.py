"""The solvers a suite may name, built from the pipeline's own noise schedule and spacing."""

from __future__ import annotations

from typing import Any

SCHEDULERS = {
    "ddim": "DDIMScheduler",
    "dpm_solver++": "DPMSolverMultistepScheduler",
    "unipc": "UniPCMultistepScheduler",
}


def from_pipeline(pipe: Any, name: str) -> Any:
    """A fresh scheduler `name` with the configuration (betas, spacing) of the pipeline's own."""
    import diffusers

    # Without its private keys: by these, diffusers would replace values that happen to be the old
    # scheduler's defaults (such as its timestep spacing) with the new one's.
    config = {key: v for key, v in pipe.scheduler.config.items() if not key.startswith("_")}
    return getattr(diffusers, SCHEDULERS[name]).from_config(config)
