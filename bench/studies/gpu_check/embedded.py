"""The embedded models on the device: the same drift as on a CPU, and the distance to real images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from bench.embedded import load_pipeline, load_text_pipeline
from bench.pipeline import conditions
from bench.pipeline.session import Session
from bench.spec.prompts import Prompts
from bench.spec.run_spec import RunSpec
from bench.studies.gpu_check.rig import Rig, skipping
from bench.studies.gpu_check.step import Value

COMPARED = 4  # images made on both devices
BATCH = 250  # images at once


def drift(rig: Rig) -> dict[str, Value]:
    """Compare the drift of DQAR on the device with that on a CPU, on the class-conditional model.

    Args:
        rig: the scale of the check.

    Returns:
        Relative L2 of the final latents from the baseline's, by device.
    """
    return _compared(rig, load_pipeline, model="embedded")


def text_drift(rig: Rig) -> dict[str, Value]:
    """Compare the drift of DQAR on the device with that on a CPU, on the text-to-image model.

    Args:
        rig: the scale of the check.

    Returns:
        Relative L2 of the final latents from the baseline's, by device.
    """
    return _compared(
        rig, load_text_pipeline, model="embedded-t2i", prompts=Prompts.read("emoji"), scheduler=None,
        timestep_spacing=None,
    )  # fmt: skip


def _compared(rig: Rig, load: Callable[[torch.dtype], Any], **fields: Any) -> dict[str, Value]:
    spec = rig.spec(
        "dqar", skipping(rig.scale.model_steps), weights="trained", dtype="bf16",
        num_inference_steps=rig.scale.steps, batch_size=COMPARED, **fields,
    )  # fmt: skip
    values: dict[str, Value] = {}
    drifts: list[float] = []
    for device in dict.fromkeys(("cpu", "cuda" if rig.on_cuda else "cpu")):
        drifts.append(_drift(spec, load(torch.bfloat16).to(device)))
        values[f"drift on {device}"] = drifts[-1]
    return values | {"device over CPU": drifts[-1] / drifts[0]}


def _drift(spec: RunSpec, pipe: Any) -> float:
    """The mean over images of the candidate's distance from the baseline, relative to the baseline."""
    pipe.set_progress_bar_config(disable=True)
    session = Session(pipe=pipe, spec=spec, labels=conditions.numbers(spec, pipe))
    arms = (session.baseline, session.candidate)
    base, candidate = (arm(range(COMPARED)).latents.flatten(1) for arm in arms)
    return float(((candidate - base).norm(dim=1) / base.norm(dim=1)).mean())


def distance(rig: Rig) -> dict[str, Value]:
    """Measure the Fréchet distance of generated images to held-out real ones, by the embedded extractor
    (no FID).

    Args:
        rig: the loaded model and the scale of the check.

    Returns:
        The distance, and the numbers of images.
    """
    from bench.embedded import extractor
    from dqar.evaluation.frechet import fitted, frechet_distance

    spec = rig.spec(
        model="embedded", weights="trained", dtype="bf16", num_inference_steps=rig.scale.steps,
        batch_size=BATCH,
    )  # fmt: skip
    pipe: Any = load_pipeline(torch.bfloat16).to("cuda" if rig.on_cuda else "cpu")
    pipe.set_progress_bar_config(disable=True)
    session = Session(pipe=pipe, spec=spec, labels=conditions.numbers(spec, pipe))
    n = rig.scale.images
    parts = [session.baseline(range(i, min(i + BATCH, n))).images for i in range(0, n, BATCH)]
    features = extractor.extract(torch.cat(parts))
    real = extractor.reference_features("heldout")
    return {"FD (dqar-emoji-96)": frechet_distance(fitted(features), fitted(real)), "images": n}
