"""A trial: a whole generation of the calibration images under a plan, and how far it ends from its target."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import dqar
from bench.errors import BadInput, one_line
from bench.machine import provenance
from bench.measure import flops, paired
from bench.measure.converged import converged
from bench.methods import get
from bench.methods.dqar import shape_of
from bench.methods.scheduler import OWN
from bench.pipeline import models
from bench.pipeline.beginning import Beginning, beginning
from bench.pipeline.session import Session, generate
from bench.record import Target
from bench.spec.run_spec import RunSpec
from bench.store import keys
from bench.store.tensors import Cache
from bench.studies.calibrate.candidate import CandidatePlan
from bench.studies.calibrate.search import Archive, Point
from dqar.config import DQARConfig
from dqar.core.reuse_gate import Reason
from dqar.integration.summary import Summary
from dqar.plan import BOTH, FloatArray, rules
from dqar.policy.saved_plan import SavedPlan

LARGE = 1e9  # a tolerance that accepts every forecast, but makes the runtime measure it
BATCH = 8  # images between two checks of whether a trial is still competitive
APART = 10_000  # between the seeds of calibration images and those held out


class Trials:
    """A model under plans for one solver; drift is from the baseline's latents or from the converged ones.

    Args:
        spec: the configuration under test; its batch is the images of the search.
        target: which latents drift is from.
        results: the root directory of the results, which keeps latents.
    """

    def __init__(self, spec: RunSpec, target: Target, results: Path) -> None:
        models.check_settings(spec)
        self.session = Session.open(spec)
        self.kind = target
        self.samples = range(spec.batch_size)
        self.cache = Cache(
            results / "calibrate" / provenance.machine() / ".cache", keys.inputs(spec, results)
        )
        _ = self.beginning  # refused before the target is made, which is long
        self.target = self._target(self.session)
        self.shares = _shares(flops.count(self.session))

    @cached_property
    def layers(self) -> int:
        """Layers of the model."""
        return int(shape_of(self.session.pipe)["num_layers"])

    @cached_property
    def beginning(self) -> Beginning:
        """The schedule of the plan's solver as the pipeline sets it, and whether it runs two branches."""
        try:
            return beginning(self.session)
        except ValueError as error:
            solver = self.session.spec.options.get("scheduler", OWN)
            raise BadInput(
                f"calibrate: --solver: {solver!r} does not run on this pipeline: {one_line(error)[:200]};"
                f" allowed: {OWN}"
            ) from error

    @property
    def snr(self) -> FloatArray:
        """The SNR of each step on the plan's solver, `[steps]`."""
        return self.beginning.snr

    def __call__(self, candidate: CandidatePlan, archive: Archive) -> Point | None:
        """Evaluate a plan on the calibration images, until it is clear that the archive has a better one."""
        return self.judged(candidate, archive.at(self.cost(candidate.plan(self.layers))))

    def judged(self, candidate: CandidatePlan, best: Point | None) -> Point | None:
        """Evaluate a plan, until it is clear that the best one known is better.

        Args:
            candidate: the plan.
            best: the best known of its cost; None: none is known.

        Returns:
            Its point; None where `best` is better.
        """
        plan = candidate.plan(self.layers)
        cost = self.cost(plan)
        drifts: list[float] = []
        for first in range(0, len(self.samples), BATCH):
            batch = self.samples[first : first + BATCH]
            latents, _ = self._made(self.session, plan, batch)
            drifts += _drift(latents, self.target[batch.start : batch.stop]).tolist()
            point = Point(cost, tuple(drifts), candidate)
            if best is not None and len(drifts) > 1 and point.loses_to(best):
                return None
        return point

    def cost(self, plan: SavedPlan) -> float:
        """Compute the FLOPs that a plan runs: what it asks for is not always what the runtime can grant.

        Args:
            plan: the plan to run.

        Returns:
            The share of the baseline's FLOPs of the transformer.
        """
        granted = rules(DQARConfig(), self.snr, self.layers, self.beginning.guided, plan)
        reused = (granted.blocked == Reason.REUSED).mean(axis=1)
        steps = granted.branches / BOTH * (1 - self.shares[plan.options["targets"]] * reused)
        return float(steps.sum()) / self.session.spec.num_inference_steps

    def expected(self, plan: SavedPlan) -> FloatArray:
        """Measure how far forecasts are off under a plan.

        Args:
            plan: the plan; the images of the search are generated under it.

        Returns:
            The relative error of the forecast at each step that runs, the last one's at those that do not, at
            least 1e-6.
        """
        _, summary = self._made(self.session, plan, self.samples, deviation_tolerance=LARGE)
        known = np.flatnonzero(np.isfinite(summary.deviation))
        if not known.size:
            return np.ones(len(summary.deviation))
        last = [known[known <= step].max(initial=known[0]) for step in range(len(summary.deviation))]
        return np.maximum(summary.deviation[last], 1e-6)

    def held_out(self, plan: SavedPlan, guidance: float | None = None) -> tuple[Tensor, Tensor]:
        """Measure a plan on seeds and labels that the search never saw.

        Args:
            plan: the plan to run.
            guidance: another weight than the study's; None: the study's.

        Returns:
            Each image's drift under the plan, and the baseline's own from the converged latents.
        """
        spec, half = self.session.spec, len(self.session.labels) // 2
        labels = self.session.labels[half:] + self.session.labels[:half]
        changes = {
            "seed": spec.seed + APART,
            "labels": labels,
            "guidance_scale": guidance or spec.guidance_scale,
        }
        other = Session(self.session.pipe, spec.model_copy(update=changes), labels=labels)
        latents, target = self._made(other, plan, self.samples)[0], self._target(other)
        return _drift(latents, target), _drift(self._own(other), target)

    def _made(
        self, session: Session, plan: SavedPlan, samples: range, **options: Any
    ) -> tuple[Tensor, Summary]:
        """The final latents of the session's images under the plan, and what was reused."""
        with tempfile.TemporaryDirectory() as temporary:
            path = Path(temporary) / "plan.json"
            plan.save(path)
            given = session.spec.options | {"plan_path": str(path)} | options
            with get("dqar").apply(session.pipe, given) as arm:
                result = generate(session.pipe, session.arguments(samples) | arm.call)
                return result.latents, dqar.summary(session.pipe)

    def _target(self, session: Session) -> Tensor:
        return converged(session, self.cache) if self.kind == "converged" else self._own(session)

    def _own(self, session: Session) -> Tensor:
        """The baseline's latents of the session's images, made once and kept."""
        key = self.cache.key(session.spec)
        tensors = self.cache.kept(f"own-{key}", lambda: {"latents": session.baseline(self.samples).latents})
        return tensors["latents"]


def judging(
    spec: RunSpec, target: Target, results: Path
) -> Callable[[tuple[CandidatePlan, Point | None]], Point | None]:
    """Load a model for a worker that evaluates candidates.

    Args:
        spec: the configuration under test.
        target: which latents drift is from.
        results: the root directory of the results, which keeps latents.

    Returns:
        Evaluates a candidate next to the best known of its cost, see `Trials.judged`.
    """
    trials = Trials(spec, target, results)
    return lambda item: trials.judged(*item)


def _drift(latents: Tensor, target: Tensor) -> Tensor:
    return torch.as_tensor(paired.drift(latents, target))


def _shares(cost: flops.Cost) -> dict[str, float]:
    """The share of a call's FLOPs that a reuse of all layers saves, by target."""
    attention, mlp = cost.attention / cost.forward, cost.mlp / cost.forward
    return {"attention": attention, "mlp": mlp, "both": attention + mlp}
