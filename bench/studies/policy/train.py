"""Training on a trace: both kinds of policy, of which the better on unseen trajectories is kept."""

from __future__ import annotations

import dataclasses
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from bench.errors import BadInput
from bench.studies.policy.trace import rank_correlation
from dqar.policy.mlp_policy import FEATURES, LayerWiseReusePolicy, ReusePolicy
from dqar.training.policy_trainer import PolicyTrainer, TrainingMetrics, split_by_trajectory
from dqar.training.traces import Trace

HELD_OUT = 0.2  # of the trajectories
FOLLOWED = 6  # rows that a growth can be fitted on
QUANTILE = 0.3  # of the trace's reuse errors: the budget, where none is given


class Candidate(NamedTuple):
    """A trained policy and its metrics on held-out trajectories."""

    policy: ReusePolicy
    metrics: TrainingMetrics


def train(
    rows: Trace, budget: float | None, final: bool = True, seed: int = 0, progress: bool = True
) -> list[Candidate]:
    """Train both kinds of policy on the same split.

    Args:
        rows: the trace to train on.
        budget: mean reuse error that is allowed, above 0; None: what three rows in ten stay below.
        final: whether the reuse error is that predicted for the final latent, else the step's own.
        seed: random seed of the split and of the initial weights.
        progress: whether to show bars.

    Returns:
        Both, the better by ROC-AUC first; its metrics name the trace.

    Raises:
        BadInput: the trainer refuses the budget or the trace, or too few rows were followed to the final
            latent.
    """
    held_out = _held_out(rows, seed)
    labelled = predicted(rows, ~held_out) if final else rows
    budget = float(labelled.reuse_error.quantile(QUANTILE)) if budget is None else budget
    kinds: list[ReusePolicy] = [ReusePolicy(), LayerWiseReusePolicy(int(rows.layer.max()) + 1)]
    candidates = [Candidate(policy, _fit(policy, labelled, budget, seed, progress)) for policy in kinds]
    candidates.sort(key=lambda candidate: candidate.metrics.roc_auc, reverse=True)
    candidates[0].policy.metrics |= {
        "reuse_error_of": "final latent, predicted" if final else "noise prediction of the step",
        "final_reuse_error": _correlations(rows, labelled, held_out),
        "trace": rows.metadata | {"rows": len(rows.reuse_error)},
        "candidates": {type(c.policy).__name__: asdict(c.metrics) for c in candidates},
    }
    return candidates


def predicted(rows: Trace, known: Tensor) -> Trace:
    """Predict the reuse error of the final latent that each step's error is expected to cause.

    Reuse error at one step grows or fades on the way: log(final / step) is fitted by a cubic in t / T on rows
    that were followed to the end.

    Args:
        rows: the n rows of a trace.
        known: the rows that may be fitted on, bool `[n]`.

    Returns:
        The same rows with that reuse error.

    Raises:
        BadInput: fewer than FOLLOWED of those rows were followed to the end.
    """
    time = rows.features[:, FEATURES.index("timestep")].numpy()
    usable = (
        known & rows.final_reuse_error.isfinite() & (rows.reuse_error > 0) & (rows.final_reuse_error > 0)
    ).numpy()
    if usable.sum() < FOLLOWED:
        raise BadInput(
            f"trace: {usable.sum()} usable final reuse errors; needed: {FOLLOWED} or more, or --step"
        )
    growth = np.log(rows.final_reuse_error.numpy()[usable] / rows.reuse_error.numpy()[usable])
    fit = np.polynomial.Polynomial.fit(time[usable], growth, 3)
    return dataclasses.replace(rows, reuse_error=rows.reuse_error * torch.from_numpy(np.exp(fit(time))))


def load_trace(path: Path) -> Trace:
    """Read a trace.

    Args:
        path: the file.

    Returns:
        Its rows.

    Raises:
        BadInput: it is none.
    """
    try:
        return Trace.load(path)
    except ValueError as error:
        raise BadInput(f"{path.name}: {error}; first: python -m bench policy trace") from error


def load_policy(directory: Path) -> ReusePolicy:
    """Read a policy.

    Args:
        directory: the one that `save` wrote.

    Returns:
        The policy.

    Raises:
        BadInput: there is none.
    """
    try:
        return ReusePolicy.load(directory)
    except ValueError as error:
        raise BadInput(f"{directory.name}: {error}") from error


def _held_out(rows: Trace, seed: int) -> Tensor:
    """The rows that the trainer will hold out, bool [n]."""
    try:
        return split_by_trajectory(rows.trajectory, HELD_OUT, seed)
    except ValueError as error:
        raise BadInput(f"trace: {error}") from error


def _fit(policy: ReusePolicy, rows: Trace, budget: float, seed: int, progress: bool) -> TrainingMetrics:
    try:
        trainer = PolicyTrainer(policy, budget, validation_fraction=HELD_OUT, seed=seed)
    except ValueError as error:
        raise BadInput(f"train: {error}") from error
    return trainer.fit(rows, progress)


def _correlations(rows: Trace, labelled: Trace, held_out: Tensor) -> dict[str, float]:
    """Spearman's with the final reuse error: the step's own over all rows, the label's on unseen ones."""
    step, n = rank_correlation(rows)
    label, m = rank_correlation(labelled[held_out])
    return {"spearman": step, "rows": n, "label_spearman": label, "label_rows": m}
