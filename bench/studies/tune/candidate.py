"""A candidate under judgement: the calibration images made by a method, how much of the model that evaluates,
and how far they end from the converged trajectory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import gmean
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from bench.machine import provenance
from bench.measure import flops, paired
from bench.measure.converged import ACCURATE, solution
from bench.methods import get
from bench.methods.scheduler import solver
from bench.methods.space import Baseline
from bench.pipeline import models
from bench.pipeline.facts import ModelFacts
from bench.pipeline.session import Session
from bench.spec.prompts import Prompts
from bench.spec.run_spec import RunSpec
from bench.store import keys
from bench.store.tensors import Cache

SEED = 5000  # of the first image, as in `calibrate`: no suite has these images
ELSEWHERE = 0.2  # drift above which an image counts as another one


@dataclass(frozen=True)
class Outcome:
    """What a candidate's options came to."""

    evaluations: float  # FLOPs of its transformer, in those of one evaluation with guidance
    speedup: float  # FLOPs of the whole pipeline, baseline over candidate
    drifts: tuple[float, ...]  # of each image, from the converged latents

    @property
    def score(self) -> float:
        """What candidates are compared by, less is better: the geometric mean, as in `calibrate`, because
        single images that end elsewhere would decide a mean."""
        return float(gmean(self.drifts))

    @property
    def elsewhere(self) -> float:
        """The share of images that end elsewhere."""
        return float(np.mean(np.array(self.drifts) > ELSEWHERE))


@dataclass(frozen=True, kw_only=True)
class Task:
    """What methods are to make faster, and on which images they are judged."""

    model: str
    steps: int
    images: int
    guidance: float
    prompts: Prompts | None = None

    @property
    def baseline(self) -> Baseline:
        """The run that is to be made faster."""
        return Baseline(self.steps, ModelFacts.of(models.directory(self.model)).flow_matching)

    def spec(self) -> RunSpec:
        """Make the baseline's configuration.

        Returns:
            DDIM at trailing timesteps, of a flow its own scheduler.
        """
        usual: dict[str, Any] = {"scheduler": "ddim", "timestep_spacing": "trailing"}
        return RunSpec(
            suite="tune", name="tune", method="baseline", model=self.model, batch_size=self.images, seed=SEED,
            num_inference_steps=self.steps, guidance_scale=self.guidance, prompts=self.prompts,
            **({} if self.baseline.flow else usual),
        )  # fmt: skip


# Fused attention, of which torch counts the GPU's alone; the CPU's has the same products.
FUSED = torch.ops.aten._scaled_dot_product_flash_attention
FUSED_ON_CPU = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu


class Products(TorchDispatchMode):
    """Counts the FLOPs of matrix products and convolutions as `flops.counting` does, in less time:
    it asks neither which module an operator is of nor how one that it does not know decomposes.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops = 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operator and add its FLOPs."""
        result = func(*args, **(kwargs or {}))
        operator = func._overloadpacket
        count = flop_registry.get(FUSED if operator is FUSED_ON_CPU else operator)
        if count is not None:
            self.flops += count(*args, **(kwargs or {}), out_val=result)
        return result


class Judge:
    """Judges candidates on a model that is loaded once: call it with a method and its options.

    Args:
        task: What is judged.
        results: Where the converged latents are kept.
    """

    def __init__(self, task: Task, results: Path) -> None:
        self.spec = task.spec()
        models.check_settings(self.spec)
        self.session = Session.open(self.spec)
        self.samples = range(task.images)
        self.pipeline = type(self.session.pipe).__name__
        directory = results / "tune" / provenance.machine() / ".cache"
        self.cache = Cache(directory, keys.inputs(self.spec, results))
        self.cost = flops.count(self.session)
        self.encoders = self._counted(self.session, num_inference_steps=1)[0] - self.cost.forward
        key = self.cache.key(self.spec, ACCURATE)
        self.target = self.cache.kept(f"solved-{key}", lambda: {"latents": self._solved()})["latents"]

    def __call__(self, method: str, options: Mapping[str, Any]) -> Outcome:
        """Generate the calibration images once by the method.

        Raises:
            ValueError: the method does not take these options, or not on this model.
        """
        chosen = get(method)
        chosen.check(dict(options))
        if why := chosen.gap(self.pipeline, dict(options)):
            raise ValueError(why)
        session = self.session.under(
            self.spec.model_copy(update={"method": method, "options": dict(options)})
        )
        with undecoded(session.pipe):
            _ = session.resolved  # measured before anything is counted
        counted, latents = self._counted(session)
        transformer = counted - self.encoders
        whole = self.cost.generation(self.spec.num_inference_steps)
        return Outcome(
            evaluations=transformer / self.cost.forward,
            speedup=whole / (transformer + self.cost.rest),
            drifts=tuple(paired.drift(latents, self.target).tolist()),
        )

    def _counted(self, session: Session, **call: Any) -> tuple[float, Tensor]:
        """The FLOPs of a generation without its decoder, and its latents."""
        with undecoded(session.pipe), Products() as products:
            latents = session.candidate(self.samples, **call).latents
        return products.flops, latents

    def _solved(self) -> Tensor:
        pipe = self.session.pipe
        with undecoded(pipe), solver(pipe, solution(pipe)) as call:
            return self.session.baseline(self.samples, **call).latents


@contextmanager
def undecoded(pipe: Any) -> Iterator[None]:
    """Let a pipeline's generations decode nothing: only their final latents matter.

    Args:
        pipe: its autoencoder decodes again afterwards.
    """

    def decode(latents: Tensor, return_dict: bool = True, **_: Any) -> Any:
        from diffusers.models.autoencoders.vae import DecoderOutput

        blank = torch.zeros(len(latents), 3, 8, 8)
        return DecoderOutput(sample=blank) if return_dict else (blank,)

    pipe.vae.decode = decode
    try:
        yield
    finally:
        pipe.vae.__dict__.pop("decode", None)
