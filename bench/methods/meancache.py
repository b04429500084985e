"""MeanCache (Gao et al. 2026, arXiv 2601.19961): a flow goes on at its average velocity where the model is
skipped.

With times t > s of a flow, z the latent and v its (guided) velocity, the model runs at t, and up to s the
latent moves at the average velocity

    u(z_t, t, s) = v(z_t, t) + (s - t) * JVP,    JVP = (z_t - z_r - (t - r) * v(z_r, r)) / (t - r)^2

where r lies a span of K steps before t. With K = 1 the JVP is 0 and v is held. Which steps run, and with what
spans, is the peak-suppressed shortest path: of the paths of at most `budget` edges t -> s, that of the least
sum of C^gamma, where C is the mean absolute difference of the estimate from (z_s - z_t) / (s - t) on a
generation in which every step ran. The authors average C over 250 generations; here it is that of the run's
own first images. Where r was skipped, the velocity that was used there stands for v(z_r, r), as in the
authors' code.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bench.methods.base import Arm, Method, Untimed, always
from bench.methods.hooks import Range, checked, restored
from bench.methods.scheduler import EULER, solver
from bench.methods.space import Baseline, Dimension, Real, Space, evaluations

EDGES = "edges"  # [[step that runs, span], ...]; without them a generation is measured to find them
KNOWN = {"budget": Range(int, 2, 1000, 14), "gamma": Range(float, 1, 20, 5.0)}
MAX_SPAN = 6  # the authors'
# Pipelines whose own scheduler is EULER.
FLOWS = ("StableDiffusion3Pipeline", "FluxPipeline", "QwenImagePipeline")


class Edge(NamedTuple):
    """A step that runs, and by which span its velocity becomes the average one up to the next that does."""

    step: int
    span: int


class Trajectory:
    """A generation so far: the latent and the velocity of each step, on the times of the schedule.

    Args:
        times: Sigma of each step and of the end, `[steps + 1]`, falling.
    """

    def __init__(self, times: Sequence[float]) -> None:
        self.times = times
        self.latents: list[Tensor] = []
        self.velocities: list[Tensor] = []

    def jvp(self, step: int, span: int) -> Tensor:
        """The estimated change of the average velocity with time.

        Args:
            step: Number of the step, from 0.
            span: How many steps before it the estimate begins, 1 to `step`.

        Returns:
            In the shape of the latents.
        """
        before = step - span
        elapsed = self.times[step] - self.times[before]
        moved = self.latents[step] - self.latents[before]
        return (moved - elapsed * self.velocities[before]) / elapsed**2

    def average(self, step: int, to: int, span: int) -> Tensor:
        """The estimated average velocity from one step to another.

        Args:
            step: Number of the first, from 0.
            to: Number of the second, above the first; as many as there are steps = the end.
            span: As `jvp` takes it; 1 = the velocity at `step` is held.

        Returns:
            In the shape of the latents.
        """
        if span == 1:
            return self.velocities[step]
        return self.velocities[step] + (self.times[to] - self.times[step]) * self.jvp(step, span)

    def cost(self, step: int, to: int, span: int) -> float:
        """How far the estimate is from the average velocity of a trajectory that has the latent of `to`.

        Args:
            step: Number of the first step, from 0.
            to: Number of the second, above the first.
            span: As `average` takes it.

        Returns:
            Mean absolute difference of the velocities.
        """
        true = (self.latents[to] - self.latents[step]) / (self.times[to] - self.times[step])
        return float((true - self.average(step, to, span)).abs().mean())


def shortest(full: Trajectory, budget: int, gamma: float) -> list[Edge]:
    """The peak-suppressed shortest path of at most `budget` edges, by dynamic programming.

    Args:
        full: A trajectory of which every step ran, with the last latent.
        budget: Most steps that run.
        gamma: Exponent of an edge's cost; 1 is the plain shortest path.

    Returns:
        The steps that run, ascending, and their spans; the first is step 0.
    """
    steps = len(full.velocities)
    edges: dict[tuple[int, int], tuple[float, int]] = {}
    for step in range(steps):
        spans = range(1, min(step, MAX_SPAN) + 1) or (1,)
        for to in range(step + 1, steps + 1):
            edges[step, to] = min((full.cost(step, to, span) ** gamma, span) for span in spans)
    best: dict[int, tuple[float, list[Edge]]] = {0: (0.0, [])}  # by the step reached
    finished: list[tuple[float, list[Edge]]] = []
    for _ in range(budget):
        reached: dict[int, tuple[float, list[Edge]]] = {}
        for (step, to), (cost, span) in edges.items():
            if step in best:
                total = best[step][0] + cost
                if to not in reached or total < reached[to][0]:
                    reached[to] = total, [*best[step][1], Edge(step, span)]
        best = reached
        finished += [best[steps]] if steps in best else []
    return min(finished)[1]


class Cache:
    """Lets the transformer run at the steps of a path, and moves the latent at average velocities.

    Args:
        scheduler: The Euler scheduler of a flow.
        edges: The path; None = every step runs.
    """

    def __init__(self, scheduler: Any, edges: Sequence[Edge] | None) -> None:
        self.scheduler, self.edges = scheduler, edges
        self.timesteps: Any = None  # of the generation in progress
        self.trajectory = Trajectory([])
        self.output: Any = None  # of the transformer's last run: at skipped steps `moved` takes its place
        self.velocity = torch.empty(0)  # by which the latent moves up to the next step that runs

    @property
    def step(self) -> int:
        """The step in progress."""
        if self.scheduler.timesteps is not self.timesteps:
            self.timesteps = self.scheduler.timesteps
            self.trajectory = Trajectory(self.scheduler.sigmas.tolist())
        return len(self.trajectory.velocities)

    def runs(self) -> bool:
        """Whether the model runs at the step in progress.

        Returns:
            True at each step of the path, or at all steps without one.

        Raises:
            ValueError: The path has steps that the generation has not.
        """
        step, steps = self.step, len(self.timesteps)
        if self.edges is None:
            return True
        if self.edges[-1].step >= steps:
            raise ValueError(f"meancache: edges = {self.edges} is not allowed; allowed: steps below {steps}")
        return any(edge.step == step for edge in self.edges)

    def moved(self, output: Tensor, latent: Tensor) -> Tensor:
        """Note a step, and give the velocity by which the latent moves at it.

        Args:
            output: The model's guided velocity; not used where the model was skipped.
            latent: The latent before the step, of the same shape.

        Returns:
            A velocity of that shape.
        """
        step, seen = self.step, self.trajectory
        seen.latents.append(latent)
        if self.edges is None:
            seen.velocities.append(output)
            return output
        number = max(i for i, edge in enumerate(self.edges) if edge.step <= step)
        edge = self.edges[number]
        if step == edge.step:
            seen.velocities.append(output)
            to = self.edges[number + 1].step if number + 1 < len(self.edges) else len(self.timesteps)
            self.velocity = seen.average(step, to, edge.span)
        else:
            seen.velocities.append(self.velocity)
        return self.velocity


def check(options: dict[str, Any]) -> None:
    """Check options; it is defined on Euler's method alone.

    Args:
        options: As a suite has them.

    Raises:
        ValueError: Naming the option, its value and what is allowed.
    """
    checked(options, KNOWN)
    if "scheduler" in options:
        raise ValueError(f"scheduler: {options['scheduler']!r} is not allowed; allowed: the model's own")


def gap(pipeline: str, options: dict[str, Any]) -> str | None:
    """Why it does not run on a pipeline.

    Args:
        pipeline: The name of its class in diffusers.
        options: Not looked at.

    Returns:
        A clause for reports; None where it runs.
    """
    return None if pipeline in FLOWS else f"it is defined on a flow solved by Euler's method ({EULER})"


@contextmanager
def apply(pipe: Any, options: dict[str, Any]) -> Iterator[Arm]:
    """Follow the path given, or run every step where none is; the arm then reports the path found.

    Args:
        pipe: A pipeline of a flow, with Euler's scheduler.
        options: As `check` lets them through, and `edges` as `resolve` found them.

    Yields:
        The pipeline with the cache on.

    Raises:
        ValueError: The pipeline has another scheduler.
    """
    given = {name: value for name, value in options.items() if name != EDGES}
    values, edges = checked(given, KNOWN), options.get(EDGES)
    if type(pipe.scheduler).__name__ != EULER:
        raise ValueError(f"scheduler: {type(pipe.scheduler).__name__!r} is not allowed; allowed: {EULER}")
    cache = Cache(pipe.scheduler, [Edge(*edge) for edge in edges] if edges else None)
    with solver(pipe, given) as call, restored(pipe.transformer), _attached(pipe, cache) as ended:
        yield Arm(
            call=call,
            calibrated=lambda: {EDGES: [list(edge) for edge in shortest(ended(), **values)]},
            cache_bytes=lambda: _held(cache.trajectory),
        )


@contextmanager
def _attached(pipe: Any, cache: Cache) -> Iterator[Any]:
    """Put the cache in place; yields a function that returns the last trajectory with its final latent."""
    run, step = pipe.transformer.forward, pipe.scheduler.step
    last: list[Tensor] = []

    @wraps(run)
    def forward(*args: Any, **kwargs: Any) -> Any:
        if cache.runs():
            cache.output = run(*args, **kwargs)
        return cache.output

    @wraps(step)
    def moved(model_output: Tensor, timestep: Any, sample: Tensor, *args: Any, **kwargs: Any) -> Any:
        result = step(cache.moved(model_output, sample), timestep, sample, *args, **kwargs)
        last[:] = [result[0] if isinstance(result, tuple) else result.prev_sample]
        return result

    def ended() -> Trajectory:
        whole = Trajectory(cache.trajectory.times)
        whole.latents, whole.velocities = [*cache.trajectory.latents, *last], cache.trajectory.velocities
        return whole

    pipe.transformer.forward, pipe.scheduler.step = forward, moved
    try:
        yield ended
    finally:
        del pipe.scheduler.step


def _held(trajectory: Trajectory) -> int:
    """Bytes of what it keeps: the latents and velocities within the longest span."""
    kept = [*trajectory.latents[-MAX_SPAN - 1 :], *trajectory.velocities[-MAX_SPAN - 1 :]]
    return sum(each.element_size() * each.nelement() for each in kept)


def resolve(options: dict[str, Any], untimed: Untimed) -> dict[str, Any]:
    """Find the path of the current model on this schedule.

    Args:
        options: As `check` lets them through.
        untimed: Runs an untimed generation, every step of which runs.

    Returns:
        `edges`, each a step and its span.
    """
    with untimed(options) as arm, torch.no_grad():
        return arm.calibrated()


def spaces(baseline: Baseline) -> Mapping[str, Space]:
    """Declare what `tune --method` searches, on flows: the steps that run, and how much long edges cost.

    Args:
        baseline: The run that is to be made faster.

    Returns:
        The space; none for a model that is no flow.
    """
    space: dict[str, Dimension] = {
        "budget": evaluations(baseline),
        "gamma": Real(1.5, 10.0),
    }
    return {"meancache": space} if baseline.flow else {}


METHOD = Method(
    check=check,
    apply=apply,
    resolve=resolve,
    by_data=always,
    fixed_steps=always,
    gap=gap,
    spaces=spaces,
)
