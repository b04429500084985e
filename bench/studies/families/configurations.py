"""Every configuration, held against the classes of the installed diffusers."""

from __future__ import annotations

import importlib
import inspect
import pkgutil

from diffusers.models import transformers
from diffusers.models.modeling_utils import ModelMixin

from bench.studies.families import flux_models, image_models, other_models, video_models, wan_models
from bench.studies.families.configuration import configurations

CONFIGURATIONS = configurations(
    image_models.TABLE, flux_models.TABLE, video_models.TABLE, wan_models.TABLE, other_models.TABLE
)
NOT_DENOISERS = {
    "DreamLiteTransformer2DModel": "a block of DreamLite's U-Net, without a timestep of its own",
    "MiniMaxMusic3RVQDepthDecoder": "predicts audio codes one after another, no noise",
    "TransformerTemporalModel": "a block of video U-Nets, without a timestep of its own",
}


def installed() -> set[str]:
    """List all model classes in the installed `diffusers.models.transformers`.

    Returns:
        Their names.
    """
    names = set()
    for entry in pkgutil.iter_modules(transformers.__path__):
        module = importlib.import_module(f"{transformers.__name__}.{entry.name}")
        classes = inspect.getmembers(module, inspect.isclass)
        names |= {
            name
            for name, kind in classes
            if issubclass(kind, ModelMixin) and kind.__module__ == module.__name__
        }
    return names


def unknown() -> set[str]:
    """List classes that are not accounted for.

    Returns:
        Installed ones that no configuration covers and that are not listed as anything but a denoiser.
    """
    covered = {configuration.model for configuration in CONFIGURATIONS.values()}
    return installed() - covered - NOT_DENOISERS.keys()
