"""The solver, its steps and where they lie, which every method may change: a user can combine any cache with
any of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from bench.methods.timesteps import TIMESTEPS, check_timesteps, place, timesteps_of
from dqar.core.noise_kind import solves_flow

SCHEDULERS = {
    "ddim": "DDIMScheduler",
    "dpm_solver++": "DPMSolverMultistepScheduler",
    "unipc": "UniPCMultistepScheduler",
    "deis": "DEISMultistepScheduler",
}
FLOW_MATCH = "FlowMatch"  # the beginning of the names of what solves flows alone
EULER = "FlowMatchEulerDiscreteScheduler"  # a flow's own, and what some methods are defined on
OWN = "own"  # in place of a key, where a command takes one: the model's own scheduler
_TIMESTEPS = ("leading", "linspace", "trailing")
# Where the steps lie -> what diffusers calls it. Those that are not spacings of timesteps are of sigmas:
# Karras et al. 2022 (rho = 7), evenly in log sigma, and evenly in log SNR (Lu et al. 2022).
SPACINGS: dict[str, dict[str, Any]] = {
    **{name: {"timestep_spacing": name} for name in _TIMESTEPS},
    "karras": {"use_karras_sigmas": True},
    "exponential": {"use_exponential_sigmas": True},
    "lu": {"use_lu_lambdas": True},
}
# Solver of several orders -> the spacings of sigmas that it has.
SIGMAS: dict[str, tuple[str, ...]] = {
    "dpm_solver++": ("karras", "exponential", "lu"),
    "unipc": ("karras", "exponential"),
    "deis": ("karras", "exponential"),
}
ORDERS = dict.fromkeys(SIGMAS, (1, 2, 3))
OPTIONS = ("steps", "scheduler", "spacing", "solver_order", "shift", TIMESTEPS)


def check(options: dict[str, Any]) -> None:
    """Check the options of the solver, where given.

    Args:
        options: Of which `steps` is 1 to 1000, `scheduler` a key of SCHEDULERS, `spacing` and `solver_order`
            what that scheduler has, `shift` (of a flow's steps) 0.1 to 100, `timesteps` those of a solver of
            several orders; others are not looked at.

    Raises:
        ValueError: Naming the option, its value and what is allowed.
    """
    steps, scheduler = options.get("steps"), options.get("scheduler")
    if steps is not None and not (type(steps) is int and 1 <= steps <= 1000):
        raise ValueError(f"steps: {steps!r} is not allowed; allowed: 1 to 1000")
    if scheduler is not None and scheduler not in SCHEDULERS:
        raise ValueError(f"scheduler: {scheduler!r} not known; allowed: {', '.join(SCHEDULERS)}")
    _check_detail("spacing", options, {name: (*_TIMESTEPS, *SIGMAS.get(name, ())) for name in SCHEDULERS})
    _check_detail("solver_order", options, ORDERS)
    shift = options.get("shift")
    if shift is not None and not (type(shift) in (int, float) and 0.1 <= shift <= 100):
        raise ValueError(f"shift: {shift!r} is not allowed; allowed: 0.1 to 100")
    check_timesteps(options, tuple(SIGMAS))


def _check_detail(name: str, options: dict[str, Any], allowed: Mapping[str, Sequence[Any]]) -> None:
    value, scheduler = options.get(name), options.get("scheduler")
    if value is None:
        return
    if scheduler is None:
        raise ValueError(f"{name}: {value!r} needs a scheduler; allowed: one of {', '.join(allowed)}")
    if value not in allowed.get(scheduler, ()) or isinstance(value, bool):
        known = ", ".join(str(one) for one in allowed.get(scheduler, ())) or "none"
        raise ValueError(f"{name}: {value!r} is not allowed; allowed with {scheduler}: {known}")


@contextmanager
def solver(pipe: Any, options: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Swap the scheduler; on leaving the pipeline has its own again.

    Args:
        pipe: A pipeline of diffusers.
        options: As `check` lets them through.

    Yields:
        The arguments of the call that differ.
    """
    before, steps, timesteps = pipe.scheduler, options.get("steps"), timesteps_of(options)
    if options.get("scheduler") or options.get("shift"):
        _check_model(pipe, options)
        own = type(pipe.scheduler).__name__
        pipe.scheduler = from_pipeline(pipe, options.get("scheduler"), **_details(own, options))
    if timesteps:
        place(pipe.scheduler, timesteps)
        steps = len(timesteps)
    try:
        yield {} if steps is None else {"num_inference_steps": steps}
    finally:
        pipe.scheduler = before


def is_flow(pipe: Any) -> bool:
    """Whether a pipeline's scheduler solves a flow.

    Args:
        pipe: A pipeline of diffusers.

    Returns:
        False of schedules that preserve the variance.
    """
    return solves_flow(type(pipe.scheduler).__name__, pipe.scheduler.config)


def shift_of(config: Mapping[str, Any]) -> float:
    """The shift of a flow's steps, which schedulers of flows alone call otherwise than multistep solvers.

    Args:
        config: The fields of a scheduler that solves a flow.

    Returns:
        1 where it has none.
    """
    return float(config.get("shift", config.get("flow_shift", 1.0)))


def _check_model(pipe: Any, options: dict[str, Any]) -> None:
    """ValueError where the options place the steps of another kind of model."""
    if is_flow(pipe) and options.get("spacing") in set(SPACINGS) - set(_TIMESTEPS):
        raise ValueError(f"spacing: {options['spacing']!r} is not allowed on a flow; allowed: shift")
    if not is_flow(pipe) and options.get("shift"):
        raise ValueError(f"shift: {options['shift']!r} is not allowed but on a flow; allowed: spacing")


def _details(own: str, options: dict[str, Any]) -> dict[str, Any]:
    """What diffusers calls the spacing, the order, and the shift of a flow, whose own scheduler is named."""
    order, shift = options.get("solver_order"), options.get("shift")
    of_several = options.get("scheduler") or not own.startswith(FLOW_MATCH)
    spacing = SPACINGS[options["spacing"]] if options.get("spacing") else {}
    flow = {} if shift is None else {"flow_shift" if of_several else "shift": shift}
    return spacing | ({} if order is None else {"solver_order": order}) | flow


def from_pipeline(pipe: Any, name: str | None = None, **changes: Any) -> Any:
    """Make a scheduler with the configuration (betas, spacing) of the pipeline's own.

    Args:
        pipe: A pipeline of diffusers; it keeps its own.
        name: A key of SCHEDULERS; None = the class of the pipeline's own.
        **changes: Fields of the configuration that differ.

    Returns:
        A fresh scheduler, its timesteps not set.
    """
    import diffusers

    # Without its private keys: by these, diffusers would replace values that happen to be the old
    # scheduler's defaults (such as its timestep spacing) with the new one's.
    config = {key: v for key, v in pipe.scheduler.config.items() if not key.startswith("_")}
    kind = getattr(diffusers, SCHEDULERS[name]) if name else type(pipe.scheduler)
    if name and is_flow(pipe):
        return kind(**_of_a_flow(config) | changes)
    return kind.from_config(config | changes)


def _of_a_flow(config: dict[str, Any]) -> dict[str, Any]:
    """The arguments by which a multistep solver solves the flow of a scheduler of either kind."""
    shared = ("num_train_timesteps", "use_dynamic_shifting", "time_shift_type", "use_karras_sigmas")
    flow = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": shift_of(config)}
    return flow | {key: config[key] for key in shared if key in config}
