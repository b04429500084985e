"""A model with its images: those that a policy may learn from, and those kept for its evaluation."""

from __future__ import annotations

from pydantic import ValidationError

from bench.errors import BadInput, describe
from bench.pipeline import models
from bench.pipeline.facts import ModelFacts, shown
from bench.pipeline.session import Session
from bench.pipeline.signatures import OF_LABELS
from bench.spec.run_spec import RunSpec

HELD_OUT = 3  # every third class is kept for the evaluation


def open_session(model: str, steps: int, guidance: float, seed: int, evaluation: bool) -> Session:
    """Load a model with its stock scheduler; image i has seed + i, and a class of the side asked for.

    The two sides share no class; the caller sees to it that they share no seed.

    Args:
        model: embedded, a directory or a hub id, of class labels.
        steps: number of denoising steps.
        guidance: weight of classifier-free guidance, above 1.
        seed: random seed of image 0; image i takes seed + i.
        evaluation: which side's classes.

    Returns:
        The session.

    Raises:
        BadInput: an argument is not allowed, or the model cannot be used; naming it.
    """
    if guidance <= 1:
        raise BadInput(f"guidance: {guidance} is not allowed; allowed: above 1, for guided images")
    spec = _spec(model, steps, guidance, seed)
    models.check(models.directory(model))
    if ModelFacts.of(models.directory(model)).pipeline != OF_LABELS:
        raise BadInput(f"policy: --model: {shown(model)} takes prompts; allowed: a model of class labels")
    session = Session.open(spec)
    session.labels = side(session.labels, evaluation)
    return session


def side(labels: list[int], evaluation: bool) -> list[int]:
    """Split classes: every third is for evaluation.

    Args:
        labels: all classes of the model, in order.
        evaluation: whether to return those, or the rest.

    Returns:
        The labels of that side, in order.

    Raises:
        BadInput: there are fewer than three.
    """
    if len(labels) < HELD_OUT:
        raise BadInput(
            f"model: {len(labels)} classes; needed: at least {HELD_OUT}, to keep some for evaluation"
        )
    return [label for i, label in enumerate(labels) if (i % HELD_OUT == HELD_OUT - 1) == evaluation]


def _spec(model: str, steps: int, guidance: float, seed: int) -> RunSpec:
    try:
        return RunSpec(
            suite="policy",
            name="policy",
            method="baseline",
            model=model,
            num_inference_steps=steps,
            guidance_scale=guidance,
            seed=seed,
        )
    except ValidationError as error:
        raise BadInput(f"policy: {describe(error, RunSpec)}") from error
