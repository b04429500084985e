"""The pipelines that make images."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLFlux2,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
)
from diffusers.guiders import AdaptiveProjectedMixGuidance

from bench.studies.families.configuration import TEXT
from bench.studies.families.pipeline import TinyPipeline, text

PIPELINES: dict[str, TinyPipeline] = {}
_LATENT = {"output_type": "latent"}
_SIDE: dict[str, Any] = {"height": 64, "width": 64}
_CFG = {"halves": True, "conditional": 1}  # text pipelines put the unconditional half first


def _add(
    name: str, family: str, pipeline: str, configuration: str, scheduler: Any, call: Any, **more: Any
) -> None:
    PIPELINES[name] = TinyPipeline(
        name=name,
        family=family,
        pipeline=pipeline,
        configuration=configuration,
        scheduler=scheduler,
        call=call,
        **more,
    )


def _flow(**options: Any) -> Any:
    return lambda: FlowMatchEulerDiscreteScheduler(**options)


def _mask(tokens: int = TEXT) -> torch.Tensor:
    return torch.ones(1, tokens, dtype=torch.int64)


def _vae() -> AutoencoderKL:
    torch.manual_seed(0)
    return AutoencoderKL(
        block_out_channels=(8, 8), down_block_types=("DownEncoderBlock2D",) * 2, latent_channels=4,
        up_block_types=("UpDecoderBlock2D",) * 2, norm_num_groups=4, sample_size=16, shift_factor=0.1,
    )  # fmt: skip


def _vae_flux2() -> AutoencoderKLFlux2:
    torch.manual_seed(0)
    return AutoencoderKLFlux2(
        block_out_channels=(8, 8, 8, 8), latent_channels=1, norm_num_groups=4, layers_per_block=1
    )


def _prompts(**more: Any) -> dict[str, Any]:
    """A prompt and a negative one as embeddings."""
    return (
        {"prompt_embeds": text(1, 1, TEXT, 12), "negative_prompt_embeds": text(2, 1, TEXT, 12)}
        | _LATENT
        | more
    )


def _masked(**more: Any) -> dict[str, Any]:
    return _prompts(prompt_attention_mask=_mask(), negative_prompt_attention_mask=_mask(), **more)


def _dit() -> dict[str, Any]:
    return {"class_labels": [1, 2], "output_type": "np"}


_add(
    "dit", "DiT", "DiTPipeline", "dit", lambda: DDIMScheduler(clip_sample=False), _dit, attention="attn1",
    halves=True, conditional=0, parts=lambda: {"vae": _vae()},
)  # fmt: skip
_add("pixart_alpha", "PixArt-alpha", "PixArtAlphaPipeline", "pixart", DPMSolverMultistepScheduler,
     lambda: _masked(negative_prompt=None, use_resolution_binning=False, **_SIDE), attention="attn1",
     **_CFG)  # fmt: skip
_add("pixart_sigma", "PixArt-Sigma", "PixArtSigmaPipeline", "pixart", DPMSolverMultistepScheduler,
     lambda: _masked(negative_prompt=None, use_resolution_binning=False, **_SIDE), attention="attn1",
     **_CFG)  # fmt: skip


def _sd3(**more: Any) -> dict[str, Any]:
    pooled = {"pooled_prompt_embeds": text(3, 1, 10), "negative_pooled_prompt_embeds": text(4, 1, 10)}
    return _prompts(**pooled, **_SIDE, **more)


_add("sd3", "Stable Diffusion 3", "StableDiffusion3Pipeline", "sd3", _flow(shift=3.0), _sd3, **_CFG)
_add(
    "sd3_skip_layers", "Stable Diffusion 3.5, skip-layer guidance", "StableDiffusion3Pipeline", "sd35",
    _flow(shift=3.0),
    lambda: _sd3(skip_guidance_layers=[1], skip_layer_guidance_start=0.3, skip_layer_guidance_stop=0.9),
    **_CFG,
)  # fmt: skip
_DYNAMIC = {"use_dynamic_shifting": True, "shift": 3.0}
_FLUX = {"pooled_prompt_embeds": text(3, 1, 10)}
_TRUE_CFG = {"negative_pooled_prompt_embeds": text(4, 1, 10), "true_cfg_scale": 4.0}
_TWO = {"calls": 2, "conditional": 0}


def _flux(true_cfg: bool = False, **more: Any) -> dict[str, Any]:
    given = {"prompt_embeds": text(1, 1, TEXT, 12)} | _FLUX | _LATENT | more
    return given | (_TRUE_CFG | {"negative_prompt_embeds": text(2, 1, TEXT, 12)} if true_cfg else {})


_add("flux", "Flux", "FluxPipeline", "flux_guidance", _flow(**_DYNAMIC), lambda: _flux(**_SIDE))
_add(
    "flux_true_cfg",
    "Flux, true CFG",
    "FluxPipeline",
    "flux",
    _flow(**_DYNAMIC),
    lambda: _flux(True, **_SIDE),
    **_TWO,
)
_EDIT = {"parts": lambda: {"vae": _vae()}, "options": {"in_channels": 16}}
_add(
    "flux_img2img", "Flux, image to image", "FluxImg2ImgPipeline", "flux_guidance", _flow(**_DYNAMIC),
    lambda: _flux(image=text(5, 1, 3, 16, 16).clamp(-1, 1), strength=0.7, height=16, width=16), **_EDIT,
)  # fmt: skip
_add(
    "flux_kontext", "Flux Kontext", "FluxKontextPipeline", "flux_guidance", _flow(**_DYNAMIC),
    lambda: _flux(
        image=text(5, 1, 3, 16, 16).clamp(-1, 1), height=16, width=16, max_area=256, _auto_resize=False
    ), **_EDIT,
)  # fmt: skip
_add(
    "flux2_klein", "Flux.2 Klein", "Flux2KleinPipeline", "flux2_klein", _flow(**_DYNAMIC),
    lambda: _prompts(**_SIDE),
    parts=lambda: {"vae": _vae_flux2()}, **_TWO,
)  # fmt: skip
_add(
    "flux2",
    "Flux.2",
    "Flux2Pipeline",
    "flux2",
    _flow(**_DYNAMIC),
    lambda: {"prompt_embeds": text(1, 1, TEXT, 12)} | _SIDE | _LATENT,
)
_add(
    "chroma", "Chroma", "ChromaPipeline", "chroma", _flow(),
    lambda: _prompts(
        prompt_attention_mask=_mask().bool(), negative_prompt_attention_mask=_mask().bool(), **_SIDE
    ), **_TWO,
)  # fmt: skip
_add(
    "qwen_image", "Qwen-Image", "QwenImagePipeline", "qwen_image", _flow(**_DYNAMIC, shift_terminal=0.02),
    lambda: _prompts(prompt_embeds_mask=_mask(), negative_prompt_embeds_mask=_mask(), **_SIDE), **_TWO,
)  # fmt: skip
_add(
    "z_image", "Z-Image", "ZImagePipeline", "z_image", _flow(shift=3.0),
    lambda: _LATENT | _SIDE | {"prompt_embeds": [text(1, TEXT, 12)], "negative_prompt_embeds": [text(2,
    TEXT, 12)]},
    attention="attention", halves=True, conditional=0,
)  # fmt: skip
_add(
    "sana", "Sana", "SanaPipeline", "sana",
    lambda: DPMSolverMultistepScheduler(use_flow_sigmas=True, prediction_type="flow_prediction",
    flow_shift=3.0),
    lambda: _masked(negative_prompt=None, use_resolution_binning=False, height=256, width=256),
    attention="attn1", **_CFG,
)  # fmt: skip
_add("lumina2", "Lumina 2", "Lumina2Pipeline", "lumina2", _flow(shift=6.0), lambda: _masked(**_SIDE), **_TWO)
_add(
    "auraflow",
    "AuraFlow",
    "AuraFlowPipeline",
    "auraflow",
    _flow(shift=1.73),
    lambda: _masked(**_SIDE),
    **_CFG,
)
_add(
    "cogview4", "CogView4", "CogView4Pipeline", "cogview4",
    _flow(use_dynamic_shifting=True, base_shift=0.25, max_shift=0.75, time_shift_type="linear"),
    lambda: _prompts(**_SIDE), attention="attn1", **_TWO,
)  # fmt: skip
_add(
    "hunyuan_image", "HunyuanImage 2.1", "HunyuanImagePipeline", "hunyuan_image", _flow(shift=5.0),
    lambda: _prompts(
        prompt_embeds_mask=_mask(), negative_prompt_embeds_mask=_mask(), prompt_embeds_2=text(3, 1, 3, 10),
        prompt_embeds_mask_2=_mask(3), negative_prompt_embeds_2=text(4, 1, 3, 10),
        negative_prompt_embeds_mask_2=_mask(3),
        height=128, width=128,
    ),
    parts=lambda: {"guider": AdaptiveProjectedMixGuidance(guidance_scale=3.5)}, **_TWO,
)  # fmt: skip
_add(
    "ovis",
    "Ovis-Image",
    "OvisImagePipeline",
    "ovis",
    _flow(**_DYNAMIC),
    lambda: _prompts(negative_prompt=None, **_SIDE),
    **_TWO,
)
_add(
    "bria",
    "Bria",
    "BriaPipeline",
    "bria",
    _flow(**_DYNAMIC),
    lambda: _prompts(**_SIDE),
    parts=lambda: {"vae": _vae()},
    **_CFG,
)
