"""A model with its images: those that a policy may learn from, and those kept for its evaluation."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from bench.errors import BadInput, describe
from bench.pipeline import models
from bench.pipeline.session import Session
from bench.spec.prompts import Prompts
from bench.spec.run_spec import RunSpec

HELD_OUT = 3  # every third class or prompt is kept for the evaluation


def open_session(
    model: str, steps: int, guidance: float, seed: int, evaluation: bool, prompts: Prompts | None = None
) -> Session:
    """Load a model with its stock scheduler; image i has seed + i, and is of the side asked for.

    The two sides share no class and no prompt; the caller sees to it that they share no seed.

    Args:
        model: embedded, embedded-t2i, a directory or a hub id.
        steps: number of denoising steps.
        guidance: weight of classifier-free guidance, above 1.
        seed: random seed of image 0; image i takes seed + i.
        evaluation: which side's classes or prompts.
        prompts: prompts of the images; None: the model takes class labels.

    Returns:
        The session.

    Raises:
        BadInput: an argument is not allowed, or the model cannot be used; naming it.
    """
    if guidance <= 1:
        raise BadInput(f"guidance: {guidance} is not allowed; allowed: above 1, for guided images")
    spec = _spec(model, steps, guidance, seed, prompts)
    models.check_settings(spec)
    session = Session.open(spec)
    session.labels = side(session.labels, evaluation)
    return session


def side(labels: list[int], evaluation: bool) -> list[int]:
    """Split classes or prompts: every third is for evaluation.

    Args:
        labels: all of the model or the file, in order.
        evaluation: whether to return those, or the rest.

    Returns:
        The labels of that side, in order.

    Raises:
        BadInput: there are fewer than three.
    """
    if len(labels) < HELD_OUT:
        raise BadInput(
            f"policy: {len(labels)} classes or prompts; needed: at least {HELD_OUT}, to keep some unseen"
        )
    return [label for i, label in enumerate(labels) if (i % HELD_OUT == HELD_OUT - 1) == evaluation]


def subjects(session: Session) -> dict[str, Any]:
    """Describe what the images of a session are of.

    Args:
        session: the session.

    Returns:
        `of`, classes or prompts, and their `numbers`; the file's name and digest where they are prompts.
    """
    prompts = session.spec.prompts
    described = {"of": "prompts", "prompts": prompts.public()} if prompts else {"of": "classes"}
    return described | {"numbers": session.labels}


def _spec(model: str, steps: int, guidance: float, seed: int, prompts: Prompts | None) -> RunSpec:
    try:
        return RunSpec(
            suite="policy",
            name="policy",
            method="baseline",
            model=model,
            num_inference_steps=steps,
            guidance_scale=guidance,
            seed=seed,
            prompts=prompts,
        )
    except ValidationError as error:
        raise BadInput(f"policy: {describe(error, RunSpec)}") from error
