"""The recursion of OptimalSteps: exact where it can be, and its steps are those that a pipeline makes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bench.spec.prompts import Prompts
from bench.studies.timesteps.optimal_steps import Student, distilled, taught, visits
from bench.studies.timesteps.trajectory import Trajectory
from bench.studies.tune.candidate import Judge, Task, undecoded

NODES = 9
TIMES = np.linspace(1.0, 0.0, NODES) ** 1.5


def slope(latents: Tensor, node: int) -> Tensor:
    """A linear ODE, stiffest at the beginning: Euler's steps leave its solution to one side only, so that a
    student that is nearer at a node stays nearer."""
    return latents * (0.2 + 2.0 * float(TIMES[node]) ** 2)


def euler(student: Student, output: Tensor, target: int, final: bool) -> Student:
    """A step of first order."""
    assert final == (target == NODES - 1)
    length = float(TIMES[target] - TIMES[student.path[-1]])
    return Student(student.latents + length * output, (*student.path, target))


def along(path: Sequence[int]) -> Tensor:
    """Where Euler's steps through these nodes and on to the last end."""
    student = Student(torch.tensor([[1.0], [-2.0]]), (path[0],))
    for target in (*path[1:], NODES - 1):
        student = euler(student, slope(student.latents, student.path[-1]), target, target == NODES - 1)
    return student.latents


def solve(budgets: Sequence[int], ask: Callable[[Student], Tensor]) -> tuple[Tensor, dict[int, Student]]:
    """The teacher, exact, and the students."""
    integral = torch.tensor(0.2 * (1 - TIMES) + 2.0 / 3.0 * (1 - TIMES**3), dtype=torch.float32)
    teacher = torch.tensor([[1.0], [-2.0]]) * torch.exp(-integral).view(-1, 1, 1)
    search = distilled(teacher, Student(teacher[0], (0,)), euler, budgets)
    student = next(search)
    while True:
        try:
            student = search.send(ask(student))
        except StopIteration as done:
            return teacher, done.value


def test_the_recursion_equals_brute_force_on_a_linear_ode() -> None:
    """Of all paths of so many steps the student's ends nearest to the teacher, nearer than even nodes where
    there is a choice."""
    budgets = (1, 2, 4)
    teacher, students = solve(budgets, lambda student: slope(student.latents, student.path[-1]))

    def distance(path: Sequence[int]) -> float:
        return float((along(path) - teacher[-1]).square().mean())

    for steps in budgets:
        paths = [(0, *inner) for inner in itertools.combinations(range(1, NODES - 1), steps - 1)]
        found = students[steps].path[:-1]
        assert found == min(paths, key=distance)
        assert torch.equal(students[steps].latents, along(found))
        assert distance(found) <= distance(range(0, NODES - 1, (NODES - 1) // steps))
    assert distance(students[4].path[:-1]) < 0.95 * distance(range(0, NODES - 1, 2))


def test_the_model_is_asked_in_the_order_that_is_announced() -> None:
    """`visits` lists the nodes that the recursion asks at: a pipeline sets its timesteps by it."""
    asked = []

    def ask(student: Student) -> Tensor:
        asked.append(student.path[-1])
        return slope(student.latents, student.path[-1])

    solve((2, 4), ask)
    assert asked == visits(NODES - 1, 4)


def compare_with_pipeline(judge: Judge, options: dict[str, Any]) -> None:
    """Generating with the timesteps that were found ends where the student ended."""
    trajectory = Trajectory.solved(judge)
    nodes = [*range(0, 16, 3), 16]
    students = taught(judge, options, trajectory, nodes, (2, 4))
    for steps, student in students.items():
        timesteps = [float(trajectory.timesteps[nodes[node]]) for node in student.path[:-1]]
        assert len(timesteps) == steps
        update = {"method": "fewer_steps", "options": {**options, "timesteps": timesteps}}
        session = judge.session.under(judge.spec.model_copy(update=update))
        with undecoded(session.pipe):
            made = session.candidate(judge.samples).latents
        torch.testing.assert_close(student.latents, made, rtol=1e-3, atol=1e-3)


@pytest.mark.everyday("unipc")  # with a corrector, it remembers the most
@pytest.mark.parametrize("scheduler", ["dpm_solver++", "unipc", "deis"])
def test_a_students_steps_are_those_of_the_pipeline(
    tiny_model_dir: Path, tmp_path: Path, scheduler: str
) -> None:
    """With any solver: its history of outputs, its corrector and its lower order at the end included."""
    judge = Judge(Task(model=str(tiny_model_dir), steps=4, images=2, guidance=4.0), tmp_path)
    compare_with_pipeline(judge, {"scheduler": scheduler, "solver_order": 2})


@pytest.mark.slow
def test_a_students_steps_are_those_of_the_pipeline_on_a_flow(tmp_path: Path) -> None:
    """On a flow too, whose timesteps diffusers cuts to whole numbers where its noise levels are not."""
    task = Task(model="embedded-t2i", steps=4, images=2, guidance=4.0, prompts=Prompts.read("emoji"))
    compare_with_pipeline(Judge(task, tmp_path), {"scheduler": "dpm_solver++", "solver_order": 2})
