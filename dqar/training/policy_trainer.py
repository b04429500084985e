"""Trains a reuse policy offline: harmless or not by a damage budget, judged on trajectories unseen."""

from __future__ import annotations

import copy
import logging
import math
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from dqar.policy.mlp_policy import ReusePolicy
from dqar.training.traces import Trace

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Figures:
    """What a training came to; all but `threshold` are of the validation trajectories."""

    budget: float  # mean damage allowed to the reused rows
    roc_auc: float  # of harmless against harmful; nan where all rows are one of them
    threshold: float  # the lowest probability to reuse at, found on the training trajectories
    reuse_ratio: float  # rows at or above it / all
    damage: float  # mean damage of those rows
    best_ratio: float  # the most rows that knowing each one's damage allows within the budget / all
    epochs: int  # run until the validation loss stopped to fall


class PolicyTrainer:
    """Fits `policy` to a trace, from fresh weights drawn by `seed`.

    A row is harmless where its damage is at most `budget`. The loss is binary cross-entropy with each
    harmful row weighed by damage / budget, from 1 to `max_weight`: a false reuse costs what it breaks.
    Whole trajectories, `validation_fraction` of them, are held out; training stops when their loss has
    not fallen for `patience` epochs, and the best weights are kept. Raises `ValueError` for a number out
    of range.
    """

    def __init__(
        self,
        policy: ReusePolicy,
        budget: float,
        *,
        epochs: int = 100,
        patience: int = 10,
        batch_size: int = 1024,
        learning_rate: float = 1e-3,
        max_weight: float = 10.0,
        validation_fraction: float = 0.2,
        seed: int = 0,
    ) -> None:
        positive = {"budget": budget, "epochs": epochs, "patience": patience, "batch_size": batch_size}
        for name, value in (positive | {"learning_rate": learning_rate}).items():
            if not 0 < value < math.inf:
                raise ValueError(f"{name} = {value!r} is not allowed; allowed: a number above 0")
        self.policy, self.budget, self.max_weight = policy, budget, max_weight
        self.epochs, self.patience, self.batch_size = epochs, patience, batch_size
        self.learning_rate, self.seed = learning_rate, seed
        self.validation_fraction = validation_fraction

    def fit(self, trace: Trace, progress: bool = False) -> Figures:
        """Train, set the policy's threshold and figures, and leave it in evaluation mode."""
        held_out = split_by_trajectory(trace.trajectory, self.validation_fraction, self.seed)
        training, validation = trace[~held_out], trace[held_out]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            epochs = self._optimise(training, validation, progress)
        figures = self._judge(training, validation, epochs)
        self.policy.threshold, self.policy.metrics = figures.threshold, asdict(figures)
        log.info("policy: %s", figures)
        return figures

    def weights(self, damage: Tensor) -> Tensor:
        """What an error on each row costs, `[n]`: 1 where harmless, more with the damage elsewhere."""
        return (damage / self.budget).clamp(1.0, self.max_weight)

    def loss(self, rows: Trace) -> Tensor:
        """The weighted cross-entropy of `rows`."""
        logits = self.policy.logits(rows.features, rows.layer)
        weights = self.weights(rows.damage)
        harmless = (rows.damage <= self.budget).float()
        return F.binary_cross_entropy_with_logits(logits, harmless, weights)

    def _optimise(self, training: Trace, validation: Trace, progress: bool) -> int:
        self._initialise(training)
        optimiser = torch.optim.AdamW(self.policy.parameters(), self.learning_rate)
        best, best_state, best_epoch, epoch = math.inf, copy.deepcopy(self.policy.state_dict()), 0, 0
        for epoch in (bar := tqdm(range(self.epochs), desc="policy", disable=not progress)):
            self._epoch(training, optimiser)
            loss = self._validate(validation)
            bar.set_postfix(loss=f"{loss:.4f}")
            if loss < best:
                best, best_state, best_epoch = loss, copy.deepcopy(self.policy.state_dict()), epoch
            if epoch - best_epoch >= self.patience:
                break
        self.policy.load_state_dict(best_state)
        return epoch + 1

    def _initialise(self, training: Trace) -> None:
        for module in self.policy.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                module.reset_parameters()
        self.policy.fit_standardisation(training.features)

    def _epoch(self, training: Trace, optimiser: torch.optim.Optimizer) -> None:
        self.policy.train()
        for rows in torch.randperm(len(training.damage)).split(self.batch_size):
            optimiser.zero_grad()
            self.loss(training[rows]).backward()
            optimiser.step()

    @torch.no_grad()
    def _validate(self, validation: Trace) -> float:
        self.policy.eval()
        return float(self.loss(validation))

    @torch.no_grad()
    def _judge(self, training: Trace, validation: Trace, epochs: int) -> Figures:
        self.policy.eval()
        known, scores = (self.policy.logits(t.features, t.layer).sigmoid() for t in (training, validation))
        threshold = budget_threshold(known.numpy(), training.damage.numpy(), self.budget)
        reused = scores >= threshold
        damage = validation.damage
        best = budget_threshold(-damage.numpy(), damage.numpy(), self.budget)
        return Figures(
            budget=self.budget,
            roc_auc=roc_auc(scores.numpy(), (damage <= self.budget).numpy()),
            threshold=threshold,
            reuse_ratio=float(reused.float().mean()),
            damage=float(damage[reused].mean()) if reused.any() else 0.0,
            best_ratio=float((-damage >= best).float().mean()),
            epochs=epochs,
        )


def split_by_trajectory(trajectory: Tensor, fraction: float, seed: int = 0) -> Tensor:
    """Which rows to hold out, bool `[n]`: all rows of `fraction` of the trajectories, at least one.

    Raises `ValueError` for fewer than two trajectories, or a fraction that leaves none to train on.
    """
    names = trajectory.unique()
    count = max(1, round(fraction * len(names)))
    if len(names) < 2 or not 0 < fraction < 1 or count >= len(names):
        raise ValueError(
            f"validation_fraction = {fraction!r} of {len(names)} trajectories is not allowed; "
            "allowed: between 0 and 1, with a trajectory left on either side"
        )
    order = torch.randperm(len(names), generator=torch.Generator().manual_seed(seed))
    return torch.isin(trajectory, names[order[:count]])


def roc_auc(scores: npt.NDArray[np.floating], positive: npt.NDArray[np.bool_]) -> float:
    """Area under the ROC curve: the probability that a positive outscores a negative, ties half.

    From ranks, (sum of positive ranks - P (P + 1) / 2) / (P N) (Mann & Whitney 1947); nan without both.
    """
    _, index, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (counts.cumsum() - (counts - 1) / 2)[index]  # equal scores share their mean rank
    p, n = int(positive.sum()), int((~positive).sum())
    return float((ranks[positive].sum() - p * (p + 1) / 2) / (p * n)) if p and n else math.nan


def budget_threshold(
    scores: npt.NDArray[np.floating], damage: npt.NDArray[np.floating], budget: float
) -> float:
    """The lowest score such that the rows at or above it have a mean damage of at most `budget`.

    Above every score where no row may be reused.
    """
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    mean = damage[order].astype(np.float64).cumsum() / np.arange(1, len(order) + 1)
    last_of_ties = np.append(ranked[1:] != ranked[:-1], True)
    within = np.flatnonzero((mean <= budget) & last_of_ties)
    return float(ranked[within[-1]]) if len(within) else float(np.nextafter(ranked[0], np.inf))
