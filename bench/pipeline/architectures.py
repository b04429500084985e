"""Published text pipelines whose architecture stands in, with random weights, for weights that cannot be had.

Time and memory of a transformer and a decoder do not depend on their weights' values. The text encoders are
left out: each prompt has random embeddings of the right shape. Configurations are those of the models' files.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from bench.machine.device import device_type

if TYPE_CHECKING:  # which takes seconds: a model is refused without
    import torch
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Part:
    """A component: a class of diffusers and its configuration."""

    kind: str
    options: Mapping[str, Any]

    def build(self) -> Any:
        """Make the component with random weights.

        Returns:
            An object of diffusers' class, on the current default device and dtype.
        """
        import diffusers

        return getattr(diffusers, self.kind)(**self.options)


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A pipeline without its text encoders."""

    pipeline: str
    transformer: Part
    vae: Part
    scheduler: Part
    # The call's arguments that encoded prompts come as -> their shape, one prompt; masks are all ones.
    embeddings: Mapping[str, Sequence[int]]
    call: Mapping[str, Any] = field(default_factory=dict)  # arguments that go with embeddings
    components: Mapping[str, Any] = field(default_factory=dict)  # of the pipeline's own arguments

    def build(self, dtype: torch.dtype) -> Any:
        """Make the pipeline with seeded random weights on this machine's device.

        Args:
            dtype: Floating-point type of the weights.

        Returns:
            A pipeline of diffusers whose text encoders and tokenizers are None.
        """
        import diffusers
        import torch

        torch.manual_seed(0)
        before = torch.get_default_dtype()
        torch.set_default_dtype(dtype)  # twelve billion parameters are not made in float32 first
        try:
            with torch.device(device_type()):
                transformer, vae = self.transformer.build().eval(), self.vae.build().eval()
        finally:
            torch.set_default_dtype(before)
        kind: Any = getattr(diffusers, self.pipeline)
        parameters = list(inspect.signature(kind.__init__).parameters.values())[1:]
        absent = {p.name: None for p in parameters if p.default is p.empty}
        parts = {"transformer": transformer, "vae": vae, "scheduler": self.scheduler.build()}
        return kind(**absent | parts | dict(self.components)).to(dtype)

    def arguments(self, numbers: Sequence[int], dtype: torch.dtype) -> dict[str, Any]:
        """Random embeddings in place of prompts, each prompt's the same in any batch.

        Args:
            numbers: Numbers of the prompts, one an image.
            dtype: Floating-point type of the embeddings.

        Returns:
            Arguments of the pipeline's call, tensors on this machine's device.
        """
        import torch

        given = {
            name: torch.stack([_embedding(name, number, shape) for number in numbers])
            for name, shape in self.embeddings.items()
        }
        device = device_type()
        return dict(self.call) | {
            name: value.to(device, dtype if value.is_floating_point() else None)
            for name, value in given.items()
        }

    @property
    def layers(self) -> int:
        """Transformer blocks."""
        options = self.transformer.options
        return int(options["num_layers"]) + int(options.get("num_single_layers", 0))

    @property
    def text(self) -> str:
        """All that decides its time and memory, for a fingerprint."""
        return json.dumps(asdict(self), sort_keys=True, default=list)


def _embedding(name: str, number: int, shape: Sequence[int]) -> Tensor:
    import torch

    if "mask" in name:
        return torch.ones(*shape, dtype=torch.int64)
    seed = 2 * number + name.startswith("negative")
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _both(**shapes: Sequence[int]) -> dict[str, Sequence[int]]:
    """The embeddings of a prompt and of a negative one."""
    return shapes | {f"negative_{name}": shape for name, shape in shapes.items()}


def _kl(channels: int, **options: Any) -> Part:
    """The autoencoder of Stable Diffusion's kind."""
    shared = {
        "block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "latent_channels": channels,
        "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
        "sample_size": 1024,
    }  # fmt: skip
    return Part(kind="AutoencoderKL", options=shared | options)


_NO_QUANT = {"use_quant_conv": False, "use_post_quant_conv": False}

ARCHITECTURES: dict[str, Architecture] = {
    "stabilityai/stable-diffusion-3-medium-diffusers": Architecture(
        pipeline="StableDiffusion3Pipeline",
        transformer=Part(
            kind="SD3Transformer2DModel",
            options={
                "sample_size": 128, "patch_size": 2, "in_channels": 16, "out_channels": 16, "num_layers": 24,
                "attention_head_dim": 64, "num_attention_heads": 24, "joint_attention_dim": 4096,
                "caption_projection_dim": 1536, "pooled_projection_dim": 2048, "pos_embed_max_size": 192,
            },
        ),
        vae=_kl(16, scaling_factor=1.5305, shift_factor=0.0609, **_NO_QUANT),
        scheduler=Part(kind="FlowMatchEulerDiscreteScheduler", options={"shift": 3.0}),
        embeddings=_both(prompt_embeds=(333, 4096), pooled_prompt_embeds=(2048,)),
    ),
    "black-forest-labs/FLUX.1-dev": Architecture(
        pipeline="FluxPipeline",
        transformer=Part(
            kind="FluxTransformer2DModel",
            options={
                "in_channels": 64, "num_layers": 19, "num_single_layers": 38, "attention_head_dim": 128,
                "num_attention_heads": 24, "joint_attention_dim": 4096, "pooled_projection_dim": 768,
                "guidance_embeds": True, "axes_dims_rope": (16, 56, 56),
            },
        ),
        vae=_kl(16, scaling_factor=0.3611, shift_factor=0.1159, **_NO_QUANT),
        scheduler=Part(
            kind="FlowMatchEulerDiscreteScheduler",
            options={"shift": 3.0, "use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 1.15},
        ),
        embeddings={"prompt_embeds": (512, 4096), "pooled_prompt_embeds": (768,)},
    ),
    "PixArt-alpha/PixArt-Sigma-XL-2-1024-MS": Architecture(
        pipeline="PixArtSigmaPipeline",
        transformer=Part(
            kind="PixArtTransformer2DModel",
            options={
                "sample_size": 128, "patch_size": 2, "in_channels": 4, "out_channels": 8, "num_layers": 28,
                "attention_head_dim": 72, "num_attention_heads": 16, "cross_attention_dim": 1152,
                "caption_channels": 4096, "interpolation_scale": 2, "use_additional_conditions": False,
            },
        ),
        vae=_kl(4, scaling_factor=0.13025),
        scheduler=Part(
            kind="DPMSolverMultistepScheduler",
            options={"beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "linear"},
        ),
        embeddings=_both(prompt_embeds=(300, 4096), prompt_attention_mask=(300,)),
        call={"negative_prompt": None},
    ),
    "Wan-AI/Wan2.1-T2V-1.3B-Diffusers": Architecture(
        pipeline="WanPipeline",
        transformer=Part(
            kind="WanTransformer3DModel",
            options={
                "num_attention_heads": 12, "attention_head_dim": 128, "ffn_dim": 8960, "num_layers": 30,
                "in_channels": 16, "out_channels": 16, "text_dim": 4096, "freq_dim": 256,
            },
        ),
        vae=Part(kind="AutoencoderKLWan", options={"base_dim": 96, "z_dim": 16}),
        scheduler=Part(
            kind="UniPCMultistepScheduler",
            options={"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0},
        ),
        embeddings=_both(prompt_embeds=(512, 4096)),
    ),
}  # fmt: skip
