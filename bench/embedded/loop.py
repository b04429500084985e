"""A resumable training loop whose cosine schedule follows the share of a time budget."""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from bench.embedded.workers import Workers

log = logging.getLogger(__name__)

WARMUP_SHARE = 0.03
SAVE_EVERY_S = 60.0


@dataclass(kw_only=True)
class Budget:
    """How long to train: busy minutes, at most until a time of day, or a fixed number of steps.

    Only step durations count, each capped at three times the median, so that a paused process
    (or the compilation in its first step) does not eat the budget.
    """

    minutes: float
    until: datetime | None = None
    steps: int | None = None
    spent_s: float = 0.0
    step: int = 0
    _recent: deque[float] = field(default_factory=lambda: deque(maxlen=51))

    def __post_init__(self) -> None:
        if self.minutes <= 0:
            raise ValueError(f"minutes: {self.minutes}; allowed: above 0")
        if self.steps is not None and self.steps < 1:
            raise ValueError(f"steps: {self.steps}; allowed: at least 1")

    def count(self, duration_s: float) -> None:
        """Book one step; the first one, which compiles, is free.

        Args:
            duration_s: how long it took.
        """
        self._recent.append(duration_s)
        self.spent_s += min(duration_s, 3 * median(self._recent)) if self.step else 0.0
        self.step += 1

    def fraction(self) -> float:
        """Compute how much of the training is done.

        Returns:
            The share, in [0, 1].
        """
        if self.steps is not None:
            return min(self.step / self.steps, 1.0)
        left_s = self.minutes * 60 - self.spent_s
        if self.until is not None:
            left_s = min(left_s, (self.until - datetime.now()).total_seconds())
        return self.spent_s / (self.spent_s + left_s) if left_s > 0 else 1.0


def parse_until(clock: str) -> datetime:
    """Parse a time of day.

    Args:
        clock: HH:MM.

    Returns:
        The next moment at which the local clock shows it.

    Raises:
        ValueError: it is no time.
    """
    try:
        time_of_day = datetime.strptime(clock, "%H:%M").time()
    except ValueError:
        raise ValueError(f"--until: {clock!r}; allowed: HH:MM, 00:00 to 23:59") from None
    moment = datetime.combine(datetime.now(), time_of_day)
    return moment if moment > datetime.now() else moment + timedelta(days=1)


def cosine(fraction: float) -> float:
    """Compute the factor of the learning rate: linear warm-up, then half a cosine down to 0.

    Args:
        fraction: share of the training that is done, in [0, 1].

    Returns:
        The factor, in [0, 1].
    """
    if fraction < WARMUP_SHARE:
        return max(fraction / WARMUP_SHARE, 1e-3)
    return 0.5 * (1 + math.cos(math.pi * (fraction - WARMUP_SHARE) / (1 - WARMUP_SHARE)))


def seeded(seed: int, step: int) -> torch.Generator:
    """Make the stream of random numbers of one step: a resumed run draws what an unbroken one would.

    Args:
        seed: random seed of the whole training.
        step: the step's number.

    Returns:
        The stream, on the CPU.
    """
    return torch.Generator().manual_seed(seed * 1_000_003 + step)


def save_atomic(state: dict[str, Any], path: Path) -> None:
    """Write a checkpoint next to its place and rename it: a killed run leaves the old file or the new one.

    Args:
        state: tensors and numbers, nested in dictionaries and lists.
        path: the file; its directory is made where it is missing.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    torch.save(state, temporary)
    temporary.replace(path)


@dataclass(kw_only=True)
class Trainer:
    """AdamW with gradient clipping, an average of the weights (EMA) and atomic checkpoints.

    `loss(number)` returns the scalar loss of one batch, drawn from `seeded(seed, number)`; where one process
    trains, numbers are steps.
    """

    model: nn.Module
    loss: Callable[[int], Tensor]
    budget: Budget
    checkpoint: Path
    learning_rate: float
    weight_decay: float = 0.0
    ema_decay: float = 0.999
    workers: Workers = field(default_factory=Workers)
    history: list[tuple[int, float, float]] = field(default_factory=list)  # step, seconds, loss

    def __post_init__(self) -> None:
        self._parameters = dict(self.model.named_parameters())
        self.ema = {name: p.detach().clone() for name, p in self._parameters.items()}
        self._optimizer = torch.optim.AdamW(
            self._parameters.values(),
            lr=self.learning_rate,
            betas=(0.9, 0.99),
            weight_decay=self.weight_decay,
        )

    def run(self) -> None:
        """Train until the budget is spent; start from the checkpoint if there is one."""
        self._resume()
        saved, smooth = time.monotonic(), math.nan
        with tqdm(total=100, unit="%", desc=self.checkpoint.stem, mininterval=5) as bar:
            while (fraction := self.workers.agree(self.budget.fraction())) < 1.0:
                value = self._step(fraction)
                smooth = value if math.isnan(smooth) else 0.98 * smooth + 0.02 * value
                self._record(smooth)
                bar.set_postfix_str(f"step {self.budget.step} loss {smooth:.4f}", refresh=False)
                bar.update(round(100 * fraction, 1) - bar.n)
                if time.monotonic() - saved > SAVE_EVERY_S:
                    self.save()
                    saved = time.monotonic()
        self.save()

    def _step(self, fraction: float) -> float:
        started = time.monotonic()
        for group in self._optimizer.param_groups:
            group["lr"] = self.learning_rate * cosine(fraction)
        loss = self.loss(self.workers.batch_number(self.budget.step))
        loss.backward()
        self.workers.share_gradients(self._parameters.values())
        nn.utils.clip_grad_norm_(self._parameters.values(), 1.0)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self._average()
        self.budget.count(time.monotonic() - started)
        return float(loss.detach())

    @torch.no_grad()
    def _average(self) -> None:
        step = self.budget.step
        decay = min(self.ema_decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(
            list(self.ema.values()), [p.detach() for p in self._parameters.values()], 1 - decay
        )

    def _record(self, smooth: float) -> None:
        if self.budget.step % 100 == 0:
            self.history.append((self.budget.step, round(self.budget.spent_s, 1), smooth))
            log.info("%s: step %d, %.0f s, loss %.4f", self.checkpoint.stem, *self.history[-1])

    def save(self) -> None:
        """Write the checkpoint, where several processes train by the first of them."""
        if self.workers.rank:
            return
        state = {
            "model": self.model.state_dict(),
            "ema": self.ema,
            "optimizer": self._optimizer.state_dict(),
            "step": self.budget.step,
            "spent_s": self.budget.spent_s,
            "history": self.history,
        }
        save_atomic(state, self.checkpoint)

    def _resume(self) -> None:
        if not self.checkpoint.exists():
            return
        state = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
        self.model.load_state_dict(state["model"])
        self.ema = {name: state["ema"][name].to(p.device) for name, p in self._parameters.items()}
        self._optimizer.load_state_dict(state["optimizer"])
        self.budget.step, self.budget.spent_s = state["step"], state["spent_s"]
        self.history = state["history"]
        log.info("%s: resumed at step %d", self.checkpoint.stem, self.budget.step)


@torch.no_grad()
def load_ema(model: nn.Module, checkpoint: Path) -> dict[str, Any]:
    """Put a checkpoint's averaged weights into a model.

    Args:
        model: the model, which is changed in place.
        checkpoint: as `Trainer.save` wrote it.

    Returns:
        The checkpoint.

    Raises:
        FileNotFoundError: there is none.
    """
    if not checkpoint.exists():
        raise FileNotFoundError(f"{checkpoint}: no checkpoint; train this part first")
    state: dict[str, Any] = torch.load(checkpoint, map_location="cpu", weights_only=True)
    for name, parameter in model.named_parameters():
        parameter.copy_(state["ema"][name])
    return state
