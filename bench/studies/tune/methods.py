"""`python -m bench tune --method`: each method's options searched by one tool, with as many trials each, on
the same images; what is sought is the front of model evaluations and drift from the converged trajectory."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
from tqdm import tqdm

from bench import methods
from bench.errors import BadInput, NonFinite, one_line
from bench.machine import provenance
from bench.measure.converged import ACCURATE, accurate_solver
from bench.methods.space import Among, Real, Space, Whole
from bench.pipeline import models
from bench.run.placement import Placement
from bench.spec.run_spec import shown_model
from bench.stats import pareto
from bench.studies.tune.candidate import Judge, Outcome, Task
from bench.studies.tune.search import open_study
from bench.studies.tune.stored import StoredTrials

ALL = "all"
BATCH = 4  # trials that are suggested from one state of the study
STARTUP = 6  # trials at random before the sampler learns from them


@dataclass(frozen=True)
class Search:
    """The search of one space of a method."""

    method: str
    name: str
    space: Space


@dataclass(frozen=True)
class Trial:
    """A candidate that was judged, or could not be."""

    search: str
    method: str
    options: dict[str, Any]
    outcome: Outcome | None
    error: str = ""


def searches(chosen: str, task: Task) -> list[Search]:
    """List the spaces of a method, or of all.

    Args:
        chosen: the name of a method, or `all`.
        task: whose baseline the spaces are for.

    Returns:
        A search a space.

    Raises:
        BadInput: the method has none.
    """
    known = {name: methods.get(name).spaces(task.baseline) for name in methods.METHODS}
    having = [name for name, spaces in known.items() if spaces]
    if chosen != ALL and chosen not in having:
        raise BadInput(f"tune: --method: {chosen!r} is not allowed; allowed: {ALL}, {', '.join(having)}")
    return [
        Search(name, label, space)
        for name in (having if chosen == ALL else [chosen])
        for label, space in known[name].items()
    ]


def suggested(trial: optuna.Trial, space: Space) -> dict[str, Any]:
    """Draw the options of a trial.

    Args:
        trial: a trial of the study, which draws the values.
        space: the dimensions to draw from.

    Returns:
        The options by name.
    """
    options: dict[str, Any] = {}
    for name, dimension in space.items():
        match dimension:
            case Whole(low, high):
                options[name] = trial.suggest_int(name, low, high)
            case Real(low, high):
                options[name] = float(f"{trial.suggest_float(name, low, high, log=True):.3g}")
            case Among(groups):
                options |= groups[trial.suggest_categorical(name, list(groups))]
    return options


def run(
    task: Task, chosen: str, trials: int, results: Path, placement: Placement | None = None
) -> list[Trial]:
    """Judge candidates of every space until each has enough trials.

    They are judged BATCH at a time, by the workers of a placement or by this process: the same ones.

    Args:
        task: what is to be made faster.
        chosen: the name of a method, or `all`.
        trials: how many each space gets, those of earlier runs included.
        results: the root of the results, which keeps the studies.
        placement: whose workers judge them; None: this process.

    Returns:
        All trials.
    """
    wanted = searches(chosen, task)
    directory = results / "tune" / provenance.machine() / ".cache"
    judge = Judge(task, results)
    of = f"{judge.session.spec.model}-{task.steps}-{task.images}-{task.guidance:g}"
    judged: list[Trial] = []
    for search in wanted:
        name = f"{of}-{search.method}-{search.name}"
        study = open_study(directory / "methods.db", name, ["minimize", "minimize"], STARTUP)
        left = trials - sum(trial.state.is_finished() for trial in study.trials)  # not those that were killed
        with tqdm(total=max(0, left), unit="trial", desc=search.name, disable=None) as bar:
            for first in range(0, left, BATCH):
                asked = [study.ask() for _ in range(min(BATCH, left - first))]
                items = [(search.method, suggested(trial, search.space)) for trial in asked]
                make = partial(judging, task, results)
                outcomes = (
                    placement.map(make, items) if placement else [_judged(judge, *item) for item in items]
                )
                for trial, (_, options), outcome in zip(asked, items, outcomes, strict=True):
                    _tell(study, trial, options, outcome)
                    bar.update(1)
        judged += _trials(study, search)
    return judged


def judging(task: Task, results: Path) -> Callable[[tuple[str, dict[str, Any]]], Outcome | str]:
    """Load a model for a worker that judges candidates.

    Args:
        task: what is to be made faster.
        results: the root directory of the results, which keeps latents.

    Returns:
        Judges a method's name and options: the outcome, or why there is none.
    """
    judge = Judge(task, results)
    return lambda item: _judged(judge, *item)


def _judged(judge: Judge, method: str, options: dict[str, Any]) -> Outcome | str:
    """What a candidate came to, or why it could not be judged."""
    try:
        return judge(method, options)
    except (ValueError, RuntimeError, NonFinite) as error:
        return one_line(error)[:200]


def _tell(study: optuna.Study, trial: optuna.Trial, options: dict[str, Any], outcome: Outcome | str) -> None:
    trial.set_user_attr("options", options)
    if isinstance(outcome, str):
        trial.set_user_attr("error", outcome)
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
        return
    trial.set_user_attr("outcome", asdict(outcome))
    study.tell(trial, (outcome.evaluations, outcome.score))


def _trials(study: optuna.Study, search: Search) -> Iterator[Trial]:
    for trial in study.trials:
        kept = trial.user_attrs
        if "options" not in kept:  # killed before it was judged
            continue
        outcome = kept.get("outcome")
        judged = Outcome(**outcome | {"drifts": tuple(outcome["drifts"])}) if outcome else None
        yield Trial(search.name, search.method, kept["options"], judged, kept.get("error", ""))


def front(trials: Sequence[Trial]) -> list[Trial]:
    """Choose the Pareto front of evaluations and drift.

    Args:
        trials: those of one search; of candidates that decide alike one counts.

    Returns:
        Its trials, the cheapest first.
    """
    judged = [trial for trial in distinct(trials) if trial.outcome]
    outcomes = [trial.outcome for trial in judged if trial.outcome]
    on = pareto([(-outcome.evaluations, outcome.score) for outcome in outcomes])
    kept = [trial for trial, it in zip(judged, on, strict=True) if it]
    return sorted(kept, key=lambda trial: trial.outcome.evaluations if trial.outcome else 0)


def distinct(trials: Sequence[Trial]) -> list[Trial]:
    """Drop trials whose images are another's at the same cost: their options decide the same.

    Args:
        trials: those of one search.

    Returns:
        The others, in order.
    """
    seen: dict[Any, Trial] = {}
    for trial in trials:
        outcome = trial.outcome
        key = outcome and (round(outcome.evaluations, 3), *(round(d, 6) for d in outcome.drifts))
        seen.setdefault(key or len(seen), trial)
    return list(seen.values())


def rows(trials: Sequence[Trial], task: Task) -> StoredTrials:
    """Tabulate trials.

    Args:
        trials: those of all searches.
        task: what they were judged on.

    Returns:
        The rows and the facts.
    """
    table = [
        {"search": t.search, "method": t.method, "options": json.dumps(t.options), "error": t.error}
        | ({} if t.outcome is None else _columns(t.outcome))
        for t in trials
    ]
    facts = provenance.provenance(0) | {
        "model": shown_model(task.model),
        "fingerprint": models.fingerprint_of(task.model),
        "steps": task.steps,
        "images": task.images,
        "guidance": task.guidance,
        "prompts": task.prompts and task.prompts.public(),
        "converged": f"by {accurate_solver(task.baseline.flow)} at {ACCURATE} steps",
    }
    return StoredTrials(pd.DataFrame(table), facts)


def _columns(outcome: Outcome) -> dict[str, Any]:
    return {"evaluations": outcome.evaluations, "speedup": outcome.speedup} | {
        f"drift_{i}": drift for i, drift in enumerate(outcome.drifts)
    }
