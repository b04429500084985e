"""The embedded model as the benchmarks use it: small batch, few steps, always the same noise."""

from __future__ import annotations

import os
import time
from functools import cache
from typing import Any

import torch

import dqar
from bench.methods.dqar import shape_of
from bench.pipeline.session import Generation, Session
from bench.spec.run_spec import RunSpec

SKIPPING = {"layer_fraction": 0.0, "model_steps": 5}  # whole steps skipped, as on the front
CONFIGURATIONS = ("baseline", "conservative", "recommended", "aggressive", "maximum", "skipping")
SAMPLES = range(2)
SLOWDOWN = float(os.environ.get("DQAR_ASV_SLOWDOWN", "1"))  # `bench asv check` plants one


@cache
def session() -> Session:
    """Load the embedded model with its stock pipeline, once a process.

    Returns:
        Its session: ten steps, two images.
    """
    torch.set_num_threads(1)  # the steadiest: no thread waits for another
    spec = RunSpec(
        suite="asv", name="asv", method="baseline", model="embedded", num_inference_steps=10, batch_size=2
    )
    return Session.open(spec)


def under(configuration: str) -> Any:
    """Put the pipeline under a configuration.

    Args:
        configuration: a preset of DQAR; "skipping": maximum with half the steps skipped; "baseline":
            untouched.

    Returns:
        The pipeline.
    """
    pipe = session().pipe
    dqar.disable(pipe)
    name, changes = ("maximum", SKIPPING) if configuration == "skipping" else (configuration, {})
    if configuration != "baseline":
        dqar.enable(pipe, dqar.DQARConfig.preset(name, **shape_of(pipe), **changes))
    return pipe


def generation() -> Generation:
    """Generate by the pipeline as it stands, slower where a slowdown is planted.

    Returns:
        Latents, images and the seconds of the call without what was planted.
    """
    result = session().baseline(SAMPLES)
    time.sleep(result.seconds * (SLOWDOWN - 1))
    return result
