"""The pipeline that the steps share: loaded once, at full size on a device or at toy size on a CPU."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from bench.machine.device import device_type
from bench.measure import flops, timing
from bench.methods.compilation import CUDA_GRAPHS, REGIONAL, WHOLE, compiled
from bench.pipeline import conditions, models
from bench.pipeline.session import Session
from bench.record import Limits, Median, Timing
from bench.spec.run_spec import RunSpec
from bench.spec.settings import QualitySettings, TimingSettings


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How large the check is."""

    model: str
    weights: str
    dtype: str
    batch: int  # images of a throughput measurement
    steps: int  # denoising steps of a compiled generation
    eager_steps: int  # of an eager one
    model_steps: int  # of `steps`, at which the model runs under DQAR
    pairs: tuple[int, int]  # fewest and most pairs of generations
    budget_s: float
    images: int  # generated for the distance to real ones
    side: int  # latent side of the text-to-image shapes
    layers: int | None  # of those shapes; None = the published number
    heads: int


FULL = Scale(
    model="facebook/DiT-XL-2-256", weights="random", dtype="bf16", batch=32, steps=50, eager_steps=20,
    model_steps=13, pairs=(4, 12), budget_s=12, images=2000, side=128, layers=None, heads=24,
)  # fmt: skip
TOY = Scale(
    model="embedded", weights="trained", dtype="fp32", batch=2, steps=8, eager_steps=6,
    model_steps=3, pairs=(2, 2), budget_s=1, images=8, side=8, layers=1, heads=2,
)  # fmt: skip

PRESET: dict[str, Any] = {"preset": "maximum", "use_layer_scheduling": False, "warmup_fraction": 0.0}
NOTHING = PRESET | {"entropy_threshold": 0.0, "quantization_bits": 16}  # the gate on, reuse forbidden
EVERY_SECOND = PRESET | {"max_age": 1}


def skipping(model_steps: int) -> dict[str, Any]:
    """Choose options under which whole steps are skipped.

    Args:
        model_steps: how many steps the model runs at, at least 1.

    Returns:
        Options of the method dqar.
    """
    return {"preset": "maximum", "layer_fraction": 0.0, "model_steps": model_steps}


@dataclass
class Rig:
    """What every step is given: the scale, and sessions over one loaded pipeline."""

    scale: Scale

    @property
    def on_cuda(self) -> bool:
        """Whether a CUDA device runs the steps."""
        return device_type() == "cuda"

    @cached_property
    def pipe(self) -> Any:
        """The eager pipeline."""
        return models.load(self.spec())

    def spec(self, method: str = "baseline", options: dict[str, Any] | None = None, **fields: Any) -> RunSpec:
        """Make a configuration at this scale.

        Args:
            method: the method's name, which is the configuration's as well.
            options: the method's options; None: none.
            **fields: fields of the configuration, in place of the scale's.

        Returns:
            The configuration.
        """
        scale = self.scale
        low, high = scale.pairs
        common: dict[str, Any] = {
            "suite": "gpu-check", "name": method, "method": method, "options": options or {},
            "model": scale.model, "weights": scale.weights, "dtype": scale.dtype, "scheduler": "ddim",
            "timestep_spacing": "trailing", "num_inference_steps": scale.eager_steps,
            "batch_size": scale.batch, "memory": False, "quality": QualitySettings(n=0, converged_n=0),
            "timing": TimingSettings(
                min_pairs=low, max_pairs=high, target_halfwidth=0.01, budget_s=scale.budget_s, warmup=1
            ),
        }  # fmt: skip
        return RunSpec(**common | fields)

    def session(self, spec: RunSpec, kind: str | None = None) -> Session:
        """Open a session over the loaded pipeline.

        Args:
            spec: the configuration; the transformer is compiled where it asks for that.
            kind: in which way, one of `bench.methods.compilation.KINDS`; None: as the configuration says.

        Returns:
            The session.
        """
        pipe = copy.copy(self.pipe)
        if spec.compile:
            kind = kind or (CUDA_GRAPHS if spec.cuda_graphs else WHOLE)
            # Compiled block by block the blocks themselves change, which the other steps share.
            own = copy.deepcopy(pipe.transformer) if kind == REGIONAL else pipe.transformer
            pipe.transformer = compiled(own, kind)
        return Session(pipe=pipe, spec=spec, labels=conditions.numbers(spec, pipe))

    def timed(self, *specs: RunSpec, kind: str | None = None) -> list[tuple[Session, Timing]]:
        """Time rounds of the baseline and each configuration, interleaved.

        Args:
            *specs: configurations of one baseline, at least one.
            kind: in which way their transformer is compiled, as `session` takes it.

        Returns:
            Session and timing of each.

        Raises:
            Exception: whatever one of them raised.
        """
        first = self.session(specs[0], kind)
        sessions = [first, *map(first.under, specs[1:])]
        pairs = timing.measure_together(sessions, lambda _: None)
        for measured in pairs:
            if measured.error:
                raise measured.error
        return [(s, timing.summarise(p, s.spec)) for s, p in zip(sessions, pairs, strict=True)]

    def limits(self, session: Session, timed: Timing) -> Limits:
        """Compute what FLOPs allow.

        Args:
            session: a session of the method.
            timed: its timing, from which the baseline's utilisation follows.

        Returns:
            The limits.
        """
        return flops.limits(session, flops.count(session), timed)


def scaled(interval: Median, factor: float) -> Median:
    """Scale an interval.

    Args:
        interval: the value with its interval.
        factor: above 0.

    Returns:
        The scaled one.
    """
    return Median(median=interval.median * factor, low=interval.low * factor, high=interval.high * factor)
