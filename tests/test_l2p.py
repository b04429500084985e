"""L2P: the fit and the forecast are the paper's, on a real transformer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import generate
from torch import Tensor

from bench import methods
from bench.errors import BadInput
from bench.measure import flops
from bench.methods.l2p import fit, squared_error
from bench.methods.step_mask import evenly
from bench.pipeline.session import Session
from bench.run.runner import skip_reason
from bench.spec.run_spec import RunSpec

STEPS = 10


def forecasts(weights: list[list[float]], outputs: Tensor) -> Tensor:
    """What the weights make of the outputs before each step but the first."""
    rows = [torch.tensor(row) @ outputs[: len(row)] for row in weights[1:]]
    return torch.stack(rows)


def test_without_an_epoch_the_weights_hold_the_last_output() -> None:
    """W begins as 1 on the output of the step before, and 0 on all others."""
    assert fit(torch.randn(4, 3), 0) == [[], [1.0], [0.0, 1.0], [0.0, 0.0, 1.0]]


def test_the_error_is_that_of_the_forecasts() -> None:
    """Computed from the outputs' products it is the mean squared difference, element by element."""
    outputs = torch.randn(5, 2, 7, dtype=torch.double)
    weights = torch.randn(5, 5, dtype=torch.double).tril(-1)
    plain = ((weights @ outputs.flatten(1))[1:] - outputs.flatten(1)[1:]).square().mean()
    products = outputs.flatten(1) @ outputs.flatten(1).T / 14
    assert squared_error(weights, products) == pytest.approx(plain.item())


def test_an_epoch_is_a_step_of_adam() -> None:
    """The first moves each weight by the rate against its gradient, and none from the future."""
    outputs = torch.tensor([[1.0], [2.0], [4.0]])
    assert fit(outputs, 1, rate=0.5)[1] == pytest.approx([1.5])  # F_1 = 2 is above the 1 that is held
    assert fit(outputs, 1, rate=0.5)[2] == pytest.approx([0.5, 1.5])


@pytest.mark.parametrize(
    "following",
    [lambda before: 0.9 * before[-1], lambda before: 1.6 * before[-1] - 0.8 * before[-2]],
    ids=["decaying", "oscillating"],
)
def test_outputs_of_a_linear_recurrence_are_reproduced(following: Callable[[list[Tensor]], Tensor]) -> None:
    """Where each output is a fixed combination of those before, the fit finds weights that forecast it, and
    for images that it was not fitted to."""
    generator = torch.Generator().manual_seed(0)
    outputs = [torch.randn(400, generator=generator) for _ in range(2)]
    while len(outputs) < 12:
        outputs.append(following(outputs))
    seen, unseen = torch.stack(outputs).split(200, dim=1)
    weights = fit(seen, 200)
    held = (unseen[1:-1] - unseen[2:]).norm()
    assert (forecasts(weights, unseen)[1:] - unseen[2:]).norm() < 0.02 * held


def test_steps_run_first_and_then_evenly() -> None:
    """A budget is met exactly, whatever its size; with more than there are steps all run."""
    assert evenly(50, 6, 3) == (0, 1, 2, 14, 26, 38)
    for budget in range(3, 60):
        steps = evenly(50, budget, 3)
        assert len(set(steps)) == min(budget, 50) and steps[:3] == (0, 1, 2) and max(steps) < 50


def run(pipe: Any, **options: Any) -> Tensor:
    """A generation under L2P."""
    with methods.get("l2p").apply(pipe, options):
        return generate(pipe, steps=STEPS)


def fitted(pipe: Any, **options: Any) -> Any:
    """The weights of the generation that `generate` makes."""
    with methods.get("l2p").apply(pipe, options) as arm:
        generate(pipe, steps=STEPS)
        return arm.calibrated()["weights"]


def test_with_every_step_it_is_the_baseline(pipe: Any) -> None:
    """A generation that measures, and one whose budget is all steps, change no bit."""
    before = generate(pipe, steps=STEPS)
    assert torch.equal(run(pipe), before)
    assert torch.equal(run(pipe, weights=fitted(pipe), budget=STEPS), before)
    assert torch.equal(generate(pipe, steps=STEPS), before)


def test_weights_as_they_begin_hold_the_models_output(pipe: Any) -> None:
    """Without an epoch a skipped step gets what the transformer returned last."""
    computed = [0, 1, 2, 5, 8]
    made = run(pipe, weights=fitted(pipe, epochs=0), computed=computed)
    run_whole, step, last = pipe.transformer.forward, -1, None

    def held(*args: Any, **kwargs: Any) -> Any:
        nonlocal step, last
        step += 1
        last = run_whole(*args, **kwargs) if step in computed else last
        return last

    pipe.transformer.forward = held
    assert torch.equal(made, generate(pipe, steps=STEPS))


def test_forecasts_follow_the_trajectory_they_were_fitted_to(pipe: Any) -> None:
    """On the generation that it was fitted to, the fit ends nearer to the baseline than holding."""
    before = generate(pipe, steps=STEPS)
    drifts = [
        (run(pipe, weights=fitted(pipe, epochs=epochs), budget=5) - before).norm() for epochs in (0, 200)
    ]
    assert 0 < drifts[1] < 0.95 * drifts[0]


def test_it_costs_its_budget(tiny_model_dir: Path) -> None:
    """Skipped steps cost next to nothing of the model, and the history that is kept is that of all steps."""
    spec = RunSpec(
        suite="s", name="n", method="l2p", options={"budget": 4, "computed_first": 2},
        model=str(tiny_model_dir), num_inference_steps=STEPS, batch_size=2,
    )  # fmt: skip
    session = Session.open(spec)
    assert session.resolved  # by a generation of its own, which does not count
    assert flops.candidate(session) == pytest.approx(flops.count(session).generation(4), rel=0.01)
    session.candidate(range(2))
    channels = session.pipe.transformer.config.out_channels
    assert session.cache_bytes == STEPS * 2 * 2 * channels * 8 * 8 * 4  # of both branches


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"budget": 0}, "budget: 0 is not allowed; allowed: a whole number from 1 to 1000"),
        (
            {"budget": 4, "computed_first": 5},
            "computed_first: 5 is not allowed; allowed: at most the budget, 4",
        ),
        ({"computed": [1, 2]}, "computed: [1, 2] is not allowed; allowed: a list that ascends from step 0"),
        ({"computed": [0, 2], "budget": 2}, "computed: excludes budget; allowed: one of them"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    """Each is refused in one line with the option, its value and what is allowed."""
    with pytest.raises(BadInput) as caught:
        methods.check("l2p", options, "suite")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"computed": [0, 20]}, "computed = 20 is not allowed; allowed: steps below 10"),
        ({"weights": [[], [1.0]]}, "weights of 2 steps; allowed: of 10"),
    ],
)
def test_another_number_of_steps_is_refused(pipe: Any, options: dict[str, Any], message: str) -> None:
    """Steps and weights that a generation has not are an error, not another forecast."""
    with pytest.raises(ValueError, match=message):
        run(pipe, **{"weights": fitted(pipe)} | options)


def test_where_it_was_not_tried_is_named() -> None:
    """Pipelines that call their transformer twice a step are a gap with its reason; both that ship run."""
    assert "tried" in (methods.get("l2p").gap("WanPipeline", {}) or "")
    for model in ("embedded", "embedded-t2i"):
        spec = RunSpec(suite="s", name="n", method="l2p", model=model, batch_size=1, num_inference_steps=4)
        assert skip_reason(spec) is None
