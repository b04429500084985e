"""Corrections for skipped steps: what a solver carries is known; a forecast's error is given back."""

from __future__ import annotations

import inspect
from typing import Any

import diffusers
import pytest
import torch
from conftest import generate
from diffusers import DiTPipeline
from torch import Tensor

import dqar
from bench.measure import paired
from bench.pipeline.session import Session
from bench.spec.prompts import Prompts
from bench.spec.run_spec import RunSpec
from dqar import DQARConfig
from dqar.core.snr import schedule_snr
from dqar.core.solver_sensitivity import solver_sensitivity
from dqar.integration.output_forecast import OutputForecaster, StepPosition
from dqar.plan import BOTH, CONDITIONAL, NONE, positions

STEPS = 12
TRAINED: dict[str, Any] = {"timestep_spacing": "trailing", "prediction_type": "v_prediction"}
SOLVERS: dict[str, Any] = {
    "DDIMScheduler": TRAINED,
    "DDPMScheduler": TRAINED,
    "DPMSolverMultistepScheduler": TRAINED | {"prediction_type": "epsilon"},
    "UniPCMultistepScheduler": TRAINED | {"prediction_type": "sample"},
    "HeunDiscreteScheduler": TRAINED,
    "EulerAncestralDiscreteScheduler": TRAINED,
    "FlowMatchEulerDiscreteScheduler": {},
}


def scheduler(name: str, **options: Any) -> Any:
    made = getattr(diffusers, name)(**SOLVERS[name] | options)
    made.set_timesteps(STEPS)
    return made


def solved(solver: Any, outputs: list[Tensor]) -> Tensor:
    """The final latent, from one fixed latent, with one fixed noise, where the model predicts `outputs`."""
    takes_noise = "generator" in inspect.signature(solver.step).parameters
    noise = {"generator": torch.Generator().manual_seed(1)} if takes_noise else {}
    latent = torch.randn(outputs[0].shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    solver.set_timesteps(STEPS)
    for timestep, output in zip(solver.timesteps, outputs, strict=True):
        if hasattr(solver, "scale_model_input"):
            solver.scale_model_input(latent, timestep)
        latent = solver.step(output, timestep, latent, **noise, return_dict=False)[0].double()
    return latent


def random_outputs(number: int, seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(2, 3, 4, 4, dtype=torch.float64, generator=generator) for _ in range(number)]


@pytest.mark.parametrize("name", SOLVERS)
def test_the_response_is_what_the_solver_carries(name: str) -> None:
    """A change of one step's output changes the final latent by the response times it, on every kind of
    solver, with noise and without; the scheduler is as it was."""
    solver = scheduler(name, **({"clip_sample": False} if name.startswith("DD") else {}))
    before = solver.timesteps.clone()
    response = solver_sensitivity(solver)
    assert torch.equal(solver.timesteps, before) and solver_sensitivity(solver) is response
    number = len(solver.timesteps)
    outputs, changes = random_outputs(number, 2), random_outputs(number, 3)
    unchanged = solved(solver, outputs)
    for step in range(number):
        changed = [o + c if k == step else o for k, (o, c) in enumerate(zip(outputs, changes, strict=True))]
        gained = solved(solver, changed) - unchanged
        torch.testing.assert_close(gained, response[step] * changes[step], rtol=1e-3, atol=2e-4)


def test_a_generation_that_begins_on_the_way_is_not_answered_before_it() -> None:
    """Steps before the first have no response, the others that of a run from there."""
    whole = solver_sensitivity(scheduler("DDIMScheduler"))
    part = solver_sensitivity(scheduler("DDIMScheduler"), begin=4)
    assert (part[:4] == 0).all() and part[4:] == pytest.approx(whole[4:])


@pytest.mark.parametrize("name", ["DDIMScheduler", "DPMSolverMultistepScheduler"])
@pytest.mark.parametrize("half", [None, 0, 1])
def test_a_full_correction_is_exact_where_outputs_are_piecewise_linear(name: str, half: int | None) -> None:
    """Where the true outputs are linear between the steps that run, and all is given back, the solver ends
    where it ends with every step run, both branches or one; with nothing given back it does not."""
    solver = scheduler(name, clip_sample=False) if name == "DDIMScheduler" else scheduler(name)
    place = [
        StepPosition(*pair)
        for pair in zip(
            positions(DQARConfig(), schedule_snr(solver)), solver_sensitivity(solver), strict=True
        )
    ]
    alone = CONDITIONAL if half is not None else BOTH
    branches = [BOTH, NONE, NONE, BOTH, NONE, alone, NONE, NONE, BOTH, NONE, NONE, BOTH]
    nodes = {k: random_outputs(2, seed=10 + k) for k, n in enumerate(branches) if n == BOTH}
    middle = random_outputs(1, seed=5)[0]  # the conditional branch where it runs alone

    def truth(step: int, part: int) -> Tensor:
        """Part 0 is the conditional branch, part 1 what it adds to the other."""
        known = {k: value[part] for k, value in nodes.items()} | ({5: middle} if part == 0 else {})
        low, high = max(k for k in known if k <= step), min(k for k in known if k >= step)
        if low == high:
            return known[low]
        share = (place[step].position - place[low].position) / (place[high].position - place[low].position)
        return torch.lerp(known[low], known[high], share)

    def predicted(step: int) -> Tensor:
        """What the model predicts of all branches."""
        conditional, other = truth(step, 0), truth(step, 0) - truth(step, 1)
        return conditional if half is None else torch.cat([(conditional, other), (other, conditional)][half])

    def ends(correction: float) -> Tensor:
        outputs, given = OutputForecaster(half, 1, correction), []
        for step, ran in enumerate(branches):
            if ran == NONE:
                output = outputs.forecast(place[step])
            else:
                output = outputs.completed(
                    (truth(step, 0) if ran == CONDITIONAL else predicted(step),), place[step], ran
                )
            given.append(output[0])
        return solved(solver, given)

    every = solved(solver, [predicted(step) for step in range(STEPS)])
    torch.testing.assert_close(ends(1.0), every, rtol=1e-3, atol=1e-3)
    assert (ends(0.0) - every).abs().max() > 0.1


def test_a_step_that_moves_nothing_makes_no_correction() -> None:
    """Where the latent hardly answers, or the position is that of the last value, the output stays."""
    for place in (StepPosition(2.0, 0.0), StepPosition(2.0, 1e-9), StepPosition(0.0, 1.0)):
        outputs = OutputForecaster(None, 1, 1.0)
        outputs.completed((torch.zeros(1, 2),), StepPosition(0.0, 1.0), BOTH)
        outputs.forecast(StepPosition(1.0, 1.0))
        assert torch.equal(outputs.completed((torch.ones(1, 2),), place, BOTH)[0], torch.ones(1, 2))


def test_a_correction_of_nothing_changes_nothing(pipe: DiTPipeline) -> None:
    """Where every step runs the correction is bit-identical to none, and so is one that is off to a plan
    without it."""
    untouched = generate(pipe)
    changes: tuple[dict[str, Any], ...] = ({"model_steps": 10}, {"guidance_interval": 1})
    for options in changes:
        dqar.enable(
            pipe, DQARConfig(layer_fraction=0.0, use_layer_scheduling=True, output_correction=1.0, **options)
        )
        assert torch.equal(generate(pipe), untouched)


@pytest.mark.slow
def test_corrections_bring_the_images_nearer_to_the_baseline() -> None:
    """On the flow that ships, 12 of 56 steps with the default correction drift less from the same solver at
    all of them than without any."""
    solver, samples = {"scheduler": "dpm_solver++", "steps": 56}, range(8)
    spec = RunSpec(
        suite="t", name="t", method="fewer_steps", model="embedded-t2i", batch_size=8, num_inference_steps=28,
        prompts=Prompts.read("emoji"), options=solver,
    )  # fmt: skip
    session, default = Session.open(spec), DQARConfig().output_correction
    goal, drift = session.candidate(samples).latents, {}
    for correction in (default, 0.0):
        options = solver | {
            "preset": "maximum",
            "layer_fraction": 0.0,
            "model_steps": 12,
            "output_correction": correction,
        }
        corrected = session.under(spec.model_copy(update={"method": "dqar", "options": options}))
        drift[correction] = paired.drift(corrected.candidate(samples).latents, goal)
    assert (drift[default] / drift[0.0]).log().mean() < -0.1
