"""Data-parallel training over processes, as `torchrun` starts them; without it there is one."""

from __future__ import annotations

import os
from collections.abc import Iterable

import torch
from torch import Tensor, distributed
from torch.nn import Parameter


class Workers:
    """The processes that train one model together: each takes batches of its own and shares its gradients.

    On a shared CPU several processes of one thread outrun several threads of one process, which wait for
    each other at every operation.
    """

    def __init__(self) -> None:
        self.count = int(os.environ.get("WORLD_SIZE", "1"))
        self.rank = int(os.environ.get("RANK", "0"))
        if self.count > 1 and not distributed.is_initialized():
            distributed.init_process_group("gloo")

    def batch_number(self, step: int) -> int:
        """Number this process's batch in a step: no two processes or steps share one.

        Args:
            step: the step's number.

        Returns:
            The batch's number.
        """
        return step * self.count + self.rank

    def agree(self, value: float) -> float:
        """Share the first process's value.

        Args:
            value: the value of this process.

        Returns:
            The first one's.
        """
        if self.count == 1:
            return value
        shared = torch.tensor(value, dtype=torch.float64)
        distributed.broadcast(shared, src=0)
        return float(shared)

    def share_gradients(self, parameters: Iterable[Parameter]) -> None:
        """Replace every gradient by its mean over the processes.

        Args:
            parameters: the model's parameters, in the same order in all processes.
        """
        if self.count == 1:
            return
        gradients: list[Tensor] = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        distributed.all_reduce(flat)
        flat /= self.count
        start = 0
        for gradient in gradients:
            gradient.copy_(flat[start : start + gradient.numel()].view_as(gradient))
            start += gradient.numel()
