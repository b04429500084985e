"""A stock diffusers pipeline with tiny random weights, its default scheduler, and the arguments of a call."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import diffusers
import torch
from torch import Tensor, nn

from bench.studies.families.configurations import CONFIGURATIONS

STEPS = 4


@dataclass(frozen=True, kw_only=True)
class TinyPipeline:
    """How to build a pipeline and call it, and what is known of its calls.

    `attention` is the attribute of a block that holds its self- or joint attention,
    `mlp` those that its MLPs may
    have. `calls` are those of the
    transformer at each step, the conditional one at `conditional`; at one call a step guidance, if `halves`,
    is two halves of its batch, of which the conditional one is at `conditional`.
    """

    name: str
    family: str
    pipeline: str  # a class of diffusers
    configuration: str  # of the transformer, in CONFIGURATIONS
    scheduler: Callable[[], Any]
    call: Callable[[], dict[str, Any]]
    attention: str = "attn"
    mlp: tuple[str, ...] = ("ff", "ff_context", "ffn", "feed_forward", "img_mlp", "txt_mlp")
    calls: int = 1
    halves: bool = False
    conditional: int | None = None
    second: bool = False  # a second transformer for the later steps
    options: dict[str, Any] = field(default_factory=dict)  # of the transformer, besides its configuration's
    attributes: dict[str, Any] = field(default_factory=dict)  # of the pipeline, set after it is built
    parts: Callable[[], dict[str, Any]] = dict  # other components than the transformer and the scheduler

    def build(self) -> Any:
        """Build the pipeline; text encoders and VAE are left out wherever it can be called without.

        Returns:
            The pipeline, seeded.
        """
        kind = getattr(diffusers, self.pipeline)
        chosen = CONFIGURATIONS[self.configuration]
        configuration = type(chosen)(**vars(chosen) | {"options": chosen.options | self.options})
        given: dict[str, Any] = {"scheduler": self.scheduler(), "transformer": configuration.build()}
        if self.second:
            given["transformer_2"] = _other_weights(configuration.build())
        parameters = list(inspect.signature(kind.__init__).parameters.values())[1:]
        absent = {p.name: None for p in parameters if p.default is p.empty}
        parts = self.parts()
        for part in parts.values():
            if isinstance(part, nn.Module):
                part.eval()
        pipe = kind(**absent | given | parts)
        for name, value in self.attributes.items():
            setattr(pipe, name, value)
        pipe.set_progress_bar_config(disable=True)
        return pipe

    def transformers(self, pipe: Any) -> list[Any]:
        """List the transformers.

        Args:
            pipe: the pipeline, as `build` returns it.

        Returns:
            One or two, in order.
        """
        return [pipe.transformer, pipe.transformer_2] if self.second else [pipe.transformer]

    def blocks(self, model: nn.Module) -> list[nn.Module]:
        """List the blocks of a transformer.

        Args:
            model: one of the pipeline's, or what peft wraps around it.

        Returns:
            Its blocks in order.
        """
        inner = getattr(model, "get_base_model", lambda: model)()  # of what peft wraps
        return CONFIGURATIONS[self.configuration].block_modules(inner)

    @torch.no_grad()
    def generate(self, pipe: Any, **call: Any) -> Tensor:
        """Generate from a fixed seed.

        Args:
            pipe: the pipeline, as `build` returns it.
            **call: arguments in place of the description's.

        Returns:
            The latents.
        """
        generator = torch.Generator().manual_seed(3)
        latent = {} if self.pipeline == "DiTPipeline" else {"return_dict": False}
        result = pipe(**self.call() | latent | call, num_inference_steps=STEPS, generator=generator)
        first = result[0]
        return torch.as_tensor(first[0] if isinstance(first, list) else first)


def _other_weights(model: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.02)
    return model


def text(seed: int, *shape: int) -> Tensor:
    """Make what stands for an encoded prompt.

    Args:
        seed: random seed of the noise.
        *shape: shape of the result.

    Returns:
        Noise of that shape.
    """
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))
