"""How well images fit their prompts: both arms' text scores and the paired difference."""

from __future__ import annotations

from typing import Any

import torch

from bench import stats
from bench.measure.samples import Samples
from bench.pipeline.session import Session

# The embedded scorer compares images and prompts of the embedded model's kind alone.
NO_SCORER = "no scorer for this model's images: the embedded one knows the embedded model's alone"


def text_scores(session: Session, base: Samples, cand: Samples, missing: dict[str, str]) -> dict[str, Any]:
    """The fields of `Quality` on how well both arms' images fit their prompts; none for class labels."""
    spec = session.spec
    if spec.prompts is None:
        return {}
    if spec.model != "embedded-t2i" or spec.quality.extractor is None:
        missing["text_score"] = NO_SCORER if spec.model != "embedded-t2i" else "no extractor in the suite"
        return {}
    from bench.embedded.text_to_image import scorer

    texts = [spec.prompts.texts[session.label(i)] for i in range(len(cand.images))]
    own, before = (scorer.text_scores(arm.images, texts).tolist() for arm in (cand, base))
    change = [a - b for a, b in zip(own, before, strict=True)]
    return {
        "text_score": stats.mean_interval(own),
        "baseline_text_score": stats.mean_interval(before),
        "text_score_change": stats.mean_interval(change),
        "text_score_per_image": own,
        "baseline_text_score_per_image": before,
        "own_prompt_wins": _wins(scorer.embed_images(cand.images), scorer.embed_prompts(texts), texts),
        "text_scorer": scorer.SCORER,
    }


def _wins(images: torch.Tensor, prompts: torch.Tensor, texts: list[str]) -> float | None:
    """The share of pairs of an image and another prompt in which its own prompt has the higher score.

    Args:
        images: unit vectors [n, d].
        prompts: unit vectors [n, d] of their prompts.
        texts: the prompts; an equal one is no other prompt.

    Returns:
        The share, None where no prompt differs from another.
    """
    scores = images @ prompts.T
    other = torch.tensor([[a != b for b in texts] for a in texts])
    wins = scores.diagonal()[:, None] > scores
    return wins[other].float().mean().item() if other.any() else None
