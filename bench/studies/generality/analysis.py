"""What the runs of both models show, and where they disagree: functions of the measured data alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench import stats
from bench.record import Mean
from bench.studies.generality.setting import AXES
from dqar.presets import BALANCED

Data = Mapping[str, Any]  # of a model, as `measure.measured` returns it
CLEAR = 0.2  # a rank correlation from which a signal counts as informative
WORTH = 0.05  # a share of variance from which it is worth measuring


def named(data: Data, name: str, condition: str = "home") -> dict[str, Any]:
    """Look up a run.

    Args:
        data: what was measured on a model.
        name: the run's name.
        condition: the condition that it was measured under.

    Returns:
        The run.
    """
    run_of: dict[str, Any] = next(
        run for run in data["runs"] if (run["name"], run["condition"]) == (name, condition)
    )
    return run_of


def measured(data: Data, name: str) -> bool:
    """Whether a run was measured at home; records that are older than a configuration lack it.

    Args:
        data: what was measured on a model.
        name: the run's name.

    Returns:
        True where it is there.
    """
    return any((run["name"], run["condition"]) == (name, "home") for run in data["runs"])


def difference(run: Mapping[str, Any], other: Mapping[str, Any]) -> Mean:
    """Compare the drifts of two runs, paired by image.

    Args:
        run: the run that is judged.
        other: the run that it is compared with, of the same images.

    Returns:
        By how much of the other's mean drift it drifts more, with its interval; below 0 it drifts less.
    """
    scale = float(np.mean(other["drifts"]))
    change = stats.mean_difference(run["drifts"], other["drifts"])
    return Mean(mean=change.mean / scale, low=change.low / scale, high=change.high / scale)


def verdict(change: Mean) -> str:
    """Judge a difference by its interval.

    Args:
        change: the difference.

    Returns:
        less, more or inconclusive.
    """
    if change.high < 0:
        return "less"
    return "more" if change.low > 0 else "inconclusive"


@dataclass(frozen=True)
class Finding:
    """A question, its answer on each model, and what holds on both."""

    question: str
    values: dict[str, str]  # by model, as shown
    verdicts: dict[str, str]  # by model

    @property
    def agreed(self) -> bool:
        """Whether the models agree."""
        return len(set(self.verdicts.values())) == 1

    @property
    def holds(self) -> str:
        """The common answer, or that there is none."""
        return next(iter(self.verdicts.values())) if self.agreed else "the models disagree"


def half_and_third(data: Data) -> tuple[int, int]:
    """Find the evaluations at which reuse and fewer steps are compared.

    Args:
        data: what was measured on a model.

    Returns:
        Half and a third of the baseline's, as far as they were measured.
    """
    counts = sorted({int(r["name"].split()[1]) for r in data["runs"] if r["name"].startswith("fewer ")})
    return counts[-1], counts[0]


def findings(models: Mapping[str, Data]) -> list[Finding]:
    """Answer the study's questions on each model.

    Args:
        models: what was measured, by model.

    Returns:
        The findings in the order of the page.
    """
    results = []
    for place, word in ((0, "half"), (1, "a third")):
        kinds = ("spread", "fewer")
        pairs = {m: [f"{kind} {half_and_third(d)[place]}" for kind in kinds] for m, d in models.items()}
        results.append(
            _compared(f"Skipped steps against fewer steps, {word} of the evaluations", models, pairs)
        )
    third = {m: half_and_third(d)[1] for m, d in models.items()}
    pairs = {m: [f"DPM spread {third[m]}", f"DPM fewer {third[m]}"] for m in models}
    results.append(_compared("The same on DPM-Solver++, a third of the evaluations", models, pairs))
    if all(measured(data, f"spread {third[m]}, over log-SNR") for m, data in models.items()):
        results += [_over_mixture(models, third, other) for other in AXES.values()]
    pairs = {m: [f"spread {half_and_third(d)[0]}", "recommended"] for m, d in models.items()}
    results.append(
        _compared("Skipped steps at half of the evaluations against preset recommended", models, pairs)
    )
    if any(measured(data, BALANCED) for data in models.values()):
        results.append(_balanced(models))
    results.append(_entropy(models))
    for condition, words in TRANSFERS.items():
        results.append(_transfer(f"Plan {words}, against the plain spread", models, condition))
    return results


def _over_mixture(models: Mapping[str, Data], runs: Mapping[str, int], over: str) -> Finding:
    """Forecasts over the default mixture against those over one of its parts."""
    pairs = {m: [f"spread {runs[m]}", f"spread {runs[m]}, {over}"] for m in models}
    question = f"Forecast over a mixture of log-SNR and steps against {over}, a third"
    return _compared(question, models, pairs)


TRANSFERS = {
    "home": "on images that its search did not see",
    "guidance": "at half the guidance",
    "prompts": "on other prompts",
    "steps": "moved by log-SNR to another number of steps",
    "solver": "moved by log-SNR to the own solver",
}


def _compared(question: str, models: Mapping[str, Data], pairs: Mapping[str, Sequence[str]]) -> Finding:
    """The first run of each pair against the second."""
    means = {m: difference(named(d, pairs[m][0]), named(d, pairs[m][1])) for m, d in models.items()}
    return _of_means(question, means)


def _balanced(models: Mapping[str, Data]) -> Finding:
    """What `dqar.enable` does by default against the untouched model, where it was measured."""
    there = {m: d for m, d in models.items() if measured(d, BALANCED)}
    pairs = {m: [BALANCED, "baseline"] for m in there}
    return _compared("The default of dqar.enable, preset balanced, against the baseline", there, pairs)


def _of_means(question: str, means: Mapping[str, Mean]) -> Finding:
    return Finding(
        question,
        {model: percent(mean) for model, mean in means.items()},
        {model: VERDICTS[verdict(mean)] for model, mean in means.items()},
    )


VERDICTS = {"less": "drifts less", "more": "drifts more", "inconclusive": "no difference found"}


def percent(value: Mean) -> str:
    """Show a share with its interval.

    Args:
        value: the share, 1 being the whole.

    Returns:
        The text in percent with a sign.
    """
    return f"{100 * value.mean:+.0f} % [{100 * value.low:+.0f}, {100 * value.high:+.0f}]"


def _entropy(models: Mapping[str, Data]) -> Finding:
    values, verdicts = {}, {}
    for model, data in models.items():
        hold = next(row for row in data["signals"] if row["error"] == "hold")
        ranked, adds = Mean(**hold["entropy_within_step"]), Mean(**hold["entropy_adds"])
        values[model] = (
            f"{ranked.mean:+.2f} [{ranked.low:+.2f}, {ranked.high:+.2f}]; adds {100 * adds.mean:+.1f} %"
        )
        knows = ranked.low > CLEAR or ranked.high < -CLEAR
        sign = "high where the error is high" if ranked.mean > 0 else "low where the error is high"
        verdicts[model] = (sign if knows else "ranks no layers") + (
            "" if adds.mean >= WORTH else ", adds nothing to SNR and a calibration"
        )
    return Finding("Entropy's rank correlation with the error of holding, over layers", values, verdicts)


def _transfer(question: str, models: Mapping[str, Data], condition: str) -> Finding:
    means = {
        model: mean
        for model, data in models.items()
        if (mean := transferred(data, model, condition)) is not None
    }
    return _of_means(question, means)


def transferred(data: Data, made_for: str, condition: str) -> Mean | None:
    """Compare a plan with the plain spread of as many evaluations.

    Args:
        data: what was measured on the model that the plan is used on.
        made_for: the model that the plan was made for.
        condition: the condition that it is used under.

    Returns:
        The difference with its interval; None where it was not measured.
    """
    for run in data["runs"]:
        if (run["name"], run["condition"]) == (made_for, condition):
            return difference(run, named(data, run["facts"]["compared_with"], condition))
    return None


def by_axis(data: Data, condition: str) -> Mean:
    """Compare the own plan moved by log-SNR with the same moved by its share of the steps.

    Args:
        data: what was measured on a model.
        condition: the condition that it is used under.

    Returns:
        The difference with its interval; below 0 log-SNR drifts less.
    """
    model = data["facts"]["model"]
    return difference(named(data, model, condition), named(data, f"{model}, by share of steps", condition))
