"""The learned policy: a small network that tells, from four numbers a layer, whether to reuse it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dqar.validation import refusal

FEATURES = ("entropy", "log_snr", "latent_norm", "timestep")
"""The inputs: H_t in nats; ln SNR_t; ||x_t||_2 of one latent; t / T, training timesteps."""
EMBEDDING = 8  # numbers that tell the layers apart
WEIGHTS, ABOUT = "policy.safetensors", "policy.json"


class ReusePolicy(nn.Module):
    """p_reuse = MLP(concat(H_t, ln SNR_t, ||x_t||, t / T)), inputs standardised by a stored mean and std.

    `threshold` is the probability from which to reuse, and `figures` what training measured; both are
    saved along. With the defaults it has 2,500 parameters. Raises `ValueError` for a width below 1, or
    a dropout or threshold outside 0 to 1.
    """

    def __init__(
        self, hidden_dims: Sequence[int] = (64, 32), dropout: float = 0.1, threshold: float = 0.5
    ) -> None:
        super().__init__()
        self._check(hidden_dims, dropout, threshold)
        self.hidden_dims, self.dropout, self.threshold = tuple(hidden_dims), dropout, threshold
        self.figures: dict[str, Any] = {}
        self.mean = nn.Buffer(torch.zeros(len(FEATURES)))
        self.std = nn.Buffer(torch.ones(len(FEATURES)))
        self.net = _mlp(self._inputs(), self.hidden_dims, dropout)

    def forward(self, features: Tensor) -> Tensor:
        """Probability that reuse is harmless: features `[..., 4]` -> `[...]` in [0, 1]."""
        return self.logits(features).sigmoid()

    def logits(self, features: Tensor, layer: Tensor | None = None) -> Tensor:
        """The same before the sigmoid; this policy takes no notice of `layer`."""
        return self.net(self.standardise(features)).squeeze(-1)

    def standardise(self, features: Tensor) -> Tensor:
        """Features with the stored mean taken off, in units of the stored std."""
        return (features - self.mean) / self.std

    def fit_standardisation(self, features: Tensor) -> None:
        """Store mean and std of `features` `[n, 4]`; a feature that never changes keeps its unit."""
        std, mean = torch.std_mean(features.float(), dim=0, correction=0)
        self.mean.copy_(mean)
        self.std.copy_(torch.where(std > 0, std, 1.0))

    def save(self, folder: str | Path) -> None:
        """Write `policy.safetensors` and `policy.json` into `folder`."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        save_file(self.state_dict(), folder / WEIGHTS)
        about = {"kind": type(self).__name__, "features": FEATURES, "config": self._config()}
        text = json.dumps(about | {"figures": self.figures}, indent=2)
        (folder / ABOUT).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Read a policy of this class, in evaluation mode. Raises `ValueError` for any other content."""
        about = _read_about(Path(folder) / ABOUT)
        kinds: dict[str, type[Any]] = {
            kind.__name__: kind for kind in (ReusePolicy, LayerWiseReusePolicy) if issubclass(kind, cls)
        }
        _expect("kind", about.get("kind"), about.get("kind") in kinds, ", ".join(kinds))
        _expect("features", about.get("features"), about.get("features") == [*FEATURES], ", ".join(FEATURES))
        try:
            policy = kinds[about["kind"]](**about["config"])
        except (KeyError, TypeError) as error:
            raise refusal("config", about.get("config"), f"the fields of {about['kind']}") from error
        policy.figures = about.get("figures", {})
        policy.load_state_dict(_read_weights(Path(folder) / WEIGHTS, policy.state_dict()))
        return policy.eval()

    def _inputs(self) -> int:
        return len(FEATURES)

    def _config(self) -> dict[str, Any]:
        return {"hidden_dims": self.hidden_dims, "dropout": self.dropout, "threshold": self.threshold}

    @staticmethod
    def _check(hidden_dims: Sequence[int], dropout: float, threshold: float) -> None:
        widths = all(type(width) is int and width >= 1 for width in hidden_dims)
        _expect("hidden_dims", hidden_dims, widths, "whole numbers, at least 1")
        _expect("dropout", dropout, 0 <= dropout < 1, "a number from 0 to 1, 1 left out")
        _expect("threshold", threshold, 0 <= threshold <= 1, "a number from 0 to 1")


class LayerWiseReusePolicy(ReusePolicy):
    """The same, told which of `num_layers` layers it decides for by a learned embedding."""

    def __init__(
        self,
        num_layers: int,
        hidden_dims: Sequence[int] = (64, 32),
        dropout: float = 0.1,
        threshold: float = 0.5,
    ) -> None:
        super().__init__(hidden_dims, dropout, threshold)
        _expect("num_layers", num_layers, type(num_layers) is int and num_layers >= 1, "at least 1")
        self.num_layers = num_layers
        self.embedding = nn.Embedding(num_layers, EMBEDDING)

    def logits(self, features: Tensor, layer: Tensor | None = None) -> Tensor:
        """Features `[..., 4]` of the layers `layer` `[...]`, or `[..., num_layers, 4]` of all in order.

        Raises `ValueError` when, with no `layer` given, there are not as many as layers.
        """
        if layer is None:
            rows = features.shape[-2] if features.ndim > 1 else 1
            _expect(
                "features", tuple(features.shape), rows == self.num_layers, f"[..., {self.num_layers}, 4]"
            )
            layer = torch.arange(self.num_layers, device=features.device).expand(features.shape[:-1])
        return self.net(torch.cat([self.standardise(features), self.embedding(layer)], -1)).squeeze(-1)

    def _inputs(self) -> int:
        return len(FEATURES) + EMBEDDING

    def _config(self) -> dict[str, Any]:
        return {"num_layers": self.num_layers} | super()._config()


def _mlp(inputs: int, hidden_dims: Sequence[int], dropout: float) -> nn.Sequential:
    widths = [inputs, *hidden_dims]
    hidden = [
        module
        for a, b in itertools.pairwise(widths)
        for module in (nn.Linear(a, b), nn.ReLU(), nn.Dropout(dropout))
    ]
    return nn.Sequential(*hidden, nn.Linear(widths[-1], 1))


def _read_about(path: Path) -> dict[str, Any]:
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise refusal("policy", str(path), "a readable JSON file that `save` wrote") from error
    _expect("policy", about, isinstance(about, dict), "a JSON object that `save` wrote")
    return about


def _read_weights(path: Path, expected: dict[str, Tensor]) -> dict[str, Tensor]:
    try:
        state = load_file(path)
    except (OSError, SafetensorError) as error:
        raise refusal("policy", str(path), "a readable safetensors file that `save` wrote") from error
    _expect("tensors", sorted(state), state.keys() == expected.keys(), ", ".join(sorted(expected)))
    for name, tensor in state.items():
        allowed = tuple(expected[name].shape)
        _expect(f"shape of {name}", tuple(tensor.shape), tuple(tensor.shape) == allowed, str(allowed))
    return state


def _expect(name: str, value: Any, holds: bool, allowed: str) -> None:
    if not holds:
        raise refusal(name, value, allowed)
