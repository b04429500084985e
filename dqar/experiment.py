"""All of the original specification's configuration file: model, reuse, policy and sampler."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dqar.config import DQARConfig
from dqar.config_yaml import read_file
from dqar.integration.dit_wrapper import DQARDiTWrapper
from dqar.integration.samplers import DQARDDIMSampler, DQARDPMSolverSampler, DQARSampler, SamplerConfig
from dqar.policy.mlp_policy import ReusePolicy
from dqar.utils.helpers import load_dit_model

SAMPLERS: dict[str, type[DQARSampler]] = {"ddim": DQARDDIMSampler, "dpm_solver": DQARDPMSolverSampler}


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A file of the layout of `dqar/configs/default.yaml`, every key of which is used.

        experiment = Experiment.from_yaml("default.yaml")
        pipe = experiment.load_model("cuda")
        latents = experiment.sampler(pipe).sample(batch_size=2, class_labels=[207, 360])

    Attributes:
        model: Directory or hub id of a `DiTPipeline`.
        dtype: Floating-point type that it is loaded in.
        config: What is reused.
        sampler_type: `ddim` or `dpm_solver`.
        sampling: Steps, guidance and noise.
        policy: Options of a policy to be trained, `hidden_dims` and `dropout`.
    """

    model: str
    dtype: torch.dtype
    config: DQARConfig
    sampler_type: str
    sampling: SamplerConfig
    policy: dict[str, Any]

    @classmethod
    def from_yaml(cls, path: str | Path) -> Experiment:
        """Read a file; what it lacks has the original specification's value.

        Args:
            path: A file of the layout of `dqar/configs/default.yaml`.

        Returns:
            The experiment; nothing is loaded yet.

        Raises:
            DQARError: With the file, the key, the value and what is allowed.
        """
        config, others = read_file(path, DQARConfig)
        model, sampler = others.get("model", {}), others.get("sampler", {})
        return cls(
            model=model.get("name", "facebook/DiT-XL-2-256"),
            dtype=getattr(torch, model.get("dtype", "float16")),
            config=config,
            sampler_type=sampler.pop("type", "ddim"),
            sampling=SamplerConfig(**sampler),
            policy=others.get("policy", {}),
        )

    def load_model(self, device: str | torch.device = "cpu") -> Any:
        """Load the `DiTPipeline`.

        Args:
            device: Where to put it, such as `cpu` or `cuda:1`.

        Returns:
            The pipeline in the file's dtype, without DQAR.

        Raises:
            DQARError: There is none that can be read.
        """
        return load_dit_model(self.model, device, self.dtype)

    def sampler(self, pipe: Any) -> DQARSampler:
        """Wrap the transformer of `pipe` and return a sampler of it.

        Args:
            pipe: A `DiTPipeline`; its transformer reuses until the sampler's `model.remove()`.

        Returns:
            A sampler of the file's type, with its own scheduler where the pipeline's is of another kind.

        Raises:
            DQARError: The configuration does not fit the model or the solver.
        """
        wrapped = DQARDiTWrapper(pipe.transformer, self.config)
        return SAMPLERS[self.sampler_type](wrapped, pipe.scheduler, self.sampling)

    def make_policy(self) -> ReusePolicy:
        """Make a policy to be trained, of the widths and the dropout that the file gives.

        Returns:
            A policy with random weights.
        """
        return ReusePolicy(**self.policy)
