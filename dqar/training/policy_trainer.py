"""Trains a reuse policy offline: safe or not by a budget, measured on unseen trajectories."""

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

from dqar.errors import InvalidValue, invalid_value
from dqar.policy.mlp_policy import ReusePolicy
from dqar.training.traces import Trace
from dqar.validation import count, is_number

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingMetrics:
    """What a training reached; all but `threshold` are of the validation trajectories.

    Attributes:
        budget: Largest mean reuse error of the reused rows.
        roc_auc: Of safe against unsafe rows; nan where all rows are one of them.
        threshold: The lowest probability to reuse at, found on the training trajectories.
        reuse_ratio: Rows at or above it / all.
        reuse_error: Mean reuse error of those rows.
        best_ratio: The most rows that the budget allows when each one's error is known / all.
        epochs: Epochs that ran before the validation loss stopped falling.
    """

    budget: float
    roc_auc: float
    threshold: float
    reuse_ratio: float
    reuse_error: float
    best_ratio: float
    epochs: int


class PolicyTrainer:
    """Fits a policy to a trace, from fresh weights.

    A row is safe where its reuse error is at most `budget`. The loss is binary cross-entropy with each unsafe
    row weighted by error / budget, from 1 to `max_weight`: a false reuse costs what it breaks. Training stops
    when the loss on held-out trajectories has not fallen for `patience` epochs; the best weights are kept.

    Args:
        policy: The policy to train, in place.
        budget: Largest mean reuse error of the reused rows, in the unit of the trace.
        epochs: Most epochs.
        patience: Epochs without progress after which training stops.
        batch_size: Rows of an optimiser step.
        learning_rate: Of AdamW.
        max_weight: Largest weight of a row.
        validation_fraction: Share of the trajectories that are held out, each as a whole.
        seed: Random seed of weights, split and order.

    Raises:
        InvalidValue: A number out of range.
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
        for name, value in {"epochs": epochs, "patience": patience, "batch_size": batch_size}.items():
            count(1).check(name, value)
        for name, number in {"budget": budget, "learning_rate": learning_rate}.items():
            if not (is_number(number) and 0 < number < math.inf):
                raise invalid_value(name, number, "a number above 0")
        if not (is_number(max_weight) and 1 <= max_weight < math.inf):
            raise invalid_value("max_weight", max_weight, "a number from 1 up")
        self.policy, self.budget, self.max_weight = policy, budget, max_weight
        self.epochs, self.patience, self.batch_size = epochs, patience, batch_size
        self.learning_rate, self.seed = learning_rate, seed
        self.validation_fraction = validation_fraction

    def fit(self, trace: Trace, progress: bool = False) -> TrainingMetrics:
        """Train the policy, set its threshold and metrics, and leave it in evaluation mode.

        Args:
            trace: Rows of at least two trajectories.
            progress: Show a progress bar.

        Returns:
            What was reached, as stored in the policy's `metrics`.

        Raises:
            InvalidValue: `validation_fraction` leaves no trajectory on one side, or the trace has layers
                that the policy has not.
        """
        layers = getattr(self.policy, "num_layers", None)
        if layers is not None and len(trace.layer) and trace.layer.max() >= layers:
            raise invalid_value("layer", int(trace.layer.max()), f"below num_layers = {layers} of the policy")
        held_out = split_by_trajectory(trace.trajectory, self.validation_fraction, self.seed)
        training, validation = trace[~held_out], trace[held_out]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            epochs = self._optimise(training, validation, progress)
        metrics = self._evaluate(training, validation, epochs)
        self.policy.threshold, self.policy.metrics = metrics.threshold, asdict(metrics)
        log.info("policy: %s", metrics)
        return metrics

    def weights(self, reuse_error: Tensor) -> Tensor:
        """Weight of each row in the loss: 1 where safe, above in proportion to the reuse error.

        Args:
            reuse_error: `[n]`, in the unit of the budget.

        Returns:
            `[n]`, from 1 to `max_weight`.
        """
        return (reuse_error / self.budget).clamp(1.0, self.max_weight)

    def loss(self, rows: Trace) -> Tensor:
        """The weighted binary cross-entropy.

        Args:
            rows: Rows of a trace, at least one.

        Returns:
            A scalar tensor, with gradients where they are on.
        """
        logits = self.policy.logits(rows.features, rows.layer)
        weights = self.weights(rows.reuse_error)
        safe = (rows.reuse_error <= self.budget).float()
        return F.binary_cross_entropy_with_logits(logits, safe, weights)

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
        for rows in torch.randperm(len(training.reuse_error)).split(self.batch_size):
            optimiser.zero_grad()
            self.loss(training[rows]).backward()
            optimiser.step()

    @torch.no_grad()
    def _validate(self, validation: Trace) -> float:
        self.policy.eval()
        return float(self.loss(validation))

    @torch.no_grad()
    def _evaluate(self, training: Trace, validation: Trace, epochs: int) -> TrainingMetrics:
        self.policy.eval()
        known, scores = (self.policy.logits(t.features, t.layer).sigmoid() for t in (training, validation))
        threshold = budget_threshold(known.numpy(), training.reuse_error.numpy(), self.budget)
        reused = scores >= threshold
        reuse_error = validation.reuse_error
        best = budget_threshold(-reuse_error.numpy(), reuse_error.numpy(), self.budget)
        return TrainingMetrics(
            budget=self.budget,
            roc_auc=roc_auc(scores.numpy(), (reuse_error <= self.budget).numpy()),
            threshold=threshold,
            reuse_ratio=float(reused.float().mean()),
            reuse_error=float(reuse_error[reused].mean()) if reused.any() else 0.0,
            best_ratio=float((-reuse_error >= best).float().mean()),
            epochs=epochs,
        )


def split_by_trajectory(trajectory: Tensor, fraction: float, seed: int = 0) -> Tensor:
    """Choose whole trajectories to hold out.

    Args:
        trajectory: Number of each row's trajectory, `[n]`.
        fraction: Share of the trajectories, at least one.
        seed: Random seed of the choice.

    Returns:
        True for the rows to hold out, `[n]`.

    Raises:
        InvalidValue: Fewer than two trajectories, or a fraction that leaves none to train on.
    """
    names = trajectory.unique()
    count = max(1, round(fraction * len(names)))
    if len(names) < 2 or not 0 < fraction < 1 or count >= len(names):
        raise InvalidValue(
            f"validation_fraction = {fraction!r} of {len(names)} trajectories is not allowed; "
            "allowed: between 0 and 1, with a trajectory left on either side"
        )
    order = torch.randperm(len(names), generator=torch.Generator().manual_seed(seed))
    return torch.isin(trajectory, names[order[:count]])


def roc_auc(scores: npt.NDArray[np.floating], positive: npt.NDArray[np.bool_]) -> float:
    """Area under the ROC curve: the probability that a positive outscores a negative, ties half.

    From ranks, (sum of positive ranks - P (P + 1) / 2) / (P N) (Mann & Whitney 1947).

    Args:
        scores: `[n]`, higher = more likely positive.
        positive: `[n]`, True = positive.

    Returns:
        0 to 1; nan where all rows are of one kind.
    """
    _, index, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (counts.cumsum() - (counts - 1) / 2)[index]  # equal scores share their mean rank
    p, n = int(positive.sum()), int((~positive).sum())
    return float((ranks[positive].sum() - p * (p + 1) / 2) / (p * n)) if p and n else math.nan


def budget_threshold(
    scores: npt.NDArray[np.floating], reuse_error: npt.NDArray[np.floating], budget: float
) -> float:
    """The lowest score at or above which rows have a mean reuse error of at most `budget`.

    Args:
        scores: `[n]`, higher = reuse first.
        reuse_error: `[n]`.
        budget: Largest mean reuse error.

    Returns:
        The score; above every one where no row may be reused.
    """
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    mean = reuse_error[order].astype(np.float64).cumsum() / np.arange(1, len(order) + 1)
    last_of_ties = np.append(ranked[1:] != ranked[:-1], True)
    within = np.flatnonzero((mean <= budget) & last_of_ties)
    return float(ranked[within[-1]]) if len(within) else float(np.nextafter(ranked[0], np.inf))
