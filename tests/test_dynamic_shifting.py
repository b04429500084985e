"""Calibration where a pipeline shifts its own schedule: SNR and cost are those of what runs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diffusers import DEISMultistepScheduler
from test_random_architectures import TINY, tiny
from typer.testing import CliRunner

import dqar
from bench.cli.main import app
from bench.embedded import TEXT_MODEL_DIR
from bench.errors import BadInput
from bench.measure import paired
from bench.methods.dqar import shape_of
from bench.pipeline.architectures import ARCHITECTURES
from bench.pipeline.beginning import beginning
from bench.pipeline.session import Session
from bench.spec.suite import Suite
from bench.studies.calibrate.candidate import CandidatePlan
from bench.studies.calibrate.trial import Trials
from dqar.plan import BOTH, CONDITIONAL
from dqar.policy.saved_plan import SavedPlan

pytestmark = pytest.mark.filterwarnings("ignore")
FLUX = "black-forest-labs/FLUX.1-dev"


@pytest.fixture(scope="module")
def flux() -> Any:
    """A session of a tiny Flux with random weights: one branch, sigmas of its own, shifted by its size."""
    full = ARCHITECTURES[FLUX]
    ARCHITECTURES[FLUX] = tiny(full, *TINY["flux"])
    size = {"height": 64, "width": 64}
    suite = Suite.load("flux", call=size, num_inference_steps=5, dtype="fp32", batch_size=2)
    yield Session.open(suite.specs()[0].model_copy(update={"weights": "random"}))
    ARCHITECTURES[FLUX] = full


def test_the_schedule_is_the_one_that_a_generation_has(flux: Session) -> None:
    """SNR and branches are known from the first step, and afterwards nothing is left of the look."""
    before = flux.baseline(range(2)).latents
    start = beginning(flux)
    dqar.enable(flux.pipe, dqar.DQARConfig.preset("maximum", **shape_of(flux.pipe)))
    flux.baseline(range(1))
    summary = dqar.summary(flux.pipe)
    dqar.disable(flux.pipe)
    assert np.array_equal(start.snr, summary.snr) and len(start.snr) == 5
    assert not start.guided
    assert paired.drift(flux.baseline(range(2)).latents, before).max() == 0
    assert "step" not in vars(flux.pipe.scheduler)


def trials(session: Session, options: dict[str, Any]) -> Trials:
    """Trials of a session, without a target to drift from."""
    made: Trials = object.__new__(Trials)
    made.session = session.under(session.spec.model_copy(update={"method": "dqar", "options": options}))
    made.shares = {"attention": 0.3}
    return made


def test_without_guidance_no_step_costs_half(flux: Session) -> None:
    """A plan that asks for one branch of a model without guidance costs what it runs: the whole step."""
    layers = int(shape_of(flux.pipe)["num_layers"])
    costs = [
        trials(flux, {}).cost(CandidatePlan((BOTH, kind, kind, BOTH, BOTH), (0,) * 5).plan(layers))
        for kind in (BOTH, CONDITIONAL)
    ]
    assert costs == [1.0, 1.0]


def test_a_solver_that_the_pipeline_cannot_use_is_one_line(flux: Session) -> None:
    """Flux gives its scheduler sigmas, which a solver of no flow does not take: refused in one line."""
    own, flux.pipe.scheduler = flux.pipe.scheduler, DEISMultistepScheduler()
    try:
        with pytest.raises(BadInput) as caught:
            _ = trials(flux, {"scheduler": "deis"}).snr
    finally:
        flux.pipe.scheduler = own
    assert str(caught.value).startswith("calibrate: --solver: 'deis' does not run on this pipeline")
    assert str(caught.value).endswith("allowed: own") and "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("solver", ["own", "dpm_solver++"])
def test_calibrate_runs_on_a_shifted_flow(tmp_path: Path, solver: str) -> None:
    """`bench calibrate` writes a plan for a flow whose shift depends on the image's size."""
    model = tmp_path / "model"
    shutil.copytree(TEXT_MODEL_DIR, model)
    file = model / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"use_dynamic_shifting": True}))
    prompts = tmp_path / "two.txt"
    prompts.write_text("red heart\nfull moon\n")
    command = [
        "calibrate", "--out", tmp_path / "plans", "--model", model, "--prompts", prompts, "--solver", solver,
        "--steps", 5, "--images", 2, "--trials", 1, "--speedups", 2, "--results", tmp_path / "r", "--reports",
        tmp_path / "p",
    ]  # fmt: skip
    done = CliRunner().invoke(app, list(map(str, command)))
    assert done.exit_code == 0, done.output
    (found,) = (tmp_path / "plans").glob("*.json")
    assert SavedPlan.load(found).facts["held_out"]["mean"] > 0
