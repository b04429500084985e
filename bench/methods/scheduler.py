"""The solver and its steps, which every method may change: a user can combine any cache with any of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

SCHEDULERS = {
    "ddim": "DDIMScheduler",
    "dpm_solver++": "DPMSolverMultistepScheduler",
    "unipc": "UniPCMultistepScheduler",
}
OPTIONS = ("steps", "scheduler")


def check(options: dict[str, Any]) -> None:
    """ValueError unless `steps` is 1 to 1000 and `scheduler` a key of SCHEDULERS, where given."""
    steps, scheduler = options.get("steps"), options.get("scheduler")
    if steps is not None and not (type(steps) is int and 1 <= steps <= 1000):
        raise ValueError(f"steps: {steps!r} is not allowed; allowed: 1 to 1000")
    if scheduler is not None and scheduler not in SCHEDULERS:
        raise ValueError(f"scheduler: {scheduler!r} not known; allowed: {', '.join(SCHEDULERS)}")


@contextmanager
def solver(pipe: Any, options: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Swap the scheduler as `options` say; yields the arguments of the call that differ."""
    before, steps = pipe.scheduler, options.get("steps")
    if options.get("scheduler"):
        pipe.scheduler = from_pipeline(pipe, options["scheduler"])
    try:
        yield {} if steps is None else {"num_inference_steps": steps}
    finally:
        pipe.scheduler = before


def from_pipeline(pipe: Any, name: str | None = None, **changes: Any) -> Any:
    """A fresh scheduler `name`, or of the pipeline's own class, with the configuration (betas, spacing)
    of the pipeline's own but for `changes`."""
    import diffusers

    # Without its private keys: by these, diffusers would replace values that happen to be the old
    # scheduler's defaults (such as its timestep spacing) with the new one's.
    config = {key: v for key, v in pipe.scheduler.config.items() if not key.startswith("_")}
    kind = getattr(diffusers, SCHEDULERS[name]) if name else type(pipe.scheduler)
    return kind.from_config(config | changes)
