"""The learned policy against what needs no training, at equal measured reuse."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bench.errors import BadInput
from bench.machine import provenance
from bench.pipeline import models
from bench.pipeline.session import Session
from bench.spec.run_spec import shown_model
from bench.stats import mean_interval
from bench.studies.policy.comparison import (
    POLICY,
    Candidate,
    EqualReuse,
    Floats,
    Measured,
    candidates,
    enabled,
)
from bench.studies.policy.session import subjects
from dqar import DQARConfig
from dqar.policy.mlp_policy import ReusePolicy

TOLERANCE = 0.01  # of the reuse ratio, within which two are called equal
AIM = TOLERANCE / 2  # how near the search comes
MEASUREMENTS = 3  # measurements that a search may take: a replay is near, not exact
BITS = (16, 8)  # of the cache; the parameter is searched at the first


def evaluate(
    session: Session, policy: ReusePolicy, directory: Path, n: int, targets: list[float], max_age: int
) -> Iterator[dict[str, Any]]:
    """Compare the policy with the other candidates at equal measured reuse.

    Args:
        session: a session over images that the policy was not trained on.
        policy: the learned policy.
        directory: the directory that the policy was read from.
        n: number of images to generate.
        targets: reuse ratios, each above 0 and below 1.
        max_age: steps that an entry may be reused for, at least 1.

    Yields:
        All values so far, ready for JSON, after each target; a row a candidate, target and quantisation.
        `over_policy` of a row is its drift less the policy's on the same images: above 0 the policy is
        better; null where not both reach the target.

    Raises:
        BadInput: the policy is for another number of layers.
    """
    _check_fits(session.pipe, directory)
    comparison = EqualReuse(session, directory, n, max_age)
    rows: list[dict[str, Any]] = []
    competitors = candidates(policy, directory, comparison.highest_entropy())
    for target in targets:
        by_bits = {BITS[0]: [match(comparison, candidate, target) for candidate in competitors]}
        by_bits[BITS[1]] = [
            comparison.measure(candidate, at.parameter, BITS[1])
            for candidate, at in zip(competitors, by_bits[BITS[0]], strict=True)
        ]
        rows += [
            _row(candidate, at, measured[0], target, bits)
            for bits, measured in by_bits.items()
            for candidate, at in zip(competitors, measured, strict=True)
        ]
        yield _setup(session, policy, n, max_age) | {"control_drift": comparison.control, "rows": rows}


def match(comparison: EqualReuse, candidate: Candidate, target: float) -> Measured:
    """Find the parameter at which a candidate's measured ratio is nearest to a target.

    Args:
        comparison: the images that the candidate is measured on.
        candidate: one of the ways to choose what is reused.
        target: the reuse ratio to reach, in (0, 1).

    Returns:
        What was measured there.
    """
    aim, measured = target, []
    for _ in range(MEASUREMENTS):
        parameter = search(
            lambda k: comparison.replay(candidate, k), candidate.no_reuse, candidate.most_reuse, aim
        )
        measured.append(comparison.measure(candidate, parameter))
        miss = target - measured[-1].ratio.mean()
        if abs(miss) <= AIM or parameter == candidate.most_reuse:
            break
        aim += miss
    return min(measured, key=lambda each: abs(each.ratio.mean() - target))


def search(ratio: Callable[[float], float], no_reuse: float, most_reuse: float, target: float) -> float:
    """Find the parameter at which a ratio is the target, by bisection.

    Args:
        ratio: rises from `no_reuse` to `most_reuse`, which may be the smaller one.
        no_reuse: the parameter at which nothing is reused.
        most_reuse: the parameter at which most is reused.
        target: the ratio to reach.

    Returns:
        The parameter; `most_reuse` where even that is too little; of a ratio that jumps over the target, the
        nearer side.
    """
    if ratio(most_reuse) <= target:
        return most_reuse
    best, gap = no_reuse, target
    for _ in range(40):
        middle = (no_reuse + most_reuse) / 2
        reached = ratio(middle)
        if abs(reached - target) < gap:
            best, gap = middle, abs(reached - target)
        if gap <= AIM / 4:
            break
        no_reuse, most_reuse = (middle, most_reuse) if reached < target else (no_reuse, middle)
    return best


def _check_fits(pipe: Any, directory: Path) -> None:
    try:
        with enabled(pipe, DQARConfig(use_learned_policy=True, policy_path=str(directory))):
            pass
    except ValueError as error:
        raise BadInput(f"{directory.name}: {error}") from error


def check_unseen(policy: ReusePolicy, seed: int, n: int) -> None:
    """Check that images are none of those that a policy was trained on.

    Args:
        policy: knows the seeds of its trace.
        seed: random seed of the first image.
        n: number of images, of seeds `seed` to `seed + n - 1`.

    Raises:
        BadInput: one of the seeds is the trace's.
    """
    first, last = policy.metrics.get("trace", {}).get("seeds", [0, 0])
    if seed < last and first < seed + n:
        raise BadInput(
            f"seed: {seed} is not allowed; allowed: {last} or more, for the policy saw those before"
        )


def _row(candidate: Candidate, at: Measured, policy: Measured, target: float, bits: int) -> dict[str, Any]:
    equal = _equal(at, target)
    comparable = candidate.name != POLICY and equal and _equal(policy, target)
    return {
        "method": candidate.name,
        "target": target,
        "bits": bits,
        "option": {candidate.parameter: at.parameter},
        "ratio": float(at.ratio.mean()),
        "equal": equal,
        "drift": _interval(at.drift),
        "over_policy": _interval(at.drift - policy.drift) if comparable else None,
        "ratio_per_image": at.ratio.tolist(),
        "drift_per_image": at.drift.tolist(),
    }


def _equal(at: Measured, target: float) -> bool:
    return bool(abs(at.ratio.mean() - target) <= TOLERANCE)


def _interval(values: Floats) -> dict[str, float]:
    return mean_interval(np.asarray(values)).model_dump()


def _setup(session: Session, policy: ReusePolicy, n: int, max_age: int) -> dict[str, Any]:
    spec = session.spec
    return {
        "environment": provenance.provenance(spec.seed),
        "model": {"name": shown_model(spec.model), "fingerprint": models.fingerprint(spec)},
        "policy": {"kind": type(policy).__name__, "metrics": policy.metrics},
        "images": {"n": n, "seeds": [spec.seed, spec.seed + n], **subjects(session)},
        "steps": spec.num_inference_steps,
        "guidance": spec.guidance_scale,
        "max_age": max_age,
    }
