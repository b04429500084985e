"""Traces: for each layer and step what the policy sees, and the reuse error that was measured."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from dqar.errors import DQARError, InvalidFile, InvalidValue, short_repr
from dqar.policy.mlp_policy import FEATURES
from dqar.utils.atomic import write_atomic
from dqar.utils.foreign import parse_json, read_bytes

COLUMNS = {
    "features": torch.float32,
    "layer": torch.int64,
    "trajectory": torch.int64,
    "reuse_error": torch.float32,
    "final_reuse_error": torch.float32,
}
NOT_MEASURED = torch.tensor(torch.nan)
MAX_BYTES = 2**30  # a row takes 40 bytes
MAX_HEADER_BYTES = 2**20


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
        if len(self.layer) and self.layer.min() < 0:
            raise InvalidValue(f"layer = {int(self.layer.min())} is not allowed; allowed: 0 or more")
        if self.final_reuse_error.isinf().any():
            raise InvalidValue("final_reuse_error has infinite entries; allowed: finite numbers, or nan")
        if len(self.reuse_error) and self.reuse_error.min() < 0:
            raise InvalidValue(
                f"reuse_error = {float(self.reuse_error.min())!r} is not allowed; allowed: 0 or more"
            )

    def __getitem__(self, rows: Tensor) -> Trace:
        """The rows of a mask or an index, `[n]` or `[m]`."""
        return Trace(**{name: getattr(self, name)[rows] for name in COLUMNS}, metadata=self.metadata)

    def save(self, path: str | Path) -> None:
        """Write a safetensors file: a tensor for each column, the metadata as JSON in its header.

        Args:
            path: The file; it is replaced if it is there, whole or not at all.

        Raises:
            OSError: The file cannot be written; what was there is left as it was.
        """
        tensors = {name: getattr(self, name).contiguous() for name in COLUMNS}
        write_atomic(path, save(tensors, {"dqar_trace": json.dumps(self.metadata)}))

    @classmethod
    def load(cls, path: str | Path) -> Trace:
        """Read what `save` wrote.

        Args:
            path: The file.

        Returns:
            The trace on the CPU.

        Raises:
            InvalidFile: Another file, or more than `MAX_BYTES`.
        """
        content = read_bytes(path, "trace", MAX_BYTES)
        try:
            metadata = _metadata(content, path)
            tensors = load(content)
            return cls(**{name: tensors[name] for name in COLUMNS}, metadata=metadata)
        except InvalidFile:
            raise
        except DQARError as error:
            raise InvalidFile(f"trace = {short_repr(str(path))}: {error}") from error
        except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
            shown = short_repr(str(path))
            raise InvalidFile(f"trace = {shown} is not readable; allowed: a file of `Trace.save`") from error


def _metadata(content: bytes, path: str | Path) -> dict[str, Any]:
    """What `save` wrote of a trace's origin: JSON in the header that precedes the tensors."""
    length = int.from_bytes(content[:8], "little")
    if length > min(MAX_HEADER_BYTES, len(content) - 8):
        raise ValueError("no header of safetensors")
    header = parse_json(content[8 : 8 + length], path, "trace")
    metadata = parse_json(header["__metadata__"]["dqar_trace"].encode(), path, "trace")
    if not isinstance(metadata, dict):
        raise TypeError("the metadata is no mapping")
    return metadata
