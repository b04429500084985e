"""Quality of images: Fréchet distance to reference images, and CLIP score to their prompts."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dqar.errors import InvalidValue, invalid_value
from dqar.evaluation.frechet import Statistics, fitted, frechet_distance
from dqar.evaluation.image_files import ImageFiles
from dqar.utils.extras import imported
from dqar.utils.helpers import Images, as_uint8

INCEPTION = "inception-v3-compat"  # torch-fidelity's name of the network that defines FID


def compute_fid(
    generated: Images | str | Path,
    reference: Images | str | Path,
    inception_weights: str | Path | None = None,
    extractor: str | None = None,
    batch_size: int = 64,
    device: str = "cpu",
) -> dict[str, float | str]:
    """Fréchet distance between generated and reference images (Heusel et al. 2017).

    Args:
        generated: Images as `as_uint8` takes them, or a directory of files (`ImageFiles`).
        reference: The same; of equal sets the distance is exactly 0. That of few images is biased upwards.
        inception_weights: torch-fidelity's file; default: the one in torch hub's cache. It is never fetched.
        extractor: Another extractor registered with torch-fidelity, whose scale is its own.
        batch_size: Images that go through the extractor at once.
        device: Where that happens.

    Returns:
        `{"fid": ..., "extractor": ...}`; with another extractor than Inception `"fd"` in place of `"fid"`.

    Raises:
        MissingExtra: torch-fidelity is not installed.
        ValueError: no Inception weights, an unknown extractor, or images that cannot be used: fewer than
            two, unreadable, of different sizes, or not finite (`NonFinite`).
    """
    registry = imported("torch_fidelity.registry", "bench").FEATURE_EXTRACTORS_REGISTRY
    name = extractor or INCEPTION
    if name not in registry:
        raise invalid_value("extractor", name, ", ".join(registry))
    sets = {"generated": _chunks("generated", generated, batch_size)}
    sets["reference"] = _chunks("reference", reference, batch_size)
    weights = {"feature_extractor_weights_path": _inception(inception_weights)} if name == INCEPTION else {}
    network = _network(name, device, **weights)
    one, other = (_statistics(field, network, chunks, device) for field, chunks in sets.items())
    return {"fid" if name == INCEPTION else "fd": frechet_distance(one, other), "extractor": name}


def compute_clip_score(
    images: Images,
    prompts: Sequence[str],
    model_path: str | Path,
    batch_size: int = 32,
    device: str = "cpu",
) -> float:
    """Mean of 100 max(cos(image, prompt), 0) over the pairs (Hessel et al. 2021, without their 2.5).

    Args:
        images: As `as_uint8` takes them.
        prompts: One per image.
        model_path: A directory with a transformers CLIP model in safetensors and its processor.
        batch_size: Images that go through the model at once.
        device: Where that happens.

    Returns:
        0 to 100.

    Raises:
        InvalidValue: There is no such model, or images and prompts differ in number.
        MissingExtra: transformers is not installed.
    """
    return float(clip_scores(images, prompts, model_path, batch_size, device).mean())


def clip_scores(
    images: Images,
    prompts: Sequence[str],
    model_path: str | Path,
    batch_size: int = 32,
    device: str = "cpu",
) -> Tensor:
    """The CLIP score of each image, 100 max(cos(image, prompt), 0).

    Args:
        images: As `as_uint8` takes them.
        prompts: One per image.
        model_path: A directory with a transformers CLIP model in safetensors and its processor.
        batch_size: Images that go through the model at once.
        device: Where that happens.

    Returns:
        0 to 100 for each image, `[n]`, float32 on the CPU.

    Raises:
        InvalidValue: There is no such model, or images and prompts differ in number.
        MissingExtra: transformers is not installed.
    """
    pixels = as_uint8(images)
    if len(pixels) != len(prompts):
        raise InvalidValue(f"prompts has {len(prompts)} entries; allowed: one per image, {len(pixels)}")
    model, processor = _clip(Path(model_path))
    model = model.to(device).eval()
    cosines = [
        _cosines(model, processor, pixels[i : i + batch_size], list(prompts[i : i + batch_size]))
        for i in range(0, len(pixels), batch_size)
    ]
    return 100 * torch.cat(cosines).clamp_min(0)


@torch.no_grad()
def _cosines(model: Any, processor: Any, images: Tensor, prompts: list[str]) -> Tensor:
    options = {"return_tensors": "pt", "padding": True, "truncation": True}
    inputs = processor(text=prompts, images=list(images), **options)
    output = model(**inputs.to(model.device))
    return torch.cosine_similarity(output.image_embeds, output.text_embeds).cpu()


def _clip(path: Path) -> tuple[Any, Any]:
    transformers = imported("transformers", "bench")
    try:
        model = transformers.CLIPModel.from_pretrained(path, local_files_only=True, use_safetensors=True)
        return model, transformers.CLIPProcessor.from_pretrained(path, local_files_only=True)
    except (OSError, ValueError, TypeError) as error:
        raise invalid_value(
            "model_path", str(path), "a directory with a CLIP model and its processor"
        ) from error


def _chunks(field: str, images: Images | str | Path, size: int) -> Iterable[Tensor]:
    """The images in batches, uint8 `[n, 3, h, w]`; ValueError names the argument."""
    if not isinstance(images, (str, Path)):
        batches: tuple[Tensor, ...] = as_uint8(images).split(size)
        return batches
    if not Path(images).is_dir():
        raise invalid_value(field, str(images), "images, or a directory of image files")
    try:
        return ImageFiles(Path(images)).chunks(size)
    except ValueError as error:
        raise ValueError(f"{field} = {str(images)!r}: {error}") from error


def _network(name: str, device: str, **weights: str) -> Any:
    registry = imported("torch_fidelity.registry", "bench").FEATURE_EXTRACTORS_REGISTRY
    make = imported("torch_fidelity.utils", "bench").create_feature_extractor
    layer = registry[name].get_default_feature_layer_for_metric("fid")
    network = make(name, [layer], cuda=False, verbose=False, **weights)
    return network.to(device)


@torch.no_grad()
def _statistics(field: str, network: Any, chunks: Iterable[Tensor], device: str) -> Statistics:
    features = [network(chunk.to(device))[0].cpu() for chunk in chunks if len(chunk)]
    try:
        return fitted(torch.cat(features) if features else torch.empty(0, 1))
    except ValueError as error:
        raise ValueError(f"{field}: {error}") from error


def _inception(path: str | Path | None) -> str:
    """The file of the weights: the one given, else the one that torch's hub has kept."""
    inception = imported("torch_fidelity.feature_extractor_inceptionv3", "bench")
    file_name = inception.URL_INCEPTION_V3.rpartition("/")[2]
    file = Path(path or Path(torch.hub.get_dir()) / "checkpoints" / file_name)
    try:
        if not file.is_file():  # opening a pipe would wait for a writer
            raise FileNotFoundError(file)
        # torch-fidelity unpickles whatever the file holds; this reading admits tensors alone.
        torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, pickle.UnpicklingError, EOFError) as error:
        raise invalid_value("inception_weights", path, f"a path to torch-fidelity's {file_name}") from error
    return str(file)
