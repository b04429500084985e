"""The learned policy: a small network that predicts, from four numbers per layer, whether reuse is safe."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from dqar.errors import invalid_value
from dqar.utils.atomic import write_atomic
from dqar.utils.foreign import read_bytes, read_json
from dqar.validation import Rule, count, is_number, is_whole, share

FEATURES = ("entropy", "log_snr", "latent_norm", "timestep")
"""The inputs: H_t in nats; ln SNR_t; ||x_t||_2 of one latent; t / T, training timesteps."""
EMBEDDING = 8  # numbers that distinguish the layers
MAX_WIDTH = 4096  # of a hidden layer; more is a mistake or an attack, not a small network
MAX_WEIGHT_BYTES = 256 * 2**20
WEIGHTS, ABOUT = "policy.safetensors", "policy.json"

WIDTH = Rule(lambda v: is_whole(v) and 1 <= v <= MAX_WIDTH, f"whole numbers from 1 to {MAX_WIDTH}")
DROPOUT = share(below_one=True)
# Training may find that nothing is to be reused: a threshold just above the largest probability.
THRESHOLD = Rule(lambda v: is_number(v) and 0 <= v <= 1 + 1e-6, "a number from 0 to 1")


class ReusePolicy(nn.Module):
    """p_reuse = MLP(concat(H_t, ln SNR_t, ||x_t||, t / T)), inputs standardised by a stored mean and std.

    With the defaults it has 2,500 parameters. `metrics` holds what training measured; it is saved along.

    Args:
        hidden_dims: Widths of the hidden layers.
        dropout: Share of the hidden units that training drops.
        threshold: Probability from which to reuse; training sets it.

    Raises:
        InvalidValue: A width below 1, or a dropout or threshold outside 0 to 1.
    """

    def __init__(
        self, hidden_dims: Sequence[int] = (64, 32), dropout: float = 0.1, threshold: float = 0.5
    ) -> None:
        super().__init__()
        self._check(hidden_dims, dropout, threshold)
        self.hidden_dims, self.dropout, self.threshold = tuple(hidden_dims), dropout, threshold
        self.metrics: dict[str, Any] = {}
        self.mean = nn.Buffer(torch.zeros(len(FEATURES)))
        self.std = nn.Buffer(torch.ones(len(FEATURES)))
        self.net = _mlp(self._inputs(), self.hidden_dims, dropout)

    def __repr__(self) -> str:
        shape = ", ".join(f"{name}={value!r}" for name, value in self._config().items())
        size = sum(parameter.numel() for parameter in self.parameters())
        auc = f", roc_auc={self.metrics['roc_auc']:.3f}" if "roc_auc" in self.metrics else ""
        return f"{type(self).__name__}({shape}, parameters={size}{auc})"

    def forward(self, features: Tensor) -> Tensor:
        """Probability that reuse is safe.

        Args:
            features: In the order of `FEATURES`, `[..., 4]`, not standardised.

        Returns:
            `[...]` in [0, 1].
        """
        return self.logits(features).sigmoid()

    def logits(self, features: Tensor, layer: Tensor | None = None) -> Tensor:
        """The probability before the sigmoid.

        Args:
            features: In the order of `FEATURES`, `[..., 4]`, not standardised.
            layer: Number of each row's layer, which this policy does not use.

        Returns:
            `[...]`.
        """
        logits: Tensor = self.net(self.standardise(features))
        return logits.squeeze(-1)

    def standardise(self, features: Tensor) -> Tensor:
        """Features less the stored mean, in units of the stored standard deviation.

        Args:
            features: `[..., 4]`.

        Returns:
            `[..., 4]`.
        """
        return (features - self.mean) / self.std

    def fit_standardisation(self, features: Tensor) -> None:
        """Store mean and standard deviation; a feature that never changes keeps its unit.

        Args:
            features: Of the training rows, `[n, 4]`.
        """
        std, mean = torch.std_mean(features.float(), dim=0, correction=0)
        self.mean.copy_(mean)
        self.std.copy_(torch.where(std > 0, std, 1.0))

    def save(self, directory: str | Path) -> None:
        """Write `policy.safetensors` and `policy.json` into a directory, each whole or not at all.

        The latter holds the former's digest, so that files of two policies are not taken for one.

        Args:
            directory: Where the two files go; it is made where it is missing.

        Raises:
            OSError: They cannot be written.
        """
        weights = save(self.state_dict())
        about = {
            "kind": type(self).__name__,
            "features": FEATURES,
            "config": self._config(),
            "metrics": self.metrics,
            "weights": _digest(weights),
        }
        write_atomic(Path(directory) / WEIGHTS, weights)
        write_atomic(Path(directory) / ABOUT, json.dumps(about, indent=2) + "\n")

    @classmethod
    def load(cls, directory: str | Path) -> Self:
        """Read a policy of this class, in evaluation mode.

        Args:
            directory: What `save` wrote into.

        Returns:
            The policy on the CPU, of the class that was saved, this one or one derived from it.

        Raises:
            DQARError: A file is missing or holds something else; weights that are not finite.
        """
        about = _read_about(Path(directory) / ABOUT)
        kinds: dict[str, type[Any]] = {
            kind.__name__: kind for kind in (ReusePolicy, LayerWiseReusePolicy) if issubclass(kind, cls)
        }
        _expect("kind", about.get("kind"), about.get("kind") in kinds, ", ".join(kinds))
        _expect("features", about.get("features"), about.get("features") == [*FEATURES], ", ".join(FEATURES))
        try:
            policy = kinds[about["kind"]](**about["config"])
        except (KeyError, TypeError) as error:
            raise invalid_value("config", about.get("config"), f"the fields of {about['kind']}") from error
        policy.metrics = about.get("metrics", {})
        weights = _read_weights(Path(directory) / WEIGHTS, about.get("weights"), policy.state_dict())
        policy.load_state_dict(weights)
        policy.eval()
        return cast(Self, policy)

    def _inputs(self) -> int:
        return len(FEATURES)

    def _config(self) -> dict[str, Any]:
        return {"hidden_dims": self.hidden_dims, "dropout": self.dropout, "threshold": self.threshold}

    @staticmethod
    def _check(hidden_dims: Sequence[int], dropout: float, threshold: float) -> None:
        for width in hidden_dims:
            WIDTH.check("hidden_dims", width)
        DROPOUT.check("dropout", dropout)
        THRESHOLD.check("threshold", threshold)


class LayerWiseReusePolicy(ReusePolicy):
    """The same, which distinguishes `num_layers` layers by a learned embedding.

    Args:
        num_layers: Layers of the model.
        hidden_dims: Widths of the hidden layers.
        dropout: Share of the hidden units that training drops.
        threshold: Probability from which to reuse; training sets it.

    Raises:
        InvalidValue: As `ReusePolicy`, or fewer than one layer.
    """

    def __init__(
        self,
        num_layers: int,
        hidden_dims: Sequence[int] = (64, 32),
        dropout: float = 0.1,
        threshold: float = 0.5,
    ) -> None:
        super().__init__(hidden_dims, dropout, threshold)
        count(1).check("num_layers", num_layers)
        self.num_layers = num_layers
        self.embedding = nn.Embedding(num_layers, EMBEDDING)

    def logits(self, features: Tensor, layer: Tensor | None = None) -> Tensor:
        """The probability before the sigmoid.

        Args:
            features: `[..., 4]`; without `layer` `[..., num_layers, 4]`, of all layers in order.
            layer: Numbers of the layers, `[...]`.

        Returns:
            `[...]`, or `[..., num_layers]`.

        Raises:
            InvalidValue: Without `layer`, there are not as many rows as layers.
        """
        if layer is None:
            rows = features.shape[-2] if features.ndim > 1 else 1
            _expect(
                "features", tuple(features.shape), rows == self.num_layers, f"[..., {self.num_layers}, 4]"
            )
            layer = torch.arange(self.num_layers, device=features.device).expand(features.shape[:-1])
        logits: Tensor = self.net(torch.cat([self.standardise(features), self.embedding(layer)], -1))
        return logits.squeeze(-1)

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
    about = read_json(path, "policy", limit=2**20)
    _expect("policy", about, isinstance(about, dict), "a JSON object that `save` wrote")
    return dict(about)


def _read_weights(path: Path, digest: str | None, expected: dict[str, Tensor]) -> dict[str, Tensor]:
    content = read_bytes(path, "policy", limit=MAX_WEIGHT_BYTES)
    try:
        state = load(content)
    except (SafetensorError, ValueError, RuntimeError) as error:
        raise invalid_value("policy", str(path), "a readable safetensors file that `save` wrote") from error
    # Policies saved before digests were have none.
    _expect(
        "policy", str(path), digest in (None, _digest(content)), f"the weights that {ABOUT} was saved with"
    )
    _expect("tensors", sorted(state), state.keys() == expected.keys(), ", ".join(sorted(expected)))
    for name, tensor in state.items():
        shape = tuple(expected[name].shape)
        _expect(f"shape of {name}", tuple(tensor.shape), tuple(tensor.shape) == shape, str(shape))
        _expect(f"{name} of {path.name}", "NaN or infinity", bool(tensor.isfinite().all()), "finite numbers")
    _expect("std", state["std"].tolist(), bool((state["std"] > 0).all()), "numbers above 0")
    return state


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _expect(name: str, value: Any, holds: bool, allowed: str) -> None:
    if not holds:
        raise invalid_value(name, value, allowed)
