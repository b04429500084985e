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
from bench.studies.policy.comparison import POLICY, Arena, Candidate, Floats, Measured, candidates, enabled
from dqar import DQARConfig
from dqar.policy.mlp_policy import ReusePolicy

TOLERANCE = 0.01  # of the reuse ratio, within which two are called equal
AIM = TOLERANCE / 2  # how near the search comes
TRIES = 3  # measurements that a search may take: a replay is near, not exact
BITS = (16, 8)  # of the cache; the parameter is searched at the first


def evaluate(
    session: Session, policy: ReusePolicy, folder: Path, n: int, targets: list[float], max_age: int
) -> Iterator[dict[str, Any]]:
    """All figures so far, ready for JSON, after each target; a row a candidate, target and quantisation.

    `over_policy` of a row is its drift less the policy's on the same images: above 0 the policy is
    better; null where not both reach the target. BadInput where the policy is for another number of layers.
    """
    _check_fits(session.pipe, folder)
    arena = Arena(session, folder, n, max_age)
    rows: list[dict[str, Any]] = []
    competitors = candidates(policy, folder, arena.highest_entropy())
    for target in targets:
        found = {BITS[0]: [match(arena, who, target) for who in competitors]}
        found[BITS[1]] = [
            arena.measure(who, at.parameter, BITS[1])
            for who, at in zip(competitors, found[BITS[0]], strict=True)
        ]
        rows += [
            _row(who, at, made[0], target, bits)
            for bits, made in found.items()
            for who, at in zip(competitors, made, strict=True)
        ]
        yield _setting(session, policy, n, max_age) | {"control_drift": arena.control, "rows": rows}


def match(arena: Arena, who: Candidate, target: float) -> Measured:
    """The candidate at the parameter where its measured ratio is nearest to `target`."""
    aim, tried = target, []
    for _ in range(TRIES):
        parameter = search(lambda k: arena.replay(who, k), who.nothing, who.most, aim)
        tried.append(arena.measure(who, parameter))
        miss = target - tried[-1].ratio.mean()
        if abs(miss) <= AIM or parameter == who.most:
            break
        aim += miss
    return min(tried, key=lambda found: abs(found.ratio.mean() - target))


def search(ratio: Callable[[float], float], nothing: float, most: float, target: float) -> float:
    """The parameter between its two ends at which `ratio`, rising from one to the other, is `target`.

    `most` where even that is too little; of a ratio that jumps over the target, the nearer side.
    """
    if ratio(most) <= target:
        return most
    best, gap = nothing, target
    for _ in range(40):
        middle = (nothing + most) / 2
        found = ratio(middle)
        if abs(found - target) < gap:
            best, gap = middle, abs(found - target)
        if gap <= AIM / 4:
            break
        nothing, most = (middle, most) if found < target else (nothing, middle)
    return best


def _check_fits(pipe: Any, folder: Path) -> None:
    try:
        with enabled(pipe, DQARConfig(use_learned_policy=True, policy_path=str(folder))):
            pass
    except ValueError as error:
        raise BadInput(f"{folder.name}: {error}") from error


def check_unseen(policy: ReusePolicy, seed: int, n: int) -> None:
    """BadInput where one of the seeds `seed` to `seed + n - 1` is of a trace that `policy` learned from."""
    first, last = policy.metrics.get("trace", {}).get("seeds", [0, 0])
    if seed < last and first < seed + n:
        raise BadInput(
            f"seed: {seed} is not allowed; allowed: {last} or more, for the policy saw those before"
        )


def _row(who: Candidate, at: Measured, policy: Measured, target: float, bits: int) -> dict[str, Any]:
    equal = _equal(at, target)
    comparable = who.name != POLICY and equal and _equal(policy, target)
    return {
        "method": who.name,
        "target": target,
        "bits": bits,
        "option": {who.parameter: at.parameter},
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


def _setting(session: Session, policy: ReusePolicy, n: int, max_age: int) -> dict[str, Any]:
    spec = session.spec
    return {
        "environment": provenance.provenance(spec.seed),
        "model": {"name": shown_model(spec.model), "fingerprint": models.fingerprint(spec)},
        "policy": {"kind": type(policy).__name__, "figures": policy.metrics},
        "images": {"n": n, "seeds": [spec.seed, spec.seed + n], "classes": session.labels},
        "steps": spec.num_inference_steps,
        "guidance": spec.guidance_scale,
        "max_age": max_age,
    }
