"""A made-up suite of the size that the real one has: every method, from low to high drift."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from report_records import limits, made, quality, timing

from bench.record import Mean, Median, Record

OWN = 0.031  # the baseline's drift from the converged trajectory
SOLVERS = {"ddim": "ddim", "dpm": "dpm_solver++", "unipc": "unipc"}
# Speed of the lowest-drift and the highest-drift configuration, drift there, and how many there are.
SWEEPS = {
    ("fewer_steps", "ddim"): (1.5, 4.9, 0.020, 0.16, 6),
    ("fewer_steps", "dpm"): (2.0, 6.1, 0.018, 0.14, 6),
    ("fewer_steps", "unipc"): (2.0, 6.1, 0.017, 0.15, 6),
    ("fora", "ddim"): (1.8, 4.2, 0.036, 0.19, 5),
    ("fora", "dpm"): (3.4, 7.2, 0.085, 0.33, 4),
    ("pab", "ddim"): (1.1, 1.45, 0.030, 0.24, 4),
    ("pab", "dpm"): (2.3, 2.9, 0.061, 0.27, 3),
    ("taylorseer", "ddim"): (1.75, 3.1, 0.012, 0.062, 9),
    ("taylorseer", "dpm"): (3.2, 5.5, 0.046, 0.19, 6),
    ("first_block", "ddim"): (1.2, 2.6, 0.021, 0.22, 5),
    ("first_block", "dpm"): (2.2, 4.2, 0.041, 0.29, 3),
    ("magcache", "ddim"): (1.3, 2.5, 0.025, 0.14, 4),
    ("magcache", "dpm"): (2.4, 4.1, 0.051, 0.21, 3),
    ("fastercache", "ddim"): (1.2, 1.7, 0.028, 0.11, 3),
    ("dbcache", "ddim"): (1.4, 3.0, 0.016, 0.11, 7),
    ("dbcache", "dpm"): (2.6, 5.0, 0.047, 0.21, 4),
    ("dqar", "ddim"): (1.5, 3.3, 0.006, 0.055, 9),
    ("dqar", "dpm"): (2.4, 6.9, 0.019, 0.13, 12),
}


def records() -> list[Record]:
    """About a hundred: the control, and the sweeps."""
    control = quality("baseline", 0.0, OWN, image="baseline.png")
    return [made("baseline", "baseline", 1.001, 0.0, quality=control), *_sweeps()]


def _sweeps() -> Iterator[Record]:
    rng = np.random.default_rng(6)
    for (method, solver), (slow, fast, lowest, highest, n) in SWEEPS.items():
        for i in range(n):
            t = i / (n - 1)
            speed = slow * (fast / slow) ** t * rng.normal(1, 0.02)
            drift = lowest * (highest / lowest) ** t * np.exp(rng.normal(0, 0.08))
            name = f"{method.replace('_', '-')}-{solver}-{variant(method, i, n)}"
            yield configuration(name, method, float(speed), float(drift), solver)


def variant(method: str, i: int, n: int) -> str:
    """What distinguishes one configuration of a sweep from the next."""
    if method == "fewer_steps":
        return str(int(33 - 23 * i / (n - 1)))
    if method == "dqar":
        return f"every{2 + i // 3}-o{i % 3}-" + ("guide" if i % 2 else "mlp")
    return f"n{2 + i // 2}-{'ab'[i % 2]}"


def configuration(
    name: str, method: str, speed: float, drift: float, solver: str = "ddim", **changes: Any
) -> Record:
    """One record: nine pairs that scatter by 3 % around its speed, on a solver."""
    timed = paired(speed, seed=len(name))
    converged = float(np.hypot(0.7 * drift, OWN if solver == "ddim" else 0.7 * OWN))
    lost = quality(
        name, drift, OWN, drift_converged=Mean(mean=converged, low=0.9 * converged, high=1.12 * converged)
    )
    options = {} if solver == "ddim" else {"scheduler": SOLVERS[solver], "steps": 25}
    record = made(name, method, speed, drift, 0.4 if method == "dqar" else 0, timing=timed, quality=lost)
    config = record.config | {"options": options}
    fields = {"config": config, "limits": limits(speed, 1.02 + (speed - 1) * 1.12), **changes}
    return record.model_copy(update=fields)


def paired(speed: float, seed: int = 0, scatter: float = 0.03) -> Any:
    """Timing whose speedup is the median of its own pairs."""
    ratios = speed * (1 + scatter * np.random.default_rng(seed).normal(size=9))
    middle = float(np.median(ratios))
    speedup = Median(median=middle, low=middle * (1 - scatter / 2), high=middle * (1 + scatter / 2))
    pairs = [(2.0, 2.0 / float(ratio)) for ratio in ratios]
    return timing(speed).model_copy(update={"speedup": speedup, "pairs": pairs})
