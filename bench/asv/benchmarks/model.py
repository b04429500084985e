"""The embedded model as the benchmarks use it: small batch, few steps, always the same noise."""

from __future__ import annotations

import os
import time
from functools import cache
from typing import Any

import torch

import dqar
from bench.measure.generation import Generation, Session
from bench.methods.dqar import shape_of
from bench.suite import RunSpec

CONFIGURATIONS = ("baseline", "conservative", "recommended", "aggressive", "maximum")
PICTURES = range(2)
SLOWDOWN = float(os.environ.get("DQAR_ASV_SLOWDOWN", "1"))  # `bench asv check` plants one


@cache
def session() -> Session:
    """The model with its stock pipeline, loaded once a process."""
    torch.set_num_threads(1)  # the steadiest: no thread waits for another
    spec = RunSpec(
        suite="asv", name="asv", method="baseline", model="embedded", num_inference_steps=10, batch_size=2
    )
    return Session.open(spec)


def under(configuration: str) -> Any:
    """The pipeline with that preset on, or untouched."""
    pipe = session().pipe
    dqar.disable(pipe)
    if configuration != "baseline":
        dqar.enable(pipe, dqar.DQARConfig.preset(configuration, **shape_of(pipe)))
    return pipe


def generation() -> Generation:
    """One generation by the pipeline as it stands, slower where a slowdown is planted."""
    made = session().baseline(PICTURES)
    time.sleep(made.seconds * (SLOWDOWN - 1))
    return made
