"""The pipelines that make video, and the older ones that take a prompt in other ways."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import (
    AutoencoderKLHunyuanVideo15,
    CogVideoXDDIMScheduler,
    DDIMScheduler,
    DDPMScheduler,
    EulerAncestralDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
)
from diffusers.guiders import ClassifierFreeGuidance

from bench.studies.families.configuration import TEXT
from bench.studies.families.pipeline import TinyPipeline, text

PIPELINES: dict[str, TinyPipeline] = {}
_LATENT = {"output_type": "latent"}
_CFG = {"halves": True, "conditional": 1}
_TWO = {"calls": 2, "conditional": 0}
_FILM: dict[str, Any] = {"height": 64, "width": 64, "num_frames": 5}


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


def _unipc(shift: float) -> Any:
    return lambda: UniPCMultistepScheduler(
        use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=shift
    )


def _cogvideo_ddim() -> CogVideoXDDIMScheduler:
    return CogVideoXDDIMScheduler(
        rescale_betas_zero_snr=True, timestep_spacing="trailing", prediction_type="v_prediction"
    )


def _vae_hunyuan() -> AutoencoderKLHunyuanVideo15:
    torch.manual_seed(0)
    return AutoencoderKLHunyuanVideo15(
        latent_channels=4, block_out_channels=(16,) * 5, layers_per_block=1, spatial_compression_ratio=8
    )


def _mask(tokens: int = TEXT) -> torch.Tensor:
    return torch.ones(1, tokens, dtype=torch.int64)


def _prompts(features: int = 12, **more: Any) -> dict[str, Any]:
    """A prompt and a negative one as embeddings."""
    embeds = {
        "prompt_embeds": text(1, 1, TEXT, features),
        "negative_prompt_embeds": text(2, 1, TEXT, features),
    }
    return embeds | _LATENT | more


def _masked(features: int = 12, **more: Any) -> dict[str, Any]:
    return _prompts(features, prompt_attention_mask=_mask(), negative_prompt_attention_mask=_mask(), **more)


def _hunyuan_video(true_cfg: bool) -> dict[str, Any]:
    given = {
        "prompt_embeds": text(1, 1, TEXT, 12),
        "pooled_prompt_embeds": text(3, 1, 10),
        "prompt_attention_mask": _mask(),
    }
    negative = {
        "negative_prompt_embeds": text(2, 1, TEXT, 12),
        "negative_pooled_prompt_embeds": text(4, 1, 10),
        "negative_prompt_attention_mask": _mask(),
        "true_cfg_scale": 3.0,
    }
    return given | _LATENT | _FILM | (negative if true_cfg else {})


_add(
    "hunyuan_video",
    "HunyuanVideo",
    "HunyuanVideoPipeline",
    "hunyuan_video",
    _flow(shift=7.0),
    lambda: _hunyuan_video(False),
)
_add(
    "hunyuan_video_true_cfg", "HunyuanVideo, true CFG", "HunyuanVideoPipeline", "hunyuan_video",
    _flow(shift=7.0),
    lambda: _hunyuan_video(True), **_TWO,
)  # fmt: skip
_add(
    "wan21",
    "Wan 2.1",
    "WanPipeline",
    "wan",
    _unipc(3.0),
    lambda: _prompts(**_FILM),
    attention="attn1",
    **_TWO,
)
_add(
    "wan22", "Wan 2.2, two transformers", "WanPipeline", "wan", _unipc(3.0), lambda: _prompts(**_FILM),
    attention="attn1",
    second=True, parts=lambda: {"boundary_ratio": 0.9}, **_TWO,
)  # fmt: skip
_add(
    "wan22_ti2v", "Wan 2.2 TI2V, a timestep a token", "WanPipeline", "wan", _unipc(5.0),
    lambda: _prompts(**_FILM),
    attention="attn1", parts=lambda: {"expand_timesteps": True}, **_TWO,
)  # fmt: skip
_add(
    "skyreels",
    "SkyReels-V2",
    "SkyReelsV2Pipeline",
    "skyreels",
    _unipc(8.0),
    lambda: _prompts(**_FILM),
    attention="attn1",
    **_TWO,
)
_add(
    "ltx", "LTX-Video", "LTXPipeline", "ltx",
    _flow(use_dynamic_shifting=True, base_shift=0.95, max_shift=2.05, shift_terminal=0.1),
    lambda: _masked(height=64, width=64, num_frames=9), attention="attn1", **_CFG,
)  # fmt: skip
_add(
    "cogvideox", "CogVideoX", "CogVideoXPipeline", "cogvideox_rotary",
    lambda: _cogvideo_ddim(),
    lambda: _prompts(**_FILM), attention="attn1", options={"attention_head_dim": 16}, **_CFG,
)  # fmt: skip
_add(
    "mochi", "Mochi", "MochiPipeline", "mochi", _flow(invert_sigmas=True),
    lambda: _masked(16, height=64, width=64, num_frames=7), attention="attn1", **_CFG,
)  # fmt: skip
_add(
    "cogview3", "CogView3-Plus", "CogView3PlusPipeline", "cogview3", lambda: _cogvideo_ddim(),
    lambda: _prompts(height=64, width=64), attention="attn1", **_CFG,
)  # fmt: skip
_add(
    "allegro", "Allegro", "AllegroPipeline", "allegro", EulerAncestralDiscreteScheduler,
    lambda: _masked(negative_prompt=None, **_FILM), attention="attn1", **_CFG,
)  # fmt: skip
_add(
    "latte", "Latte", "LattePipeline", "latte", lambda: DDIMScheduler(clip_sample=False),
    lambda: _prompts(negative_prompt=None, height=64, width=64, video_length=2), attention="attn1",
    options={"out_channels": 8}, **_CFG,
)  # fmt: skip
_add(
    "lumina", "Lumina-Next", "LuminaPipeline", "lumina_next", _flow(shift=3.0),
    lambda: _masked(height=64, width=64), attention="attn1", halves=True, conditional=0,
    options={"learn_sigma": True},
)  # fmt: skip
_add(
    "hunyuan_dit", "Hunyuan-DiT", "HunyuanDiTPipeline", "hunyuan_dit", DDPMScheduler,
    lambda: _masked(
        prompt_embeds_2=text(3, 1, 4, 16), negative_prompt_embeds_2=text(4, 1, 4, 16),
        prompt_attention_mask_2=_mask(4),
        negative_prompt_attention_mask_2=_mask(4), height=64, width=64, use_resolution_binning=False,
    ),
    attention="attn1", parts=lambda: {"requires_safety_checker": False}, **_CFG,
)  # fmt: skip
_add(
    "kandinsky5", "Kandinsky 5", "Kandinsky5T2VPipeline", "kandinsky5", _flow(shift=5.0),
    lambda: {
        "prompt_embeds_qwen": text(1, 1, TEXT, 12), "prompt_embeds_clip": text(3, 1, 10),
        "negative_prompt_embeds_qwen": text(2, 1, TEXT, 12), "negative_prompt_embeds_clip": text(4, 1, 10),
        "prompt_cu_seqlens": torch.tensor([0, TEXT]), "negative_prompt_cu_seqlens": torch.tensor([0, TEXT]),
    } | _LATENT | _FILM,
    attention="self_attention", **_TWO,
)  # fmt: skip
_add(
    "hunyuan_video_15", "HunyuanVideo 1.5", "HunyuanVideo15Pipeline", "hunyuan_video_15", _flow(shift=7.0),
    lambda: _prompts(
        prompt_embeds_mask=_mask(), negative_prompt_embeds_mask=_mask(), prompt_embeds_2=text(3, 1, 4, 10),
        negative_prompt_embeds_2=text(4, 1, 4, 10), prompt_embeds_mask_2=_mask(4),
        negative_prompt_embeds_mask_2=_mask(4),
        **_FILM,
    ),
    parts=lambda: {"guider": ClassifierFreeGuidance(guidance_scale=6.0), "vae": _vae_hunyuan()},
    options={"in_channels": 9}, attributes={"vision_num_semantic_tokens": 3}, **_TWO,
)  # fmt: skip
