"""What a generation brings from the device to the host: each function waits for the device at most once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


class FirstLook(NamedTuple):
    """What the first call of a generation shows."""

    timestep: float  # nan where it differs from sample to sample, as in training
    equal_halves: bool  # the batch is the same latents twice


def to_host(*groups: Sequence[Tensor | None]) -> list[npt.NDArray[np.float64]]:
    """Read scalar tensors in one transfer; none where all are None.

    Args:
        *groups: Scalar tensors of one device, or None.

    Returns:
        One float64 array a group, of the group's length; nan for None.
    """
    present = [t for group in groups for t in group if t is not None]
    values = iter(torch.stack([t.float() for t in present]).tolist() if present else ())
    return [np.array([np.nan if t is None else next(values) for t in group]) for group in groups]


def first_look(latent: Tensor | Sequence[Tensor], timestep: Any) -> FirstLook:
    """Read a call's timestep, and whether its batch is two equal halves, in one transfer.

    Args:
        latent: `[batch, ...]`, or a list of one latent a sample.
        timestep: A number or a tensor. One value a token takes part with its largest, for tokens that
            are given as a condition are at timestep 0.

    Returns:
        Timestep and halves.
    """
    value = host_value(timestep)
    read = [] if value is not None else _extremes(timestep)
    halves = _halves(latent)
    if halves is not None:
        read.append((halves[0] == halves[1]).all().double())
    values = torch.stack(read).tolist() if read else []
    if value is None:
        highest, lowest, *values = values
        value = highest if timestep.ndim > 1 or highest == lowest else math.nan
    return FirstLook(value, bool(values and values[0]))


def _halves(latent: Tensor | Sequence[Tensor]) -> Sequence[Tensor] | None:
    if len(latent) % 2:
        return None
    if not isinstance(latent, Tensor):
        if any(t.shape != latent[0].shape for t in latent):
            return None
        latent = torch.stack(list(latent))
    return latent.chunk(2)


def _extremes(timestep: Tensor) -> list[Tensor]:
    times = timestep.double().flatten()
    return [times.max(), times.min()]


def host_value(timestep: Any) -> float | None:
    """The timestep of a call, where the host knows it without asking a device.

    Args:
        timestep: A number or a tensor. One value a token takes part with its largest.

    Returns:
        None where it is on a device; nan where it differs from sample to sample, as in training.
    """
    if not isinstance(timestep, Tensor):
        return float(timestep)
    if not timestep.is_cpu:
        return None
    if timestep.ndim == 0:
        return float(timestep)
    values = timestep.tolist() if timestep.ndim == 1 else timestep.flatten().tolist()
    same = values.count(values[0]) == len(values)
    return float(values[0] if same else max(values) if timestep.ndim > 1 else math.nan)
