"""How well images fit their prompts: both arms' text scores and the paired difference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from bench import stats
from bench.machine.device import device_type
from bench.measure.samples import Samples
from bench.pipeline.session import Session
from bench.record import CLIP
from bench.spec.external_files import usable
from bench.spec.settings import QualitySettings
from dqar.evaluation.metrics import clip_scores

# The embedded scorer compares images and prompts of the embedded model's kind alone.
NO_SCORER = "the embedded scorer knows the embedded model's images alone; --clip-weights gives another"


def text_scores(session: Session, base: Samples, cand: Samples, missing: dict[str, str]) -> dict[str, Any]:
    """How well both arms' images fit their prompts.

    Args:
        session: The configuration, for the images' prompts.
        base: The baseline's images.
        cand: The candidate's.
        missing: Gets by field the reason why a score is None.

    Returns:
        Fields of `Quality` by name; empty for class labels.
    """
    spec = session.spec
    if spec.prompts is None:
        return {}
    texts = [spec.prompts.texts[session.label(i)] for i in range(len(cand.images))]
    if spec.quality.clip_weights:
        missing["own_prompt_wins"] = "measured by the embedded scorer alone"
        path = Path(spec.quality.clip_weights)
        own, before = (
            clip_scores(arm.images, texts, path, device=device_type()).tolist() for arm in (cand, base)
        )
        return _fields(own, before, f"{CLIP} ({path.resolve().name})")
    if spec.model != "embedded-t2i" or spec.quality.extractor is None:
        missing["text_score"] = NO_SCORER if spec.model != "embedded-t2i" else "no extractor in the suite"
        return {}
    from bench.embedded.text_to_image import scorer

    prompts, images = scorer.embed_prompts(texts), scorer.embed_images(cand.images)
    own = (images * prompts).sum(dim=-1).tolist()
    before = (scorer.embed_images(base.images) * prompts).sum(dim=-1).tolist()
    # Where no prompt differs from another there is no pair.
    wins = scorer.own_above_other(images @ prompts.T, texts) if len(set(texts)) > 1 else None
    return _fields(own, before, scorer.SCORER) | {"own_prompt_wins": wins}


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


def _fields(own: list[float], before: list[float], scorer: str) -> dict[str, Any]:
    """The scores of the candidate's and the baseline's images, and of the paired differences."""
    change = [a - b for a, b in zip(own, before, strict=True)]
    return {
        "text_score": stats.mean_interval(own),
        "baseline_text_score": stats.mean_interval(before),
        "text_score_change": stats.mean_interval(change),
        "text_score_per_image": own,
        "baseline_text_score_per_image": before,
        "text_scorer": scorer,
    }
