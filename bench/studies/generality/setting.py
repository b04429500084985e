"""What is measured on each of the two models."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.methods.dqar import PLANS
from bench.spec.prompts import Prompts
from bench.spec.run_spec import RunSpec

DPM = "dpm_solver++"
OTHER_GUIDANCE = 2.0
SEED = 70_000  # of images that no search saw: calibration's begin at 5,000, its held-out ones at 15,000


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A model, its baseline, and the plans that were made for it."""

    model: str
    steps: int  # of the baseline, on the model's own solver
    plan_steps: int  # of the plans' schedule, on DPM-Solver++
    other_steps: int  # that a plan is moved to
    plans: dict[str, str]  # what a plan was made for -> its name; the first is for the setting itself
    prompts: str | None = None
    other_prompts: str | None = None
    baseline: dict[str, Any]  # the solver's fields of the configuration

    @property
    def evaluations(self) -> tuple[int, int]:
        """Of the model, at which reuse and fewer steps are compared: a half and a third of the baseline's."""
        return self.steps // 2, round(self.steps / 2.7)

    def spec(self, images: int, guidance: float = 4.0, prompts: str | None = None) -> RunSpec:
        """Make the configuration of the baseline.

        Args:
            images: number of images, one batch.
            guidance: weight of classifier-free guidance.
            prompts: a file of prompts, or one that ships; None: the setting's own.

        Returns:
            The configuration.
        """
        chosen = prompts or self.prompts
        return RunSpec(
            suite="generality", name="generality", method="baseline", model=self.model, seed=SEED,
            batch_size=images, num_inference_steps=self.steps, guidance_scale=guidance,
            prompts=Prompts.read(chosen) if chosen else None, **self.baseline,
        )  # fmt: skip


def plan_file(name: str) -> Path:
    """Find a plan that ships.

    Args:
        name: the plan's name.

    Returns:
        Its file.
    """
    return PLANS / f"{name}.json"


AXES = {"log_snr": "over log-SNR", "step": "over steps"}  # of forecasts, in place of the default mixture

SETTINGS = {
    setting.model: setting
    for setting in (
        Setting(
            model="embedded",
            steps=25,
            plan_steps=20,
            other_steps=32,
            plans={"embedded": "dpm20-converged-5x"},
            baseline={"scheduler": "ddim", "timestep_spacing": "trailing"},
        ),
        Setting(
            model="embedded-t2i",
            steps=28,
            plan_steps=28,
            other_steps=40,
            plans={"embedded-t2i": "t2i-dpm-converged-2.8x"},
            prompts="emoji",
            other_prompts="lengths",
            baseline={},
        ),
    )
}
