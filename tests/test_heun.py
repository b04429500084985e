"""Heun's method on a flow: of second order, at two evaluations a step that are counted."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from bench import methods
from bench.errors import BadInput
from bench.measure import flops
from bench.methods import heun
from bench.methods.space import Baseline
from bench.pipeline.session import Session
from bench.run.runner import skip_reason
from bench.spec.run_spec import RunSpec
from bench.spec.settings import QualitySettings

pytestmark = pytest.mark.filterwarnings("ignore")

PROMPTS = {"file": "p.txt", "texts": ["red heart", "full moon"], "negatives": [""] * 2}


def spec(**options: Any) -> RunSpec:
    """A short run of the text-to-image model on Heun's method."""
    given: dict[str, Any] = {
        "suite": "s", "name": "n", "method": "fewer_steps", "model": "embedded-t2i", "options": options,
        "num_inference_steps": 8, "batch_size": 2, "prompts": PROMPTS,
        "quality": QualitySettings(n=0, converged_n=0),
    }  # fmt: skip
    return RunSpec(**given)


@pytest.fixture(scope="module")
def session() -> Session:
    return Session.open(spec(scheduler="heun", steps=3))


def error(pipe: Any, steps: int) -> float:
    """How far it ends from the solution of dx/dt = 2 t x, which is exp(t^2 - 1) from x(1) = 1."""
    with heun.solver(pipe, {"steps": steps, "shift": 1.0}):
        scheduler = pipe.scheduler
        scheduler.set_timesteps(steps)
        x = torch.ones(1)
        for t in scheduler.timesteps:
            x = scheduler.step(2 * t / 1000 * x, t, x, return_dict=False)[0]
    assert len(scheduler.timesteps) == heun.evaluations(steps)
    return abs(float(x) - math.exp(-1))


def test_it_is_of_second_order(session: Session) -> None:
    """Of an equation with a known solution twice the steps leave a quarter of the error, as Heun's method
    does and Euler's does not."""
    assert error(session.pipe, 10) / error(session.pipe, 20) == pytest.approx(4, rel=0.35)


def test_every_evaluation_is_counted(session: Session) -> None:
    """Three steps evaluate the model five times, and cost its FLOPs; the pipeline's own solver is back."""
    scheduler, calls = session.pipe.scheduler, 0

    def count(*_: Any) -> None:
        nonlocal calls
        calls += 1

    before = session.baseline(range(2)).latents
    hook = session.pipe.transformer.register_forward_pre_hook(count)
    session.candidate(range(2))
    hook.remove()
    cost = flops.count(session)
    assert calls == heun.evaluations(3) == 5
    assert flops.candidate(session) == pytest.approx(5 * cost.forward + cost.rest)
    assert session.pipe.scheduler is scheduler
    assert torch.equal(session.baseline(range(2)).latents, before)


def test_its_steps_begin_where_eulers_do(session: Session) -> None:
    """The baseline's own shift places them, and another shift elsewhere."""
    pipe = session.pipe
    pipe.scheduler.set_timesteps(6)
    euler = pipe.scheduler.timesteps
    placed = []
    for options in ({}, {"shift": 1.5}):
        with heun.solver(pipe, {"steps": 6} | options):
            pipe.scheduler.set_timesteps(6)
            placed.append(pipe.scheduler.timesteps)
    assert torch.allclose(placed[0].unique(), euler.unique())
    assert not torch.allclose(placed[0], placed[1])


def test_where_it_does_not_run_is_named() -> None:
    """On the class-conditional model, whose pipeline scales no latents, it is a gap with its reason."""
    given = spec(scheduler="heun", steps=3)
    other = given.model_copy(update={"model": "embedded", "prompts": None})
    assert "sigma" in (skip_reason(other) or "")
    assert skip_reason(given) is None
    assert "heun" in methods.get("fewer_steps").spaces(Baseline(28, True))
    assert "heun" not in methods.get("fewer_steps").spaces(Baseline(50, False))


def test_it_is_a_fixed_flows_solver(session: Session) -> None:
    """A schedule that shifts with the size of the image is refused, not solved elsewhere."""
    pipe, own = session.pipe, session.pipe.scheduler
    pipe.scheduler = type(own).from_config(own.config | {"use_dynamic_shifting": True})
    try:
        with pytest.raises(ValueError, match="of fixed shift"), heun.solver(pipe, {"steps": 3}):
            pass
    finally:
        pipe.scheduler = own


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("fewer_steps", {"scheduler": "heun"}, "steps is not given; needed with heun"),
        ("fewer_steps", {"scheduler": "heun", "steps": 0}, "steps: 0 is not allowed; allowed: 1 to 1000"),
        (
            "fewer_steps",
            {"scheduler": "heun", "steps": 4, "solver_order": 2},
            "solver_order: 2 is not allowed; allowed with heun: steps, shift",
        ),
        ("fewer_steps", {"scheduler": "euler"}, "scheduler: 'euler' not known; allowed: ddim, dpm_solver++"),
        ("fora", {"scheduler": "heun"}, "scheduler: 'heun' not known"),
    ],
)
def test_bad_options(name: str, options: dict[str, Any], message: str) -> None:
    """Each is refused in one line; a cache takes only solvers that evaluate the model once a step."""
    with pytest.raises(BadInput) as caught:
        methods.check(name, options, "suite")
    assert message in str(caught.value)
