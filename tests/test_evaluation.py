"""Fréchet distance, CLIP score and profile: right where known, clear where they cannot be had."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiTPipeline
from torch_fidelity.feature_extractor_base import FeatureExtractorBase
from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY, register_feature_extractor

from bench.errors import BadInput
from bench.measure import text_score
from bench.pipeline.session import Session
from bench.spec import external_files
from bench.spec.prompts import Prompts
from bench.spec.run_spec import RunSpec
from bench.spec.settings import QualitySettings
from dqar.evaluation.metrics import compute_clip_score, compute_fid
from dqar.evaluation.profiling import profile_inference


class MeanColour(FeatureExtractorBase):  # type: ignore[misc]
    """An image's mean red, green and blue."""

    def __init__(self, name: str, features_list: list[str], **options: Any) -> None:
        super().__init__(name, features_list)

    @staticmethod
    def get_provided_features_list() -> tuple[str, ...]:
        """The one layer there is."""
        return ("colour",)

    @staticmethod
    def get_default_feature_layer_for_metric(metric: str) -> str:
        """The layer for every metric."""
        return "colour"

    @staticmethod
    def can_be_compiled() -> bool:
        """It need not be."""
        return False

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor]:
        """`[n, 3, h, w]` -> `[n, 3]`."""
        return (images.double().mean((2, 3)),)


def images(count: int = 12) -> torch.Tensor:
    return torch.randint(0, 200, (count, 3, 8, 8), generator=torch.Generator().manual_seed(0)).byte()


def test_frechet_distance_is_named_by_its_extractor() -> None:
    """Images shifted by 10 in each channel are 300 apart in mean colour, called fd, never fid."""
    if "mean-colour" not in FEATURE_EXTRACTORS_REGISTRY:
        register_feature_extractor("mean-colour", MeanColour)
    fid = compute_fid(images() + 10, images(), extractor="mean-colour")
    assert fid.keys() == {"fd", "extractor"} and fid["extractor"] == "mean-colour"
    assert fid["fd"] == pytest.approx(300.0, rel=1e-4)


def test_fid_needs_inception(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Inception weights, or with a file that is none, the error names the option."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(ValueError, match="inception_weights = None is not allowed; allowed: a path to "):
        compute_fid(images(), images())
    (tmp_path / "weights.pth").write_bytes(b"no weights")
    with pytest.raises(ValueError, match="inception_weights = "):
        compute_fid(images(), images(), inception_weights=tmp_path / "weights.pth")
    with pytest.raises(ValueError, match="extractor = 'none' is not allowed; allowed: inception"):
        compute_fid(images(), images(), extractor="none")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny CLIP with random weights, saved with its processor."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("clip")
    letters = [*"abcdefghijklmnopqrstuvwxyz", *(f"{c}</w>" for c in "abcdefghijklmnopqrstuvwxyz")]
    vocabulary = {token: i for i, token in enumerate([*letters, "<|startoftext|>", "<|endoftext|>"])}
    (path / "vocab.json").write_text(json.dumps(vocabulary))
    (path / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer.from_pretrained(path)
    size = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = size | {"vocab_size": 54, "bos_token_id": 52, "eos_token_id": 53, "pad_token_id": 53}
    vision = size | {"image_size": 8, "patch_size": 4}
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)).save_pretrained(path)
    square = {"height": 8, "width": 8}
    images = CLIPImageProcessor(size={"shortest_edge": 8}, crop_size=square)
    processor = CLIPProcessor(images, tokenizer)  # type: ignore[no-untyped-call]
    processor.save_pretrained(path)
    return path


def test_clip_score(clip: Path) -> None:
    """The score is from 0 to 100 and does not depend on how the pairs are cut into batches."""
    prompts = ["a dog", "a cat", "the sea", "a hat"] * 3
    scores = [compute_clip_score(images(), prompts, clip, batch_size=size) for size in (12, 5)]
    assert scores[0] == pytest.approx(scores[1], abs=1e-3) and 0 <= scores[0] <= 100
    with pytest.raises(ValueError, match="prompts has 1 entries; allowed: one per image, 12"):
        compute_clip_score(images(), prompts[:1], clip)


def test_clip_weights_make_text_scores_clip_scores(clip: Path) -> None:
    """Given a CLIP, the harness scores every image by it and names it; its digest enters the key, no path."""
    quality = QualitySettings(n=2, converged_n=0, clip_weights=str(clip))
    spec = RunSpec(
        suite="s", name="n", method="baseline", model="embedded-t2i", prompts=Prompts.read("emoji"),
        quality=quality,
    )  # fmt: skip
    text_score.check(quality)
    base, cand = (images(2) // part for part in (1, 2))
    missing: dict[str, str] = {}
    session = Session(pipe=None, spec=spec, labels=[0, 1])
    baseline, candidate = ([text_score.scored(session, arm, range(2))] for arm in (base, cand))
    scores = text_score.text_scores(spec, baseline, candidate, missing)
    expected = compute_clip_score(cand, ["running shirt", "hugging face"], clip)
    assert scores["text_score"].mean == pytest.approx(expected, abs=1e-4)
    assert scores["text_scorer"] == f"CLIP ({clip.name})" and "own_prompt_wins" in missing
    assert external_files.digests(quality)["clip_weights"]
    assert spec.public()["quality"]["clip_weights"] == clip.name


def test_a_directory_that_is_no_clip_is_refused(tmp_path: Path) -> None:
    """The option is named, before anything runs; without it a record's configuration is as it was."""
    with pytest.raises(BadInput, match=r"quality\.clip_weights"):
        text_score.check(QualitySettings(clip_weights=str(tmp_path)))
    assert "clip_weights" not in QualitySettings().public()


def test_clip_score_needs_a_model(tmp_path: Path) -> None:
    """A directory without a CLIP model is one line that names the option."""
    with pytest.raises(ValueError, match=r"model_path = .* allowed: a directory with a CLIP model") as error:
        compute_clip_score(images(1), ["a dog"], tmp_path)
    assert "\n" not in str(error.value)


def test_profile(pipe: DiTPipeline, tmp_path: Path) -> None:
    """Shares sum to 1, every group that works has one, the trace is JSON, and no hook is left behind."""
    profile = profile_inference(pipe, [1, 2], num_inference_steps=3, trace_path=tmp_path / "trace.json")
    working = {"attention", "mlp", "norm", "embeddings", "scheduler", "vae", "rest"}
    assert {group for group, share in profile.shares.items() if share > 0} == working
    assert profile.shares.keys() - working == {"gate", "forecast", "cache"}  # DQAR is off
    assert sum(profile.shares.values()) == pytest.approx(1.0) and profile.peak_memory > 0
    assert json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in pipe.transformer.modules())
