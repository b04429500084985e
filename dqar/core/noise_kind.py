"""What a scheduler's noise is known by: the name of its class and its fields, without loading torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

FLOW_NAMES = ("FlowMatch", "FlowMap", "EulerAncestralRF", "Helios", "MiniMaxH3", "Piflow")
SIGMA_NAMES = ("EDM", "CosineDPM", "CMStochastic")
SIGMA_SPACINGS = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas")


def noise_kind(scheduler: Any) -> str:
    """What a scheduler's noise is known by.

    Args:
        scheduler: A diffusers scheduler.

    Returns:
        `flow` (flow matching), `sigma` (EDM, Karras's spacing), `angle` (TrigFlow) or `alpha` (variance
        preserving).

    Raises:
        ValueError: For a scheduler whose SNR is not known.
    """
    name, config = type(scheduler).__name__, getattr(scheduler, "config", {})
    sigmas, alphas = hasattr(scheduler, "sigmas"), getattr(scheduler, "alphas_cumprod", None) is not None
    if sigmas and solves_flow(name, config):
        return "flow"
    if sigmas and (any(config.get(spacing) for spacing in SIGMA_SPACINGS) or name.startswith(SIGMA_NAMES)):
        return "sigma"
    if name.startswith("SCM"):
        return "angle"
    if alphas:
        return "alpha"
    raise ValueError(
        f"scheduler = {name} has no alphas_cumprod; "
        "allowed: a diffusers scheduler with alphas_cumprod, one for flow matching, EDM or TrigFlow"
    )


def solves_flow(name: str, config: Mapping[str, Any]) -> bool:
    """Whether a scheduler solves a flow, not a diffusion.

    Args:
        name: The name of its class.
        config: Its fields.

    Returns:
        True of those that solve flows alone, and of those that solve both where their fields say so.
    """
    flow = any(mark in name for mark in FLOW_NAMES) or config.get("use_flow_sigmas")
    return bool(flow or config.get("prediction_type") == "flow_prediction")
