"""SpeCa: the draft, the threshold and the verification are the paper's, on a real transformer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import generate
from diffusers.hooks.taylorseer_cache import TaylorSeerState

from bench import methods
from bench.errors import BadInput
from bench.measure import flops
from bench.methods import speca
from bench.methods.hooks import checked
from bench.methods.speca import Decisions, Taylor, relative_error
from bench.pipeline.session import Session
from bench.spec.run_spec import RunSpec

STEPS = 10
ACCEPTING = {"threshold": 10.0, "decay": 1.0, "order": 1, "computed_first": 2, "longest": 3}


@pytest.mark.parametrize("order", [0, 1, 2, 3])
def test_the_draft_is_taylorseers(order: int) -> None:
    """At steps computed at irregular distances, both outputs of a module are what diffusers' own TaylorSeer
    forecasts."""
    generator = torch.Generator().manual_seed(order)
    ours, theirs = Taylor(order), TaylorSeerState(torch.float32, max_order=order)
    for step in (0, 1, 4, 6):
        outputs = tuple(torch.randn(2, 3, generator=generator) for _ in range(2))
        ours.update(step, outputs)
        theirs.current_step = step
        theirs.update(outputs)
    theirs.current_step = 9
    for one, other in zip(ours.forecast(9), theirs.predict(), strict=True):
        assert torch.allclose(one, other, atol=1e-4)
    assert ours.bytes == (order + 1) * 2 * 6 * 4


def test_the_error_and_its_threshold_are_the_papers() -> None:
    """The error is relative to what was computed, in L2; its bound falls geometrically along the schedule."""
    assert relative_error(torch.tensor([3.0, 0.0]), torch.tensor([0.0, 4.0])) == pytest.approx(5 / 4)
    decisions = Decisions(checked({"threshold": 0.3, "decay": 0.05}, speca.KNOWN))
    assert [decisions.threshold(done) for done in (0.0, 0.5, 1.0)] == pytest.approx(
        [0.3, 0.3 * 0.05**0.5, 0.015]
    )


def test_accepted_forecasts_follow_each_other_up_to_a_bound() -> None:
    """The first steps are computed, then as many forecasts as may follow each other; those that may go
    unverified do."""
    decisions = Decisions(checked({"computed_first": 2, "longest": 3, "unverified": 1}, speca.KNOWN))
    computed, verified = [], []
    for step in range(10):
        computed.append(decisions.computes(step))
        verified.append(decisions.verifies)
    assert computed == [True, True, False, False, False, True, False, False, False, True]
    assert verified == [False, False, False, True, True, False, False, True, True, False]


def run(pipe: Any, **options: Any) -> torch.Tensor:
    """A generation under SpeCa."""
    with methods.get("speca").apply(pipe, options):
        return generate(pipe, steps=STEPS)


def test_a_rejected_forecast_is_discarded_and_the_step_computed(pipe: Any) -> None:
    """Where no error is small enough every step is computed, and the latents are the baseline's."""
    assert torch.equal(run(pipe, threshold=0.0), generate(pipe, steps=STEPS))


def test_what_is_not_verified_is_not_rejected(pipe: Any) -> None:
    """Whatever the threshold, unverified forecasts are those of a threshold that accepts all."""
    accepted = run(pipe, **ACCEPTING)
    assert torch.equal(run(pipe, **ACCEPTING | {"threshold": 0.0, "unverified": 3}), accepted)
    assert not torch.equal(run(pipe, **ACCEPTING | {"threshold": 0.0, "unverified": 2}), accepted)


def test_a_rejected_forecast_that_is_kept_has_the_next_step_computed(pipe: Any) -> None:
    """As in the authors' code: of rejected forecasts none follows another, so they are those that a bound of
    one forecast between computed steps leaves."""
    kept = run(pipe, threshold=0.0, rejected="kept")
    assert torch.equal(kept, run(pipe, threshold=10.0, decay=1.0, longest=1))
    assert not torch.equal(kept, generate(pipe, steps=STEPS))


def test_verifying_costs_one_block(tiny_model_dir: Path) -> None:
    """A verified forecast runs the last block, and an accepted one nothing else of the blocks."""

    def cost(**options: Any) -> float:
        given = spec.model_copy(update={"method": "speca", "options": ACCEPTING | options})
        return flops.candidate(session.under(given))

    spec = RunSpec(
        suite="s", name="n", method="baseline", model=str(tiny_model_dir), num_inference_steps=STEPS,
        batch_size=2,
    )  # fmt: skip
    session = Session.open(spec)
    parts, forecasts = flops.count(session), 6  # of ten steps: two computed, then three of four
    layers = len(session.pipe.transformer.transformer_blocks)
    blocks = parts.attention + parts.mlp
    unverified = cost(unverified=3)
    assert unverified == pytest.approx(parts.generation(STEPS) - forecasts * blocks)
    assert cost() - unverified == pytest.approx(forecasts * blocks / layers, rel=0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"decay": 2}, "decay: 2 is not allowed; allowed: a number from 0 to 1"),
        ({"rejected": "x"}, "rejected: 'x' is not allowed; allowed: recomputed, kept"),
        ({"longest": 0}, "longest: 0 is not allowed; allowed: a whole number from 1 to 50"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    """Each is refused in one line with the option, its value and what is allowed."""
    with pytest.raises(BadInput) as caught:
        methods.check("speca", options, "suite")
    assert message in str(caught.value)


def test_where_it_was_not_tried_is_named() -> None:
    """Pipelines that call their transformer twice a step are a gap with its reason."""
    assert "tried" in (methods.get("speca").gap("WanPipeline", {}) or "")
    assert methods.get("speca").gap("DiTPipeline", {}) is None
