"""What cannot work is refused before anything runs: given files, and what the model does not have."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.errors import BadInput
from bench.pipeline import models, signatures
from bench.pipeline.facts import ModelFacts, shown
from bench.spec.external_files import refuse
from bench.spec.run_spec import RunSpec
from bench.spec.settings import QualitySettings
from bench.spec.suite import Suite


def check(quality: QualitySettings) -> list[str]:
    """Check the files that quality is given, before anything runs.

    Args:
        quality: the suite's settings, its fields of files as the user gave them.

    Returns:
        What each given file holds, one line each; none where no file is given.

    Raises:
        BadInput: a file cannot be read, or does not hold what its field needs.
    """
    return list(_lines(quality))


def _lines(quality: QualitySettings) -> Iterator[str]:
    given = quality.files()
    for field, path in given.items():
        _check_kind(field, path)
    if given:  # else torch need not be loaded
        from bench.measure import features, perceptual, reference, text_score

        features.check(quality)
        perceptual.check(quality)
        text_score.check(quality)
        if held := reference.check(quality):
            yield f"reference: {held}"


def _check_kind(field: str, path: Path) -> None:
    if not path.exists():
        raise refuse(field, path, "does not exist")
    if not (path.is_file() or path.is_dir()):  # reading a pipe would wait for ever
        raise refuse(field, path, "is no regular file")


def check_suite(suite: Suite, spec: RunSpec) -> None:
    """Check that a suite is for the kind of its model.

    Args:
        suite: the suite, its model perhaps another one than its file's.
        spec: one of its configurations, `weights` settled.

    Raises:
        BadInput: the model is a flow and the suite is not for flows; naming the suites that are.
    """
    if (others := suite.file.on_flows) and models.facts_of(spec).flow_matching:
        raise BadInput(
            f"{suite.source}: --model: {shown(spec.model)} is not allowed: it is a flow, and the suite is for"
            f" noise schedules; on a flow: {' or '.join(others)} with the same --model and --prompts"
        )


def check_model(specs: Sequence[RunSpec]) -> None:
    """Check that the model has the labels, steps and plans that configurations ask for.

    Args:
        specs: configurations of one suite, `weights` settled.

    Raises:
        BadInput: it lacks some; naming the configuration and what its model has.
    """
    known: dict[tuple[str, str], ModelFacts] = {}
    for spec in specs:
        by = spec.model, spec.weights
        known[by] = known.get(by) or models.facts_of(spec)
        if why := _lacking(spec, known[by]):
            raise BadInput(f"{spec.suite}: runs: {spec.name}: {why}")


def _lacking(spec: RunSpec, model: ModelFacts) -> str | None:
    try:
        signatures.check_call(spec, model.pipeline, model.flow_matching)
    except BadInput as error:
        return str(error)
    steps = spec.options.get("steps") or spec.num_inference_steps
    labels = [] if spec.labels == "cycle" else spec.labels
    beyond = next((label for label in labels if model.classes and label >= model.classes), None)
    if beyond is not None:
        return (
            f"labels: {beyond} is not allowed; allowed: 0 to {(model.classes or 0) - 1}, the model's classes"
        )
    if model.train_steps and steps > model.train_steps:
        return f"steps: {steps} is not allowed; allowed: 1 to {model.train_steps}, the model's timesteps"
    finer = spec.quality.converged_steps
    if model.train_steps and spec.quality.converged_n and finer > model.train_steps:
        most = f"at most {model.train_steps}, the model's timesteps"
        return f"quality.converged_steps: {finer} is not allowed; allowed: {most}"
    return _other_plan(spec, steps, model)


def _other_plan(spec: RunSpec, steps: int, model: ModelFacts) -> str | None:
    """Why the plan that a configuration names does not fit its steps and layers."""
    if spec.method != "dqar" or model.layers is None:
        return None
    from bench.methods.dqar import other_layers, plan_file
    from dqar.policy.saved_plan import SavedPlan

    try:
        file = plan_file(spec.options)
        if file:
            other = other_layers(spec.options, model.layers)  # a skipped run, see `skip_reason`
            SavedPlan.load(file).check(steps, other or model.layers)
    except ValueError as error:
        return f"options: {error}"
    return None
