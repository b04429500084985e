"""Drift from the converged trajectory under each configuration, on the same images: plain data, no timing."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.measure import flops, paired
from bench.measure.converged import ACCURATE, accurate_solver, solution
from bench.methods import get
from bench.methods.dqar import shape_of
from bench.methods.scheduler import SCHEDULERS, is_flow
from bench.pipeline.beginning import beginning
from bench.pipeline.facts import ModelFacts
from bench.pipeline.models import fingerprint_of
from bench.pipeline.session import Session, generate
from bench.record import Mean
from bench.studies.generality.setting import AXES, DPM, OTHER_GUIDANCE, SETTINGS, Setting, plan_file
from bench.studies.generality.transfer import by_log_snr, by_share
from bench.studies.signals import analysis
from bench.studies.signals.measure import table
from dqar.plan import FloatArray
from dqar.policy.saved_plan import SavedPlan
from dqar.presets import BALANCED

BATCH = 12
CHECKED = 2  # images on which that is compared with ten times the baseline's steps
SPREAD: dict[str, Any] = {"preset": "maximum", "layer_fraction": 0.0}
CONDITIONS = ("home", "guidance", "prompts", "steps", "solver")


@dataclass(frozen=True)
class Run:
    """A configuration and the drift of each image from the converged trajectory."""

    name: str
    condition: str  # of CONDITIONS
    evaluations: float  # of the model, an image: two guidance branches are one
    drifts: list[float]
    flops: float | None = None  # of a generation, relative to the baseline's
    facts: dict[str, Any] = field(default_factory=dict)


class Bench:
    """A model, and what its runs share.

    Args:
        setting: the model, its baseline and its plans.
        count: number of images of each run.
    """

    def __init__(self, setting: Setting, count: int) -> None:
        self.setting, self.count = setting, count
        self.session = Session.open(setting.spec(count))
        self.layers = int(shape_of(self.session.pipe)["num_layers"])
        self.targets: dict[str, Tensor] = {}
        self.runs: list[Run] = []

    def at(self, condition: str) -> Session:
        """Open the session under a condition.

        Args:
            condition: the name of a condition; home, steps and solver share one session.

        Returns:
            The session.
        """
        changes: dict[str, dict[str, Any]] = {
            "guidance": {"guidance": OTHER_GUIDANCE},
            "prompts": {"prompts": self.setting.other_prompts},
        }
        return self._session(self.setting.spec(self.count, **changes.get(condition, {})))

    def _session(self, spec: Any) -> Session:
        from bench.pipeline import conditions

        return Session(self.session.pipe, spec, conditions.numbers(spec, self.session.pipe))

    def target(self, condition: str) -> Tensor:
        """Make the converged latents under a condition, once; steps and solver do not change them.

        Args:
            condition: the name of a condition.

        Returns:
            Latents `[images, ...]`.
        """
        key = condition if condition in ("guidance", "prompts") else "home"
        if key not in self.targets:
            self.targets[key] = self._generated(self.at(key), "fewer_steps", solution(self.session.pipe))[0]
        return self.targets[key]

    def solved(self, steps: int) -> dict[str, Any]:
        """Choose options of DPM-Solver++.

        Args:
            steps: number of denoising steps.

        Returns:
            Options of the method fewer_steps.
        """
        return {"scheduler": DPM, "steps": steps}

    def _generated(self, at: Session, method: str, options: Mapping[str, Any]) -> tuple[Tensor, float]:
        """Generate all images by a method.

        Args:
            at: the session under a condition.
            method: the method's name.
            options: the method's options.

        Returns:
            The final latents, and the evaluations of the model that each image took.
        """
        session = at.under(at.spec.model_copy(update={"method": method, "options": dict(options)}))
        latents, samples = [], 0
        with evaluated(session.pipe) as rows, get(method).apply(session.pipe, session.spec.options) as arm:
            for start in range(0, self.count, BATCH):
                batch = range(start, min(start + BATCH, self.count))
                latents.append(generate(session.pipe, session.arguments(batch) | arm.call).latents)
                samples += len(batch)
        return torch.cat(latents), rows[0] / samples / 2

    def run(
        self,
        name: str,
        method: str,
        options: Mapping[str, Any],
        condition: str = "home",
        costed: bool = False,
    ) -> Run:
        """Measure a configuration and keep the run.

        Args:
            name: the run's name.
            method: the method's name.
            options: the method's options.
            condition: the name of a condition.
            costed: whether FLOPs are counted as well.

        Returns:
            The run: evaluations and drift of each image.
        """
        at = self.at(condition)
        latents, evaluations = self._generated(at, method, options)
        drifts = paired.drift(latents, self.target(condition)).tolist()
        share = self._flops(at, method, options) if costed else None
        self.runs.append(Run(name, condition, evaluations, drifts, share))
        return self.runs[-1]

    def _flops(self, at: Session, method: str, options: Mapping[str, Any]) -> float:
        one = at.spec.model_copy(update={"method": method, "options": dict(options), "batch_size": 1})
        return flops.candidate(at.under(one)) / self.whole

    @cached_property
    def whole(self) -> float:
        """FLOPs of a generation of one image by the baseline."""
        one = self.session.under(self.session.spec.model_copy(update={"batch_size": 1}))
        return flops.count(one).generation(self.setting.steps)

    def snr(self, options: Mapping[str, Any]) -> FloatArray:
        """Compute the SNR of a schedule.

        Args:
            options: name its solver and steps.

        Returns:
            The SNR of each step, `[steps]`.
        """
        return beginning(self.session.under(self.session.spec.model_copy(update={"options": options}))).snr


@contextmanager
def evaluated(pipe: Any) -> Iterator[list[float]]:
    """Count the rows of the batches that the model's first block is given, both guidance halves included.

    Args:
        pipe: a pipeline of diffusers.

    Yields:
        The count so far, in a list of one.
    """
    rows = [0.0]

    def count(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        rows[0] += len(args[0] if args else kwargs["hidden_states"])

    hook = pipe.transformer.transformer_blocks[0].register_forward_pre_hook(count, with_kwargs=True)
    try:
        yield rows
    finally:
        hook.remove()


def measured(model: str, count: int, signal_images: int = 8) -> dict[str, Any]:
    """Measure everything on a model.

    Args:
        model: a key of SETTINGS.
        count: number of images of each run.
        signal_images: number of images that signals are measured on.

    Returns:
        The measurements, ready for JSON.
    """
    setting = SETTINGS[model]
    bench = Bench(setting, count)
    _configurations(bench)
    _plans(bench)
    signal = table(bench.session.under(setting.spec(1)), signal_images, progress=False)
    return {
        "facts": _facts(bench),
        "runs": [asdict(run) | {"drifts": [float(f"{d:.4g}") for d in run.drifts]} for run in bench.runs],
        "signals": _signals(signal),
        "signal_images": signal_images,
    }


def _facts(bench: Bench) -> dict[str, Any]:
    setting, few = bench.setting, range(min(CHECKED, bench.count))
    finest = bench.session.baseline(few, num_inference_steps=10 * setting.steps).latents
    distance = paired.drift(bench.target("home")[: len(few)], finest).mean()
    return {
        "model": setting.model, "fingerprint": fingerprint_of(setting.model),
        "steps": setting.steps, "plan_steps": setting.plan_steps,
        "other_steps": setting.other_steps, "images": bench.count, "layers": bench.layers,
        "guidance": bench.session.spec.guidance_scale, "other_guidance": OTHER_GUIDANCE,
        "prompts": setting.prompts, "other_prompts": setting.other_prompts, "plans": setting.plans,
        "solver": type(bench.session.pipe.scheduler).__name__, "converged_steps": ACCURATE,
        "converged_solver": SCHEDULERS[accurate_solver(is_flow(bench.session.pipe))],
        "converged_distance": float(distance), "checked": len(few),
    }  # fmt: skip


def _configurations(bench: Bench) -> None:
    """The baseline, the presets, skipped steps and fewer steps, on the own solver and a better one."""
    half, third = bench.setting.evaluations
    bench.run("baseline", "baseline", {}, costed=True)
    for preset in (BALANCED, "recommended"):
        bench.run(preset, "dqar", {"preset": preset}, costed=True)
    bench.run("maximum, age 2", "dqar", {"preset": "maximum", "max_age": 2}, costed=True)
    for steps in (half, third):
        bench.run(f"spread {steps}", "dqar", SPREAD | {"model_steps": steps}, costed=True)
        bench.run(f"fewer {steps}", "fewer_steps", {"steps": steps}, costed=True)
        for axis, word in AXES.items():
            options = SPREAD | {"model_steps": steps, "forecast_over": axis}
            bench.run(f"spread {steps}, {word}", "dqar", options)
    on_dpm = SPREAD | {"model_steps": third} | bench.solved(bench.setting.steps)
    bench.run(f"DPM spread {third}", "dqar", on_dpm, costed=True)
    bench.run(f"DPM fewer {third}", "fewer_steps", bench.solved(third), costed=True)


def _plans(bench: Bench) -> None:
    """Plans under the conditions that they were made for, and others; the plain spread next to each."""
    setting = bench.setting
    home = bench.solved(setting.plan_steps)
    used: dict[str, dict[str, Any]] = dict.fromkeys(CONDITIONS, home)
    used |= {"steps": bench.solved(setting.other_steps), "solver": {"steps": setting.steps}}
    if setting.other_prompts is None:
        del used["prompts"]
    sources = {name: _source(bench, name) for one in SETTINGS.values() for name in one.plans}
    for condition, options in used.items():
        snr = bench.snr(options)
        for name, (plan, made_for) in sources.items():
            here = by_log_snr(plan, made_for, snr, bench.layers)
            _run_plan(bench, name, here, options, condition)
            if name == setting.model and condition in ("steps", "solver"):
                shared = by_share(plan, len(snr), bench.layers)
                _run_plan(bench, f"{name}, by share of steps", shared, options, condition)


def _source(bench: Bench, made_for: str) -> tuple[SavedPlan, FloatArray]:
    """A plan and the SNR of the steps that it was made for."""
    setting = next(one for one in SETTINGS.values() if made_for in one.plans)
    plan = SavedPlan.load(plan_file(setting.plans[made_for]))
    return plan, schedule(setting)


def schedule(setting: Setting) -> FloatArray:
    """Compute the SNR of the plans' schedule from the model's scheduler alone.

    Args:
        setting: the model and its plans.

    Returns:
        The SNR of each step, `[steps]`.
    """
    import diffusers

    from bench.embedded import MODEL_DIR, TEXT_MODEL_DIR
    from bench.methods.scheduler import from_pipeline
    from dqar.core.snr import schedule_snr

    directory = TEXT_MODEL_DIR if setting.prompts else MODEL_DIR
    assert ModelFacts.of(directory).flow_matching is bool(setting.prompts)
    kind = diffusers.FlowMatchEulerDiscreteScheduler if setting.prompts else diffusers.DDIMScheduler
    scheduler = kind.from_pretrained(directory / "scheduler")
    changes = {} if setting.prompts else {"timestep_spacing": "trailing"}
    holder = type("Holder", (), {"scheduler": scheduler})
    dpm = from_pipeline(holder, DPM, **changes)
    dpm.set_timesteps(setting.plan_steps)
    return schedule_snr(dpm)


def _run_plan(bench: Bench, name: str, plan: SavedPlan, options: Mapping[str, Any], condition: str) -> None:
    """Run a plan, and the spread of as many evaluations unless it has been run."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "plan.json"
        plan.save(path)
        moved = bench.run(name, "dqar", dict(options) | {"plan_path": str(path)}, condition)
    steps = round(moved.evaluations)
    spread = f"plain spread {steps}"
    if all((run.name, run.condition) != (spread, condition) for run in bench.runs):
        bench.run(spread, "dqar", SPREAD | dict(options) | {"model_steps": steps}, condition)
    moved.facts["compared_with"] = spread


def _signals(rows: Any) -> list[dict[str, Any]]:
    rows_of = []
    for error in ("hold", "forecast"):
        more = analysis.added(rows, error, "SNR + calibration")
        ranked = {each.signal: each for each in analysis.rankings(rows, error)}
        rows_of.append(
            {
                "error": error,
                "entropy_within_step": _parts(ranked["entropy"].within_step),
                "entropy_within_layer": _parts(ranked["entropy"].within_layer),
                "snr_within_layer": _parts(ranked["log_snr"].within_layer),
                "entropy_adds": _parts(more),
            }
        )
    return rows_of


def _parts(value: Mean | None) -> dict[str, float]:
    assert value is not None
    return {name: float(f"{each:.4g}") for name, each in value.model_dump().items()}
