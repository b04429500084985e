"""DQAR on stock pipelines with their default schedulers, against reuse by brute force."""

from __future__ import annotations

import pytest

from bench.studies.families.pipeline_checks import PipelineExamination
from bench.studies.families.study import PIPELINES

MAY_BE_REFUSED = {"mlp", "guidance"}
# One of each kind: classes, halves of a batch, guidance within the model, two calls, two transformers, video.
KINDS = ("dit", "sd3", "flux", "qwen_image", "wan22", "cogvideox")


@pytest.mark.everyday(*KINDS)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", PIPELINES)
def test_right_or_refused(name: str) -> None:
    """The latents are those of brute force, branch by branch, and the summary's steps the pipeline's."""
    tiny = PIPELINES[name]
    examination = PipelineExamination(tiny)
    outcomes = examination.outcomes()
    assert [(demand, o) for demand, o in outcomes.items() if not o.allowed] == []
    assert {demand for demand, o in outcomes.items() if o.verdict == "refused"} <= MAY_BE_REFUSED
    assert examination.calls >= tiny.calls
