"""Quality of pictures: Fréchet distance to reference pictures, and CLIP score to their prompts."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from dqar.utils.helpers import Images, as_uint8
from dqar.validation import refusal

INCEPTION = "inception-v3-compat"  # torch-fidelity's name of the network that defines FID


class _Pictures(Dataset[Tensor]):
    """uint8 `[3, h, w]` pictures, as torch-fidelity reads them."""

    def __init__(self, images: Images) -> None:
        self.pixels = as_uint8(images)

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> Tensor:
        return self.pixels[index]


def compute_fid(
    generated: Images | str | Path,
    reference: Images | str | Path,
    inception_weights: str | Path | None = None,
    extractor: str | None = None,
    batch_size: int = 64,
    device: str = "cpu",
) -> dict[str, float | str]:
    """Fréchet distance between generated and reference pictures, by torch-fidelity (Heusel et al. 2017).

    Pictures as `as_uint8` takes them, or a folder of files. Returns `{"fid": ..., "extractor": ...}`
    from Inception features; another `extractor` registered with torch-fidelity returns `"fd"` in place
    of `"fid"`, since its scale is its own. The distance of few pictures is biased upwards. Raises
    `ValueError` without Inception weights, which are never fetched, and for an unknown extractor.
    """
    from torch_fidelity import calculate_metrics
    from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY

    name = extractor or INCEPTION
    if name not in FEATURE_EXTRACTORS_REGISTRY:
        raise refusal("extractor", name, ", ".join(FEATURE_EXTRACTORS_REGISTRY))
    weights = {"feature_extractor_weights_path": _inception(inception_weights)} if name == INCEPTION else {}
    measured = calculate_metrics(
        input1=_input(generated),
        input2=_input(reference),
        fid=True,
        feature_extractor=name,
        batch_size=batch_size,
        cuda=torch.device(device).type == "cuda",
        cache=False,
        save_cpu_ram=not isinstance(generated, (str, Path)),  # in memory: loader processes only cost
        verbose=False,
        **weights,
    )
    key = "fid" if name == INCEPTION else "fd"
    return {key: measured["frechet_inception_distance"], "extractor": name}


def compute_clip_score(
    images: Images,
    prompts: Sequence[str],
    model_path: str | Path,
    batch_size: int = 32,
    device: str = "cpu",
) -> float:
    """Mean of 100 max(cos(picture, prompt), 0) over the pairs (Hessel et al. 2021, without their 2.5).

    `model_path` is a directory with a transformers CLIP model in safetensors and its processor. Raises
    `ValueError`, in one line, where there is none, or when pictures and prompts differ in number.
    """
    pictures = as_uint8(images)
    if len(pictures) != len(prompts):
        raise ValueError(f"prompts has {len(prompts)} entries; allowed: one a picture, {len(pictures)}")
    model, processor = _clip(Path(model_path))
    model = model.to(device).eval()
    cosines = [
        _cosines(model, processor, pictures[i : i + batch_size], list(prompts[i : i + batch_size]))
        for i in range(0, len(pictures), batch_size)
    ]
    return float(100 * torch.cat(cosines).clamp_min(0).mean())


@torch.no_grad()
def _cosines(model: Any, processor: Any, pictures: Tensor, prompts: list[str]) -> Tensor:
    options = {"return_tensors": "pt", "padding": True, "truncation": True}
    inputs = processor(text=prompts, images=list(pictures), **options)
    output = model(**inputs.to(model.device))
    return torch.cosine_similarity(output.image_embeds, output.text_embeds).cpu()


def _clip(path: Path) -> tuple[Any, Any]:
    from transformers import CLIPModel, CLIPProcessor

    try:
        model = CLIPModel.from_pretrained(path, local_files_only=True, use_safetensors=True)
        return model, CLIPProcessor.from_pretrained(path, local_files_only=True)
    except (OSError, ValueError, TypeError) as error:
        raise refusal("model_path", str(path), "a directory with a CLIP model and its processor") from error


def _input(pictures: Images | str | Path) -> str | _Pictures:
    return str(pictures) if isinstance(pictures, (str, Path)) else _Pictures(pictures)


def _inception(path: str | Path | None) -> str:
    """The file of the weights: the one given, else the one that torch's hub has kept."""
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

    file_name = URL_INCEPTION_V3.rpartition("/")[2]
    file = Path(path or Path(torch.hub.get_dir()) / "checkpoints" / file_name)
    try:
        # torch-fidelity unpickles whatever the file holds; this reading admits tensors alone.
        torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, pickle.UnpicklingError, EOFError) as error:
        raise refusal("inception_weights", path, f"a path to torch-fidelity's {file_name}") from error
    return str(file)
