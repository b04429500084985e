"""Files as torch-fidelity wants them, with random weights: its own loaders read them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torchvision.models import vgg16  # type: ignore[import-untyped]

from bench.spec.external_files import LPIPS_FILES


class _Unloaded(FeatureExtractorInceptionV3):  # type: ignore[misc]
    """Inception that takes no weights from its file, but random ones."""

    def load_state_dict(self, *_: Any) -> None:
        """Scaled as He et al. 2015 do, or nothing would be left of an image after so many layers."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)


def inception(path: Path) -> Path:
    """Inception's weights in a file."""
    torch.manual_seed(0)
    torch.save({}, path)
    network = _Unloaded("random", ["2048"], feature_extractor_weights_path=path)
    torch.save(network.state_dict(), path)
    return path


def lpips(directory: Path) -> Path:
    """A directory with LPIPS's own layers, positive as the trained ones are, and VGG16."""
    torch.manual_seed(0)
    widths = enumerate((64, 128, 256, 512, 512))
    layers = {f"lin{i}.model.1.weight": torch.rand(1, width, 1, 1) for i, width in widths}
    with torch.device("meta"):
        shapes = vgg16().state_dict()
    directory.mkdir(exist_ok=True)
    for name, content in zip(
        LPIPS_FILES, (layers, {k: _random(k, v) for k, v in shapes.items()}), strict=True
    ):
        torch.save(content, directory / name)
    return directory


def _random(name: str, like: Tensor) -> Tensor:
    """The classifier, which LPIPS leaves out, is one stored zero seen many times."""
    if name.startswith("classifier") or like.ndim == 1:
        return torch.zeros(1).expand(like.shape)
    return nn.init.kaiming_normal_(torch.empty(like.shape))
