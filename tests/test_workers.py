"""Data-parallel training of the embedded models."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path
from typing import Any

import torch
from torch import distributed, nn

from bench.embedded import loop
from bench.embedded.workers import Workers


def train(checkpoint: Path, batch: int) -> torch.Tensor:
    """The weights after four steps; batch number n holds rows n * batch and on of one fixed table."""
    table = torch.randn(32, 3, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    loop.Trainer(
        model=model,
        loss=lambda number: model(table[number * batch : (number + 1) * batch]).square().mean(),
        budget=loop.Budget(minutes=1, steps=4),
        checkpoint=checkpoint,
        learning_rate=0.1,
    ).run()
    return model.weight.detach()


def one_of_two(rank: int, store: Path, queue: Any) -> None:
    """Train as one of two processes and send what came out."""
    os.environ.update(WORLD_SIZE="2", RANK=str(rank))
    group = distributed.FileStore(str(store), 2)
    distributed.init_process_group("gloo", store=group, rank=rank, world_size=2)
    queue.put((rank, train(store.parent / f"rank{rank}.pt", batch=4).tolist()))
    distributed.destroy_process_group()


def test_two_processes_train_as_one_with_the_whole_batch(tmp_path: Path) -> None:
    """Each takes half of every batch: both end with the weights of a single process; the first one saves."""
    whole = train(tmp_path / "whole.pt", batch=8)
    # Not forks of this process: autograd's threads do not outlive a fork.
    context, started = multiprocessing.get_context("forkserver"), []
    queue: Any = context.SimpleQueue()
    for rank in (0, 1):
        started.append(context.Process(target=one_of_two, args=(rank, tmp_path / "store", queue)))
        started[-1].start()
    halves = dict(queue.get() for _ in started)
    for process in started:
        process.join(60)
        assert process.exitcode == 0
    assert halves[0] == halves[1]
    assert torch.allclose(torch.tensor(halves[0]), whole, atol=1e-6)
    assert (tmp_path / "rank0.pt").exists() and not (tmp_path / "rank1.pt").exists()


def test_one_process_shares_nothing() -> None:
    """Without torchrun's variables steps are batch numbers, and gradients and values stay as they are."""
    workers, weight = Workers(), nn.Parameter(torch.ones(2))
    weight.grad = torch.tensor([3.0, 4.0])
    workers.share_gradients([weight])
    assert workers.batch_number(7) == 7 and workers.agree(0.25) == 0.25
    assert weight.grad.tolist() == [3.0, 4.0]
