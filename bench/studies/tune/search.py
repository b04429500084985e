"""`python -m bench tune`: search DQAR's fields for the Pareto front of speedup and drift (optuna, TPE).

A trial's speedup is what counted FLOPs allow for the reuse it measured: it has no noise, so that a
search of few trials is not one for lucky seconds. The front's own seconds are measured at the end, in
pairs with the baseline. Trials are stored as they end; started again, a study goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import optuna
from torch import Tensor
from tqdm import tqdm

from bench import stats
from bench.errors import BadInput
from bench.measure import flops, paired, timing
from bench.pipeline import models
from bench.pipeline.session import Session
from bench.record import Mean, Median
from bench.run.placement import Placement
from bench.spec.prompts import Prompts
from bench.spec.run_spec import RunSpec
from bench.spec.settings import TimingSettings

Direction = Literal["maximize", "minimize"]
BATCH = 4  # trials that are suggested from one state of the study
DIRECTIONS: list[Direction] = ["maximize", "minimize"]  # speedup, drift


@dataclass(frozen=True)
class Point:
    """A configuration on the front."""

    options: dict[str, Any]
    limit: float  # speedup that FLOPs allow at the reuse measured
    drift: float  # on the trial's images
    held_out: Mean  # drift on images that no trial saw
    speedup: Median  # seconds, in pairs


class Evaluation:
    """Judges options by one generation: the speedup that FLOPs allow at the reuse measured, and the drift.

    Args:
        spec: the configuration; its batch is the images of a trial.
    """

    def __init__(self, spec: RunSpec) -> None:
        self.spec = spec
        self.session = Session.open(spec)
        self.seen = range(spec.batch_size)
        self.base: Tensor = self.session.baseline(self.seen).latents
        self.flops = flops.count(self.session).generation(spec.num_inference_steps)

    def __call__(self, options: dict[str, Any]) -> tuple[float, float]:
        """The speedup and the mean drift of a trial."""
        session = self.session.under(self.spec.model_copy(update={"options": options}))
        assert session.resolved is not None  # found before anything is counted
        with flops.counting_total() as total:
            generation = session.candidate(self.seen)
        return self.flops / total.flops, paired.drift(generation.latents, self.base).mean().item()


class Tuner:
    """A model, the baseline's images, and a stored study.

    Args:
        model: embedded, embedded-t2i, a directory or a hub id.
        steps: number of denoising steps.
        images: number of images of a trial, and of unseen ones.
        guidance: weight of classifier-free guidance.
        storage: the SQLite file that holds the study.
        prompts: prompts of the images; None: the model takes class labels.
    """

    def __init__(
        self,
        model: str,
        steps: int,
        images: int,
        guidance: float,
        storage: Path,
        prompts: Prompts | None = None,
    ) -> None:
        self.spec = RunSpec(
            suite="tune", name="tune", method="dqar", model=model, batch_size=images,
            num_inference_steps=steps, guidance_scale=guidance, prompts=prompts,
        )  # fmt: skip
        models.check_settings(self.spec)
        self.evaluation = Evaluation(self.spec)
        self.session, self.unseen = self.evaluation.session, range(images, 2 * images)
        texts = f"-{prompts.digest}" if prompts else ""
        self.study = open_study(storage, f"{self.session.spec.model}-{steps}-{images}-{guidance:g}{texts}")

    def search(self, trials: int, placement: Placement | None = None) -> None:
        """Run so many more trials, BATCH at a time whoever evaluates them: a seed fixes the search.

        Args:
            trials: how many.
            placement: whose workers evaluate them; None: this process.
        """
        make = partial(Evaluation, self.spec)
        with tqdm(total=trials, unit="trial", disable=None) as bar:
            for first in range(0, trials, BATCH):
                asked = [self.study.ask() for _ in range(min(BATCH, trials - first))]
                options = [suggested(trial) for trial in asked]
                outcomes = placement.map(make, options) if placement else map(self.evaluation, options)
                for trial, values in zip(asked, outcomes, strict=True):
                    self.study.tell(trial, values)
                    bar.update(1)

    def front(self, pairs: int) -> list[Point]:
        """Measure the study's Pareto front: each point's seconds and unseen images.

        Args:
            pairs: timed pairs of a point, at least 2.

        Returns:
            The points, the fastest first.
        """
        best = sorted(self.study.best_trials, key=lambda trial: -trial.values[0])
        distinct = {str(trial.values): trial for trial in best}
        base = self.session.baseline(self.unseen).latents
        return [self._point(trial, base, pairs) for trial in distinct.values()]

    def _point(self, trial: optuna.trial.FrozenTrial, base: Tensor, pairs: int) -> Point:
        options = suggested(trial)
        budget = TimingSettings(min_pairs=pairs, max_pairs=pairs, warmup=1)
        session = self._under(options, timing=budget)
        measured = timing.measure(session, lambda line: None)
        drift = paired.drift(session.candidate(self.unseen).latents, base)
        return Point(
            options=options | session.resolved,
            limit=trial.values[0],
            drift=trial.values[1],
            held_out=stats.mean_interval(drift),
            speedup=stats.speedup(measured.kept(), self.spec.seed),
        )

    def _under(self, options: dict[str, Any], **changes: Any) -> Session:
        return self.session.under(self.spec.model_copy(update={"options": options} | changes))


def suggested(trial: optuna.Trial | optuna.trial.FrozenTrial) -> dict[str, Any]:
    """Draw the options of a trial: the original specification's parameters, and a bound on age.

    Args:
        trial: a trial of the study, which draws the values.

    Returns:
        Options of the method dqar.
    """
    options: dict[str, Any] = {
        "preset": "maximum",
        "schedule_type": trial.suggest_categorical(
            "schedule_type", ["linear", "linear_reverse", "exponential"]
        ),
        "layer_fraction": trial.suggest_float("layer_fraction", 0.1, 1.0, step=0.1),
        "warmup_fraction": trial.suggest_float("warmup_fraction", 0.0, 0.6, step=0.1),
        "snr_low": trial.suggest_float("snr_low", 0.01, 2.0, log=True),
        "quantization_bits": trial.suggest_categorical("quantization_bits", [8, 16]),
    }
    age = trial.suggest_int("max_age", 1, 5)  # 5: without bound
    quantile = trial.suggest_float("entropy_quantile", 0.3, 1.0, step=0.1)  # 1: without a gate
    return (
        options
        | ({"max_age": age} if age < 5 else {})
        | ({"entropy_quantile": quantile} if quantile < 1 else {})
    )


def open_study(
    storage: Path, name: str, directions: Sequence[Direction] = DIRECTIONS, startup: int = 10
) -> optuna.Study:
    """Open a study that is kept in a file, new or as it was left.

    Args:
        storage: The file, an SQLite database.
        name: The study's within it.
        directions: Of the objectives.
        startup: Trials at random before the sampler learns from them.

    Returns:
        The study.

    Raises:
        BadInput: the file cannot be used.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        if storage.exists() and not storage.is_file():
            raise OSError("it is no regular file")
        storage.parent.mkdir(parents=True, exist_ok=True)
        return optuna.create_study(
            directions=list(directions),
            storage=f"sqlite:///{storage}",
            study_name=name,
            load_if_exists=True,
            sampler=optuna.samplers.TPESampler(seed=0, n_startup_trials=startup),
        )
    except Exception as error:
        raise BadInput(f"tune: {storage}: cannot be used: {' '.join(str(error).split())[:160]}") from error
