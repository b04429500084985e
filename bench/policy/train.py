"""Training on a trace: both kinds of policy, of which the better on unseen trajectories is kept."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from bench.errors import BadInput
from bench.policy.trace import rank_correlation
from dqar.policy.mlp_policy import LayerWiseReusePolicy, ReusePolicy
from dqar.training.policy_trainer import Figures, PolicyTrainer
from dqar.training.traces import Trace

WEIGHTS = "policy.safetensors"
QUANTILE = 0.3  # of the trace's damages: the budget, where none is given


class Candidate(NamedTuple):
    """A trained policy and what it came to."""

    policy: ReusePolicy
    figures: Figures


def train(rows: Trace, budget: float | None, seed: int = 0, progress: bool = True) -> list[Candidate]:
    """Both policies trained on the same split, the better by ROC-AUC first; its figures name the trace.

    Without a `budget` it is the damage that three rows in ten stay below. BadInput where the
    trainer refuses the budget or the trace.
    """
    budget = float(rows.damage.quantile(QUANTILE)) if budget is None else budget
    layers = int(rows.layer.max()) + 1
    kinds: list[ReusePolicy] = [ReusePolicy(), LayerWiseReusePolicy(layers)]
    found = [Candidate(policy, _fit(policy, rows, budget, seed, progress)) for policy in kinds]
    found.sort(key=lambda candidate: candidate.figures.roc_auc, reverse=True)
    found[0].policy.figures |= _provenance(rows, found)
    return found


def load_trace(path: Path) -> Trace:
    """Read a trace; BadInput where it is none."""
    try:
        return Trace.load(path)
    except ValueError as error:
        raise BadInput(f"{path.name}: {error}; first: python -m bench policy trace") from error


def load_policy(path: Path) -> tuple[ReusePolicy, Path]:
    """Read the policy of a folder or a weight file, and where its weights are; else BadInput."""
    weights = path / WEIGHTS if path.suffix != ".safetensors" else path
    try:
        return ReusePolicy.load(weights), weights
    except ValueError as error:
        raise BadInput(f"{weights.name}: {error}") from error


def _fit(policy: ReusePolicy, rows: Trace, budget: float, seed: int, progress: bool) -> Figures:
    try:
        return PolicyTrainer(policy, budget, seed=seed).fit(rows, progress)
    except ValueError as error:
        raise BadInput(f"trace: {error}") from error


def _provenance(rows: Trace, found: list[Candidate]) -> dict[str, Any]:
    correlation, n = rank_correlation(rows)
    return {
        "trace": rows.metadata | {"rows": len(rows.damage)},
        "final_damage": {"spearman": correlation, "rows": n},
        "candidates": {type(c.policy).__name__: asdict(c.figures) for c in found},
    }
