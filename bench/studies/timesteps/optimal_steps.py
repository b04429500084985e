"""Timesteps by the recursion of OptimalSteps (Pei, Hu and Gu 2025, arXiv 2503.21774).

A student of few steps imitates a teacher of many. Of all students that reach teacher node j in k steps the
recursion keeps the one that is nearest to the teacher there,

    z(j, k) = the nearest to x_j of step(z(i, k - 1), from i to j) over all nodes i before j,

where a step starts from the student's own latents, with the model's output there. Traced back from the last
node, it gives the steps. Nearness is the mean squared difference. What differs from the publication:

- The step is the solver's own, of whatever order, with the outputs that the student had before.
- All images share one recursion and one schedule; there each image has its own.
- A student takes exactly k steps; there z(j, k) may be one of fewer.
- The latents are not rescaled to the teacher's quantiles (its "amplitude calibration"): there it is optional,
  and it changes the solver, whereas what is searched here is timesteps alone.

Being nearest at each node does not guarantee being nearest at the last one.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Generator
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.schedulers.scheduling_utils import SchedulerOutput
from torch import Tensor

from bench.methods.scheduler import solver
from bench.studies.timesteps.trajectory import Floats, Trajectory
from bench.studies.tune.candidate import Judge, undecoded

NODES = 50  # of the trajectory, at least: an evaluation of the model for each of them and each step

Path = tuple[int, ...]


@dataclass(frozen=True)
class Student:
    """Where steps led."""

    latents: Tensor
    path: Path  # nodes, from the first to the one that it is at
    history: Any = None  # what the solver remembers of the steps


# A student and the model's output there -> that student one step later, at another node.
Move = Callable[[Student, Tensor, int, bool], Student]


def distilled(
    teacher: Tensor, first: Student, move: Move, budgets: Collection[int]
) -> Generator[Student, Tensor, dict[int, Student]]:
    """Run the recursion; whoever drives it evaluates the model.

    Args:
        teacher: Its latents, `[nodes, images, ...]`.
        first: The student before its first step, at node 0.
        move: Makes a step to a node; its last argument is whether that step is the last.
        budgets: Numbers of steps to find paths for, each less than there are nodes.

    Yields:
        A student, in the order of `visits`; the model's output at its latents has to be sent back.

    Returns:
        For each budget the student that is nearest to the teacher at the last node.
    """
    last, most = len(teacher) - 1, max(budgets)
    students, arrived = {0: first}, dict[int, Student]()
    for taken in range(1, most + 1):
        nearest: dict[int, tuple[float, Student]] = {}
        for node in sorted(students):
            output = yield students[node]
            inner = range(node + 1, last if taken < most else 0)
            for target in (*inner, *([last] if taken in budgets else [])):
                moved = move(students[node], output, target, target == last)
                distance = float((moved.latents - teacher[target]).square().mean())
                if target not in nearest or distance < nearest[target][0]:
                    nearest[target] = distance, moved
        if last in nearest:
            arrived[taken] = nearest.pop(last)[1]
        students = {node: student for node, (_, student) in nearest.items()}
    return arrived


def visits(last: int, most: int) -> list[int]:
    """List the nodes at which the recursion asks for the model's output.

    Args:
        last: The last node, which no step starts from.
        most: The largest budget.

    Returns:
        Nodes, in order.
    """
    return [0, *(node for taken in range(1, most) for node in range(taken, last))]


class Moves:
    """Makes steps of a solver of several orders from node to node.

    Args:
        scheduler: Of diffusers; it is changed.
        sigmas: The nodes' noise levels.
        most: The largest number of steps.
    """

    def __init__(self, scheduler: Any, sigmas: Floats, most: int) -> None:
        scheduler.set_timesteps(most + 1)  # one more, so that none is the last until it is said to be
        scheduler.set_begin_index(0)
        levels = [*sigmas[:-1], float(scheduler.sigmas[-1])]
        self.scheduler, self.sigmas = scheduler, torch.tensor(levels, dtype=scheduler.sigmas.dtype)

    def __call__(self, student: Student, output: Tensor, target: int, final: bool) -> Student:
        """Make a step; see `Move`."""
        after = copy.copy(student.history)
        vars(after).update({name: [*value] for name, value in vars(after).items() if type(value) is list})
        path = (*student.path, target)
        after.sigmas = self.sigmas[list(path)]
        if final:
            after.timesteps = after.timesteps[: len(student.path)]
        (latents,) = after.step(output, after.timesteps[0], student.latents, return_dict=False)
        return Student(latents, path, after)


def driven(
    pipe: Any,
    search: Generator[Student, Tensor, dict[int, Student]],
    timesteps: list[float],
    generate: Callable[[], Any],
) -> dict[int, Student]:
    """Let a pipeline evaluate its model, guidance and all, wherever the recursion asks.

    Args:
        pipe: The pipeline; its scheduler is changed for good.
        search: The recursion, not yet started.
        timesteps: Those of the nodes that it will ask at, in order.
        generate: Calls the pipeline.

    Returns:
        What the recursion found.
    """
    student, arrived = next(search), dict[int, Student]()
    images = len(student.latents)

    def step(
        output: Tensor, timestep: Any, sample: Tensor, *_: Any, return_dict: bool = True, **__: Any
    ) -> Any:
        nonlocal student
        try:
            student = search.send(output[:images].float().cpu())
        except StopIteration as done:
            arrived.update(done.value)
        # some pipelines hold the latents twice, for guidance
        latents = student.latents.repeat(len(sample) // images, *[1] * (sample.ndim - 1)).to(sample)
        return SchedulerOutput(prev_sample=latents) if return_dict else (latents,)

    def set_timesteps(*_: Any, device: Any = None, **__: Any) -> None:
        pipe.scheduler.timesteps = torch.tensor(
            timesteps, dtype=pipe.scheduler.timesteps.dtype, device=device
        )

    pipe.scheduler.step, pipe.scheduler.set_timesteps = step, set_timesteps
    generate()
    return arrived


def taught(
    judge: Judge,
    options: dict[str, Any],
    trajectory: Trajectory,
    nodes: list[int],
    budgets: Collection[int],
) -> dict[int, Student]:
    """Run the recursion with a solver on the model.

    With a solver of order 3 the step before the last is made at order 3, where diffusers may make it at 2.

    Args:
        judge: The loaded model and its calibration images.
        options: The solver's.
        trajectory: The teacher's.
        nodes: Where students may be, of the trajectory's latents the first and the last included.
        budgets: Numbers of steps, each less than there are nodes.

    Returns:
        For each budget the student that ends nearest to the teacher.
    """
    pipe, most, teacher = judge.session.pipe, max(budgets), trajectory.latents[nodes]
    with undecoded(pipe), solver(pipe, options) as call:
        moves = Moves(copy.copy(pipe.scheduler), trajectory.sigmas[nodes], most)
        pipe.scheduler.set_timesteps(most)
        search = distilled(teacher, Student(teacher[0], (0,), moves.scheduler), moves, budgets)
        asked = [float(trajectory.timesteps[nodes[i]]) for i in visits(len(nodes) - 1, most)]
        return driven(pipe, search, asked, lambda: judge.session.baseline(judge.samples, **call))


def optimal_steps(
    judge: Judge, options: dict[str, Any], trajectory: Trajectory, budgets: Collection[int]
) -> dict[int, tuple[float, ...]]:
    """Search timesteps on the calibration images, for all budgets at once.

    Args:
        judge: The loaded model and its calibration images.
        options: The solver's.
        trajectory: The teacher's.
        budgets: Numbers of steps, each at most half of the trajectory's.

    Returns:
        The timesteps for each budget, descending.
    """
    length = len(trajectory.timesteps)
    nodes = [*range(0, length, max(1, length // max(NODES, 2 * max(budgets)))), length]
    students = taught(judge, options, trajectory, nodes, budgets)
    return {
        steps: tuple(float(trajectory.timesteps[nodes[node]]) for node in student.path[:-1])
        for steps, student in students.items()
    }
