"""Traces: for each layer and step what the policy sees, and the reuse error that was measured."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from dqar.errors import DQARError, InvalidFile, InvalidValue, short_repr
from dqar.policy.mlp_policy import FEATURES
from dqar.utils.atomic import write_atomic

COLUMNS = {
    "features": torch.float32,
    "layer": torch.int64,
    "trajectory": torch.int64,
    "reuse_error": torch.float32,
    "final_reuse_error": torch.float32,
}
# Names in traces that were made before they were renamed.
_FORMER = {"reuse_error": "damage", "final_reuse_error": "final_damage"}
NOT_MEASURED = torch.tensor(torch.nan)


@dataclass(frozen=True)
class Trace:
    """Rows of measurements: one layer at one step of one trajectory each.

    Attributes:
        features: `[n, 4]`, in the order of `FEATURES`.
        layer: Number of the layer, `[n]`.
        trajectory: Number of the generation, `[n]`.
        reuse_error: What reusing the layer at that step costs, `[n]`, 0 or more, in the unit of the budget.
        metadata: Where the rows come from.
        final_reuse_error: The same at the end of the trajectory, `[n]`, nan where it was not measured.

    Raises:
        InvalidValue: Other shapes, values that are not finite, or errors below 0.
    """

    features: Tensor
    layer: Tensor
    trajectory: Tensor
    reuse_error: Tensor
    metadata: dict[str, Any] = field(default_factory=dict)
    final_reuse_error: Tensor = NOT_MEASURED

    def __post_init__(self) -> None:
        if self.final_reuse_error is NOT_MEASURED:
            object.__setattr__(self, "final_reuse_error", NOT_MEASURED.expand(len(self.reuse_error)))
        for name, dtype in COLUMNS.items():
            column = torch.as_tensor(getattr(self, name)).to(dtype)
            object.__setattr__(self, name, column)
            shape = (len(self.reuse_error), len(FEATURES)) if name == "features" else (len(self.reuse_error),)
            if tuple(column.shape) != shape:
                raise InvalidValue(f"{name} has shape {tuple(column.shape)}; allowed: {shape}")
        for name in ("features", "reuse_error"):
            if not getattr(self, name).isfinite().all():
                raise InvalidValue(f"{name} has entries that are not finite; allowed: finite numbers")
        if len(self.reuse_error) and self.reuse_error.min() < 0:
            raise InvalidValue(
                f"reuse_error = {float(self.reuse_error.min())!r} is not allowed; allowed: 0 or more"
            )

    def __getitem__(self, rows: Tensor) -> Trace:
        """The rows of a mask or an index, `[n]` or `[m]`."""
        return Trace(**{name: getattr(self, name)[rows] for name in COLUMNS}, metadata=self.metadata)

    def save(self, path: str | Path) -> None:
        """Write a safetensors file: a tensor for each column, the metadata as JSON in its header.

        Raises:
            OSError: The file cannot be written; what was there is left as it was.
        """
        tensors = {name: getattr(self, name).contiguous() for name in COLUMNS}
        write_atomic(path, save(tensors, {"dqar_trace": json.dumps(self.metadata)}))

    @classmethod
    def load(cls, path: str | Path) -> Trace:
        """Read what `save` wrote.

        Raises:
            InvalidFile: Another file.
        """
        try:
            if not Path(path).is_file():  # opening a pipe would wait for a writer
                raise OSError("is no regular file")
            with safe_open(path, "pt") as file:
                metadata = json.loads(file.metadata()["dqar_trace"])
                names = set(file.keys())
                columns = {name: name if name in names else _FORMER.get(name, name) for name in COLUMNS}
                rows = {name: file.get_tensor(stored) for name, stored in columns.items()}
                return cls(**rows, metadata=metadata)
        except DQARError as error:
            raise InvalidFile(f"trace = {short_repr(str(path))}: {error}") from error
        except (OSError, SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
            shown = short_repr(str(path))
            raise InvalidFile(f"trace = {shown} is not readable; allowed: a file of `Trace.save`") from error
