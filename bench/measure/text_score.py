"""How well images fit their prompts: both arms' text scores and the paired difference."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench import stats
from bench.machine.device import device_type
from bench.pipeline.session import Session
from bench.record import CLIP
from bench.spec.external_files import usable
from bench.spec.run_spec import RunSpec
from bench.spec.settings import QualitySettings
from bench.store.tensors import Tensors
from dqar.evaluation.metrics import clip_scores

# The embedded scorer compares images and prompts of the embedded model's kind alone.
NO_SCORER = "the embedded scorer knows the embedded model's images alone; --clip-weights gives another"


def scored(session: Session, images: Tensor, numbers: range) -> Tensors:
    """Score how well images fit their prompts.

    Args:
        session: the model with its prompts.
        images: uint8 `[m, 3, h, w]`.
        numbers: numbers of the images, which choose their prompts.

    Returns:
        `text_score` `[m]`, and where the embedded scorer embeds them `text_embedding` `[m, d]`; nothing for
        class labels, or without a scorer.
    """
    spec = session.spec
    if spec.prompts is None:
        return {}
    texts = _texts(spec, numbers)
    if spec.quality.clip_weights:
        path = Path(spec.quality.clip_weights)
        return {"text_score": clip_scores(images, texts, path, device=device_type())}
    if _no_scorer(spec):
        return {}
    from bench.embedded.text_to_image import scorer

    embedded = scorer.embed_images(images)
    score = (embedded * scorer.embed_prompts(texts)).sum(dim=-1)
    return {"text_score": score, "text_embedding": embedded}


def text_scores(
    spec: RunSpec, baseline: Sequence[Tensors], candidate: Sequence[Tensors], missing: dict[str, str]
) -> dict[str, Any]:
    """Compute the fields of `Quality` on how well both arms' images fit their prompts.

    Args:
        spec: the configuration.
        baseline: the baseline's shards, in order.
        candidate: the configuration's shards, in order.
        missing: is given the reason where there is no scorer.

    Returns:
        The fields by name; none for class labels.
    """
    if spec.prompts is None:
        return {}
    if not spec.quality.clip_weights and (why := _no_scorer(spec)):
        missing["text_score"] = why
        return {}
    ours, theirs = (
        torch.cat([part["text_score"] for part in parts]).tolist() for parts in (candidate, baseline)
    )
    if spec.quality.clip_weights:
        missing["own_prompt_wins"] = "measured by the embedded scorer alone"
        return _fields(ours, theirs, f"{CLIP} ({Path(spec.quality.clip_weights).resolve().name})")
    from bench.embedded.text_to_image import scorer

    texts = _texts(spec, range(len(ours)))
    images = torch.cat([part["text_embedding"] for part in candidate])
    # Where no prompt differs from another there is no pair.
    several = len(set(texts)) > 1
    wins = scorer.own_above_other(images @ scorer.embed_prompts(texts).T, texts) if several else None
    return _fields(ours, theirs, scorer.SCORER) | {"own_prompt_wins": wins}


def _texts(spec: RunSpec, numbers: range) -> list[str]:
    assert spec.prompts is not None
    texts = spec.prompts.texts
    return [texts[i % len(texts)] for i in numbers]


def _no_scorer(spec: RunSpec) -> str | None:
    """Why no embedded scorer compares the images with their prompts, if none does."""
    if spec.model != "embedded-t2i":
        return NO_SCORER
    return "no extractor in the suite" if spec.quality.extractor is None else None


def check(quality: QualitySettings) -> None:
    """Check that CLIP's weights, where given, can be used.

    Args:
        quality: The suite's quality settings.

    Raises:
        BadInput: They cannot.
    """
    if quality.clip_weights:
        with usable("clip_weights", quality.clip_weights):
            clip_scores(torch.zeros(1, 3, 64, 64, dtype=torch.uint8), ["a word"], quality.clip_weights)


def _fields(candidate: list[float], baseline: list[float], scorer: str) -> dict[str, Any]:
    """The scores of the candidate's and the baseline's images, and of the paired differences."""
    change = [a - b for a, b in zip(candidate, baseline, strict=True)]
    return {
        "text_score": stats.mean_interval(candidate),
        "baseline_text_score": stats.mean_interval(baseline),
        "text_score_change": stats.mean_interval(change),
        "text_score_per_image": candidate,
        "baseline_text_score_per_image": baseline,
        "text_scorer": scorer,
    }
