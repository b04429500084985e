"""Models: finding, checking, fingerprinting and loading the pipeline that a suite names."""

from __future__ import annotations

import hashlib
import json
import logging
from functools import cache
from pathlib import Path
from typing import Any, Literal

from bench.errors import BadInput
from bench.machine import hashing
from bench.machine.device import device_type
from bench.pipeline import facts, hub, signatures
from bench.pipeline.architectures import ARCHITECTURES
from bench.pipeline.facts import ModelFacts
from bench.spec.run_spec import RunSpec
from bench.spec.settings import Settings
from dqar.core.noise_kind import solves_flow

log = logging.getLogger(__name__)

DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
COMPONENTS = ("transformer", "vae")  # of every pipeline
EMBEDDED = ("embedded", "embedded-t2i")
ALLOWED = f"allowed: {', '.join(EMBEDDED)}, a directory with a pipeline of diffusers, or a hub id"
# Libraries whose components have weights, unless their classes' names end so.
WITH_WEIGHTS = ("diffusers", "transformers")
WITHOUT = ("Scheduler", "Tokenizer", "TokenizerFast", "Processor")


def with_weights(settings: Settings) -> Literal["trained", "random"]:
    """How the weights of the model can be had.

    Args:
        settings: The suite's, or a run's.

    Returns:
        "random" only for hub ids whose architecture is known; the reason is logged.

    Raises:
        BadInput: naming the model and what is missing.
    """
    try:
        check(directory(settings.model))
    except BadInput as error:
        known = settings.prompts is None or settings.model in ARCHITECTURES
        if not (settings.random and is_hub_id(settings.model) and known):
            raise
        log.warning("%s; random weights instead (time and memory only)", error)
        return "random"
    return "trained"


def is_hub_id(model: str) -> bool:
    """Whether a model is named by its place on the hub.

    Args:
        model: As a suite names it.

    Returns:
        True for owner/name that is no path here.
    """
    owner, _, name = model.partition("/")
    return bool(owner and name) and "/" not in name and owner != "." and not Path(model).exists()


def directory(model: str) -> Path:
    """The directory of a model's files, fetched from the hub where it is an id.

    Args:
        model: A name in EMBEDDED, a directory or a hub id.

    Returns:
        A directory; what it holds is not checked.

    Raises:
        BadInput: There is none, or it cannot be fetched.
    """
    if model in EMBEDDED:
        return _embedded(model)
    if is_hub_id(model):
        return _fetched(model)
    if not Path(model).is_dir():
        raise BadInput(f"model: {model!r} is no directory; {ALLOWED}")
    return Path(model)


def _embedded(model: str) -> Path:
    from bench.embedded import MODEL_DIR, TEXT_MODEL_DIR

    return TEXT_MODEL_DIR if model == "embedded-t2i" else MODEL_DIR


@cache
def _fetched(model: str) -> Path:
    return hub.fetch(model, log.warning)


def check(path: Path) -> None:
    """Check that a directory holds a readable pipeline that can be measured, with all its weights.

    Args:
        path: The pipeline's directory.

    Raises:
        BadInput: Naming the file and what is wrong with it.
    """
    index = facts.read(path / "model_index.json")
    signatures.check_pipeline(str(index.get("_class_name")), index)
    for component in COMPONENTS:
        facts.read(path / component / "config.json")
    for component in _parts(index):
        _check_weights(path, component)
    facts.read(path / "scheduler" / "scheduler_config.json")


def check_settings(settings: Settings) -> None:
    """Check that the model can be measured and takes what the settings give it.

    Args:
        settings: The suite's, or a run's with its options.

    Raises:
        BadInput: Naming the field or file, and what is allowed.
    """
    path = directory(settings.model)
    check(path)
    known = ModelFacts.of(path)
    signatures.check_call(settings, known.pipeline, known.flow_matching)


def _parts(index: dict[str, Any]) -> list[str]:
    """The components of a pipeline that have weights, transformer and autoencoder first."""
    kinds = {name: kind for name, kind in index.items() if isinstance(kind, list) and len(kind) == 2}
    weighty = [
        name
        for name, (library, kind) in kinds.items()
        if library in WITH_WEIGHTS and not str(kind).endswith(WITHOUT) and name not in COMPONENTS
    ]
    return [*COMPONENTS, *weighty]


def _absent(index: dict[str, Any]) -> dict[str, None]:
    """The components that a pipeline declares absent, such as the T5 of Stable Diffusion 3."""
    return {name: None for name, kind in index.items() if kind == [None, None]}


def _check_weights(path: Path, component: str) -> None:
    from safetensors import SafetensorError, safe_open

    files = weights(path / component)
    if not files:
        raise BadInput(f"model: {path.name}/{component}: weights missing; needed: *.safetensors")
    for file in files:
        if not file.is_file():  # reading a pipe would wait for ever
            raise BadInput(f"model: {path.name}/{component}/{file.name}: is no regular file")
        try:
            if file.suffix == ".safetensors":
                safe_open(file, framework="numpy").keys()  # type: ignore[no-untyped-call]
        except (OSError, SafetensorError) as error:
            raise BadInput(f"model: {path.name}/{component}/{file.name}: not readable: {error}") from error


def weights(component: Path) -> list[Path]:
    """The weight files of a component.

    Args:
        component: Its directory.

    Returns:
        Its safetensors, else its pickled ones, sorted; empty where it has neither.
    """
    return sorted(component.glob("*.safetensors")) or sorted(component.glob("*.bin"))


def fingerprint(spec: RunSpec) -> str:
    """A hash of all files that make the model, or of the architecture where weights are random.

    Args:
        spec: The configuration; its model is there.

    Returns:
        16 hex digits.
    """
    if spec.weights == "random":
        text = ARCHITECTURES[spec.model].text if spec.prompts else json.dumps(DIT_XL)
        return hashlib.sha256(f"random {spec.model} {text}".encode()).hexdigest()[:16]
    return fingerprint_of(spec.model)


def fingerprint_of(model: str) -> str:
    """A hash of all files that make a model.

    Args:
        model: A name in EMBEDDED, a directory or a hub id.

    Returns:
        16 hex digits.
    """
    path = directory(model)
    index = facts.read(path / "model_index.json")
    tokenizers = [name for name in index if "tokenizer" in name]
    parts = (*_parts(index), "scheduler", *tokenizers)
    files = [f for c in parts for f in sorted((path / c).rglob("*"))]
    return hashing.digest([path / "model_index.json", *(f for f in files if f.is_file())], path)


def facts_of(spec: RunSpec) -> ModelFacts:
    """What the model's files state of it, or its architecture where weights are random.

    Args:
        spec: The configuration; its model is there.

    Returns:
        Its facts, without loading it.
    """
    if spec.weights == "random" and spec.prompts:
        architecture = ARCHITECTURES[spec.model]
        flow = solves_flow(architecture.scheduler.kind, architecture.scheduler.options)
        return ModelFacts(architecture.layers, None, {}, 1000, architecture.pipeline, flow)
    if spec.weights == "random":
        return ModelFacts(DIT_XL["num_layers"], DIT_XL["num_embeds_ada_norm"], {}, 1000)  # type: ignore[arg-type]
    return ModelFacts.of(directory(spec.model))


def load(spec: RunSpec) -> Any:
    """Load the pipeline of a run, silent, with the suite's scheduler.

    Args:
        spec: The configuration; its model is there.

    Returns:
        A pipeline of diffusers in the suite's dtype, on this machine's device.
    """
    import torch
    from diffusers.utils import logging as diffusers_logging

    from bench.methods.scheduler import from_pipeline

    diffusers_logging.disable_progress_bar()
    dtype = getattr(torch, DTYPES[spec.dtype])
    pipe = _random(spec, dtype) if spec.weights == "random" else _trained(spec, dtype)
    pipe.set_progress_bar_config(disable=True)
    if spec.scheduler or spec.timestep_spacing:
        spacing = {"timestep_spacing": spec.timestep_spacing} if spec.timestep_spacing else {}
        pipe.scheduler = from_pipeline(pipe, spec.scheduler, **spacing)
    return pipe.to(device_type())


def _trained(spec: RunSpec, dtype: Any) -> Any:
    import diffusers

    path = directory(spec.model)
    index = facts.read(path / "model_index.json")
    kind = getattr(diffusers, str(index.get("_class_name")))
    return kind.from_pretrained(path, dtype=dtype, local_files_only=True, **_absent(index))


# The architecture of facebook/DiT-XL-2-256 (its config.json) and of its autoencoder.
DIT_XL = {
    "num_layers": 28, "num_attention_heads": 16, "attention_head_dim": 72, "in_channels": 4,
    "out_channels": 8, "patch_size": 2, "sample_size": 32, "num_embeds_ada_norm": 1000,
    "activation_fn": "gelu-approximate", "attention_bias": True, "norm_elementwise_affine": False,
}  # fmt: skip
VAE = {
    "block_out_channels": [128, 256, 512, 512], "layers_per_block": 2, "latent_channels": 4,
    "down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4,
    "sample_size": 256,
}  # fmt: skip


def _random(spec: RunSpec, dtype: Any) -> Any:
    """The same architecture with random weights: its time and memory are the trained model's."""
    if spec.prompts:
        return ARCHITECTURES[spec.model].build(dtype)
    import torch
    from diffusers import AutoencoderKL, DDIMScheduler, DiTPipeline, DiTTransformer2DModel

    torch.manual_seed(0)
    with torch.device(device_type()):
        transformer, vae = DiTTransformer2DModel(**DIT_XL), AutoencoderKL(**VAE)
    pipe: Any = DiTPipeline(transformer, vae, DDIMScheduler(clip_sample=False))
    # Fresh modules are in training mode, where labels are dropped at random.
    pipe.transformer.eval()
    pipe.vae.eval()
    return pipe.to(dtype)
