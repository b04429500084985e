"""Pipelines of diffusers that can be measured, and what their calls take: known before anything loads."""

from __future__ import annotations

import inspect
from functools import cache
from typing import Any

from bench.errors import BadInput
from bench.pipeline import facts
from bench.spec.run_spec import RunSpec
from bench.spec.settings import Settings

OF_LABELS = "DiTPipeline"
# Those of `python -m bench families` that take a prompt alone, and weigh guidance by an argument of the call.
OF_PROMPTS = (
    "AllegroPipeline", "AuraFlowPipeline", "BriaPipeline", "ChromaPipeline", "CogVideoXPipeline",
    "CogView3PlusPipeline", "CogView4Pipeline", "Flux2KleinPipeline", "Flux2Pipeline", "FluxPipeline",
    "HunyuanDiTPipeline", "HunyuanVideoPipeline", "Kandinsky5T2VPipeline", "LTXPipeline", "LattePipeline",
    "Lumina2Pipeline", "LuminaPipeline", "MochiPipeline", "OvisImagePipeline", "PixArtAlphaPipeline",
    "PixArtSigmaPipeline", "QwenImagePipeline", "SanaPipeline", "SkyReelsV2Pipeline",
    "StableDiffusion3Pipeline", "WanPipeline", "ZImagePipeline",
)  # fmt: skip


@cache
def arguments_of(pipeline: str) -> tuple[str, ...]:
    """The names of the arguments that a pipeline's call takes.

    Args:
        pipeline: The name of its class in diffusers.

    Returns:
        Names, `self` among them.

    Raises:
        BadInput: this version of diffusers has no such pipeline.
    """
    import diffusers

    kind: Any = getattr(diffusers, pipeline, None)
    if kind is None:
        raise BadInput(f"model: {pipeline} is no pipeline of diffusers {diffusers.__version__}")
    return tuple(inspect.signature(kind.__call__).parameters)


def check_pipeline(name: str, index: dict[str, Any]) -> None:
    """Check that a pipeline can be measured.

    Args:
        name: The name of its class in diffusers.
        index: The content of its `model_index.json`.

    Raises:
        BadInput: It has no transformer, or is none of those supported.
    """
    shown = f"model: model_index.json: _class_name: {name[:80]!r}"
    if "transformer" not in index:
        raise BadInput(f"{shown} has no transformer; allowed: a pipeline with one, such as {OF_LABELS}")
    if name != OF_LABELS and name not in OF_PROMPTS:
        raise BadInput(f"{shown} is not supported; allowed: {', '.join((OF_LABELS, *OF_PROMPTS))}")


def check_call(settings: Settings, pipeline: str, flow_matching: bool) -> None:
    """Check that a model takes what the settings give it.

    Args:
        settings: the suite's, or a run's with its options.
        pipeline: the name of the pipeline's class, one that `check_pipeline` lets through.
        flow_matching: whether the model was trained by flow matching.

    Raises:
        BadInput: naming the field, its value and what is allowed.
    """
    prompts, model = settings.prompts, facts.shown(settings.model)
    if pipeline == OF_LABELS and prompts is not None:
        raise BadInput(f"prompts: {prompts.file!r} is not allowed: {model} takes class labels; allowed: null")
    if pipeline != OF_LABELS and prompts is None:
        raise BadInput(f"prompts: null is not allowed: {model} takes prompts; needed: a file with one a line")
    if pipeline != OF_LABELS and settings.labels != "cycle":
        raise BadInput(f"labels: not allowed: {model} takes prompts; allowed: cycle")
    given: dict[str, Any] = settings.call.given()
    if prompts and prompts.has_negatives:
        given["negative_prompt"] = "behind a tab"
    for field, value in given.items():
        if field not in arguments_of(pipeline):
            raise BadInput(f"{field}: {value!r} is not allowed: {pipeline} takes none; allowed: null")
    if flow_matching:
        _check_flow(settings)


def _check_flow(settings: Settings) -> None:
    """DDIM and timestep spacings are of noise schedules that preserve the variance."""
    options = settings.options if isinstance(settings, RunSpec) else {}
    for scheduler in (settings.scheduler, options.get("scheduler")):
        if scheduler == "ddim":
            raise BadInput(
                "scheduler: 'ddim' is not allowed for flow matching; allowed: null, dpm_solver++, unipc, deis"
            )
    for field, value in {
        "timestep_spacing": settings.timestep_spacing,
        "spacing": options.get("spacing"),
    }.items():
        if value is not None:
            raise BadInput(f"{field}: {value!r} is not allowed for flow matching; allowed: null")
