"""What a generation brings from the device to the host: each function waits for it once at most."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dqar.core.snr import as_array


def to_host(*groups: list[Tensor | None]) -> list[npt.NDArray[np.float64]]:
    """Groups of scalar tensors as arrays, nan for None, in one transfer; none where all are None."""
    present = [t for group in groups for t in group if t is not None]
    values = iter(torch.stack(present).tolist() if present else ())
    return [np.array([np.nan if t is None else next(values) for t in group]) for group in groups]


def first_look(latent: Tensor, timestep: Any) -> tuple[float, bool]:
    """A generation's first timestep, and whether its batch is two equal guidance halves: one sync."""
    first = torch.as_tensor(timestep, device=latent.device).flatten()[0].double()
    if len(latent) % 2:
        return float(first), False
    one, other = latent.chunk(2)
    value, guided = torch.stack((first, (one == other).all().double())).tolist()
    return value, bool(guided)


def begins_at(timesteps: Any, first: float) -> int:
    """Where a generation that begins at timestep `first` begins in the schedule; 0 if it is not in it."""
    found = np.flatnonzero(as_array(timesteps) == first)
    return int(found[0]) if len(found) else 0
