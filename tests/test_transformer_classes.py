"""DQAR on every transformer class of the installed diffusers: right in every bit, or refused in one line."""

from __future__ import annotations

import pytest

from bench.studies.families.checks import examine
from bench.studies.families.configurations import CONFIGURATIONS, NOT_DENOISERS, installed, unknown

# What may be refused; all else must be right. A model's own reason stands in the report.
MAY_BE_REFUSED = {"mlp", "guidance, halves", "kv", "entropy"}
# One of each kind: classes, skips between blocks, refiners, joint blocks, single ones after them, two calls
# a step, video, audio.
KINDS = ("dit", "hunyuan_dit", "lumina2", "sd3", "flux", "qwen_image", "wan", "stable_audio")


def test_every_class_has_been_looked_at() -> None:
    """A class that diffusers adds is in the table, or named as no denoiser with a reason."""
    assert not unknown()
    assert installed() >= NOT_DENOISERS.keys()


@pytest.mark.everyday(*KINDS)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_right_or_refused(name: str) -> None:
    """Off, attention, MLP, forecasts, skipped steps, calls of two branches, guidance, K/V and entropy:
    every outcome is right, or one of those that a model may refuse."""
    outcomes = examine(CONFIGURATIONS[name])
    assert [(demand, o) for demand, o in outcomes.items() if not o.allowed] == []
    assert {demand for demand, o in outcomes.items() if o.verdict == "refused"} <= MAY_BE_REFUSED
