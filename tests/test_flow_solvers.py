"""A flow that a multistep solver solves, as Wan's has it, is a flow to every option of the solver."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler

from bench.methods.scheduler import is_flow, solver

FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}


def sigmas(own: Any, **options: Any) -> torch.Tensor:
    """Noise levels that a scheduler has at 6 steps under options of the solver, `[7]`."""
    pipe = SimpleNamespace(scheduler=own)
    with solver(pipe, options):
        pipe.scheduler.set_timesteps(6)
        found: torch.Tensor = pipe.scheduler.sigmas
        return found


def test_the_fields_of_a_scheduler_tell_a_flow() -> None:
    """A solver of both kinds is a flow's where its prediction type says so."""
    assert is_flow(SimpleNamespace(scheduler=UniPCMultistepScheduler(**FLOW)))
    assert is_flow(SimpleNamespace(scheduler=FlowMatchEulerDiscreteScheduler()))
    assert not is_flow(SimpleNamespace(scheduler=UniPCMultistepScheduler()))


@pytest.mark.parametrize("own", [UniPCMultistepScheduler(**FLOW), FlowMatchEulerDiscreteScheduler(shift=3.0)])
def test_another_solver_goes_through_the_same_flow(own: Any) -> None:
    """It keeps the flow and its shift, and takes another; a spacing of noise schedules is refused."""
    kept, moved = sigmas(own, scheduler="dpm_solver++"), sigmas(own, scheduler="dpm_solver++", shift=5.0)
    u = torch.linspace(1, 1 / 1000, 7, dtype=torch.float64)[:-1].float()
    assert torch.allclose(kept[:-1], 3 * u / (1 + 2 * u), atol=2e-3)
    assert (moved[1:-1] > kept[1:-1]).all()
    assert (sigmas(own, shift=5.0)[1:-1] > sigmas(own)[1:-1]).all()
    with pytest.raises(ValueError, match="spacing: 'karras' is not allowed on a flow"):
        sigmas(own, scheduler="dpm_solver++", spacing="karras")
