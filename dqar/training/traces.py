"""Traces: for each layer and step what the policy will see, and the damage that reuse was measured to do."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from dqar.policy.mlp_policy import FEATURES

COLUMNS = {
    "features": torch.float32,
    "layer": torch.int64,
    "trajectory": torch.int64,
    "damage": torch.float32,
    "final_damage": torch.float32,
}
NOT_MEASURED = torch.tensor(torch.nan)


@dataclass(frozen=True)
class Trace:
    """Rows of measurements: one layer at one step of one trajectory each.

    `features` `[n, 4]` in the order of `FEATURES`; `layer`, `trajectory` `[n]`; `damage` `[n]`, 0 or
    more, in the unit of the damage budget; `final_damage` `[n]`, that to the end of the trajectory, nan
    where it was not measured. Raises `ValueError` for other shapes or damages.
    """

    features: Tensor
    layer: Tensor
    trajectory: Tensor
    damage: Tensor
    metadata: dict[str, Any] = field(default_factory=dict)
    final_damage: Tensor = NOT_MEASURED

    def __post_init__(self) -> None:
        if self.final_damage is NOT_MEASURED:
            object.__setattr__(self, "final_damage", NOT_MEASURED.expand(len(self.damage)))
        for name, dtype in COLUMNS.items():
            column = torch.as_tensor(getattr(self, name)).to(dtype)
            object.__setattr__(self, name, column)
            shape = (len(self.damage), len(FEATURES)) if name == "features" else (len(self.damage),)
            if tuple(column.shape) != shape:
                raise ValueError(f"{name} has shape {tuple(column.shape)}; allowed: {shape}")
        for name in ("features", "damage"):
            if not getattr(self, name).isfinite().all():
                raise ValueError(f"{name} has entries that are not finite; allowed: finite numbers")
        if len(self.damage) and self.damage.min() < 0:
            raise ValueError(f"damage = {float(self.damage.min())!r} is not allowed; allowed: 0 or more")

    def __getitem__(self, rows: Tensor) -> Trace:
        """The rows of a mask or an index."""
        return Trace(**{name: getattr(self, name)[rows] for name in COLUMNS}, metadata=self.metadata)

    def save(self, path: str | Path) -> None:
        """Write a safetensors file: a tensor for each column, the metadata as JSON in its header."""
        tensors = {name: getattr(self, name).contiguous() for name in COLUMNS}
        save_file(tensors, path, {"dqar_trace": json.dumps(self.metadata)})

    @classmethod
    def load(cls, path: str | Path) -> Trace:
        """Read what `save` wrote. Raises `ValueError` for another file."""
        try:
            with safe_open(path, "pt") as file:
                metadata = json.loads(file.metadata()["dqar_trace"])
                return cls(**{name: file.get_tensor(name) for name in COLUMNS}, metadata=metadata)
        except (OSError, SafetensorError, KeyError, TypeError) as error:
            raise ValueError(
                f"trace = {str(path)!r} is not readable; allowed: a file of `Trace.save`"
            ) from error
