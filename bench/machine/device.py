"""Where models run."""

from __future__ import annotations


def device_type() -> str:
    """Where models run, "cuda" or "cpu": the one place that decides it."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
