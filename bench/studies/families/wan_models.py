"""Tiny configurations of Wan, its relatives, and the video models that cross-attend to the prompt."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.transformers.transformer_wan_animate_2 import WanAnimate2KVCache

from bench.studies.families.configuration import SIZE, TEXT, Draw
from bench.studies.families.table import Table

TABLE = Table()
_add = TABLE.add
_WIDE = {"num_attention_heads": 2, "attention_head_dim": 12}  # width 24
_FRAMES = 2
_VIDEO = (4, _FRAMES, 2 * SIZE, 2 * SIZE)  # channels, frames, height, width
_WAN = _WIDE | {
    "in_channels": 4, "out_channels": 4, "text_dim": 12, "freq_dim": 16, "ffn_dim": 32, "num_layers": 3,
    "rope_max_seq_len": 32,
}  # fmt: skip


def _wan(d: Draw, **more: Any) -> dict[str, Any]:
    return {
        "hidden_states": d.latent(*_VIDEO),
        "timestep": d.time(),
        "encoder_hidden_states": d.text(TEXT, 12),
    } | more


_add("wan", "WanTransformer3DModel", _WAN, _wan, "blocks")
_add(
    "wan_i2v", "WanTransformer3DModel", _WAN | {"image_dim": 10, "added_kv_proj_dim": 24},
    lambda d: _wan(d, encoder_hidden_states_image=d.text(3, 10)), "blocks",
)  # fmt: skip
_add(
    "wan_ti2v", "WanTransformer3DModel", _WAN,  # Wan 2.2's 5B: a timestep for each token
    lambda d: _wan(d, timestep=d.time()[:, None].expand(-1, _FRAMES * SIZE * SIZE)), "blocks",
)  # fmt: skip
_add("chronoedit", "ChronoEditTransformer3DModel", _WAN, _wan, "blocks")
_add("skyreels", "SkyReelsV2Transformer3DModel", _WAN, _wan, "blocks")
_add(
    "skyreels_forcing", "SkyReelsV2Transformer3DModel", _WAN | {"num_frame_per_block": 2},
    lambda d: _wan(d, timestep=d.time()[:, None].expand(-1, _FRAMES), enable_diffusion_forcing=True),
    "blocks",
)  # fmt: skip
_add(
    "wan_vace", "WanVACETransformer3DModel", _WAN | {"vace_layers": [0, 2], "vace_in_channels": 12},
    lambda d: _wan(d, control_hidden_states=d.text(12, *_VIDEO[1:])), "vace_blocks", "blocks",
)  # fmt: skip
_add(
    "wan_animate", "WanAnimateTransformer3DModel",
    _WAN | {
        "in_channels": 12, "latent_channels": 4, "image_dim": 10, "motion_encoder_size": 16,
        "motion_encoder_channel_sizes": {"4": 8, "8": 8, "16": 8}, "motion_style_dim": 8, "motion_dim": 4,
        "motion_encoder_dim": 16, "face_encoder_hidden_dim": 16, "face_encoder_num_heads": 2,
        "inject_face_latents_blocks": 2, "num_layers": 4,
    },
    lambda d: _wan(
        d, hidden_states=d.latent(12, _FRAMES + 1, 8, 8), encoder_hidden_states_image=d.text(3, 10),
        pose_hidden_states=d.text(*_VIDEO), face_pixel_values=d.text(3, 5, 16, 16),
    ),
    "blocks", batch=1, halves=False,
)  # fmt: skip


def _wan_animate_2(d: Draw) -> dict[str, Any]:
    """One denoising step, whose reference pass has filled the cache."""
    cache = WanAnimate2KVCache(3)
    tokens, channels = _FRAMES * (SIZE // 2) ** 2, 6
    for layer in range(3):
        cache.get(layer).store(d.text(tokens, 4, 32), d.text(tokens, 4, 32))
    frames = (_FRAMES + 1, SIZE, SIZE)
    return {
        "hidden_states": list(d.latent(4, *frames)),
        "timestep": d.time(),
        "encoder_hidden_states": list(d.text(TEXT, 12)),
        "condition_latents": list(d.text(channels, *frames)),
        "encoder_hidden_states_image": d.text(3, 1280),
        "kv_cache": cache,
        "kv_cache_mode": "cached",
        "seq_len": (_FRAMES + 1) * (SIZE // 2) ** 2,
        "reference_grid_sizes": torch.tensor([[_FRAMES, SIZE // 2, SIZE // 2]]),
        "origin_len": 5,
        "origin_area": [32, 32],
    }


_add(
    "wan_animate_2", "WanAnimate2Transformer3DModel",
    {
        "text_len": 8, "in_dim": 10, "dim": 128, "ffn_dim": 64, "freq_dim": 16, "text_dim": 12, "out_dim": 4,
        "num_heads": 4, "num_layers": 3,
    },
    _wan_animate_2, "blocks", batch=1, halves=False,
)  # fmt: skip
_HISTORY = {"short": 1, "mid": 1, "long": 4}  # frames
_add(
    "helios", "HeliosTransformer3DModel", {k: v for k,
    v in _WAN.items() if k != "rope_max_seq_len"} | {"rope_dim": (4, 4, 4)},
    lambda d: _wan(
        d, indices_hidden_states=d.ones(_FRAMES),
        **{f"indices_latents_history_{name}": d.ones(frames) for name, frames in _HISTORY.items()},
        **{f"latents_history_{name}": d.text(4, frames, 8, 8) for name, frames in _HISTORY.items()},
    ),
    "blocks",
)  # fmt: skip


def _anyflow(d: Draw, frames: int = _FRAMES, **more: Any) -> dict[str, Any]:
    time = d.time()[:, None].expand(-1, frames)
    return {
        "hidden_states": d.latent(frames, 4, 8, 8),
        "timestep": time,
        "r_timestep": time * 0.5,
        "encoder_hidden_states": d.text(TEXT, 12),
    } | more


_add("anyflow", "AnyFlowTransformer3DModel", _WAN, _anyflow, "blocks")
_add(
    "anyflow_far",
    "AnyFlowFARTransformer3DModel",
    _WAN,
    lambda d: _anyflow(d, 4, chunk_partition=[2, 2]),
    "blocks",
)
_add(
    "sana_video", "SanaVideoTransformer3DModel",
    _WIDE | {
        "in_channels": 4, "out_channels": 4, "num_layers": 3, "num_cross_attention_heads": 2,
        "cross_attention_head_dim": 12, "cross_attention_dim": 24, "caption_channels": 12, "sample_size": 8,
        "rope_max_seq_len": 32,
    },
    _wan,
)  # fmt: skip
_add(
    "sana_wm", "SanaWMTransformer3DModel",
    {
        "in_channels": 4, "num_layers": 3, "hidden_size": 32, "num_attention_heads": 2, "softmax_every_n": 2,
        "linear_head_dim": 16, "caption_channels": 12, "mlp_ratio": 2.0, "chunk_plucker_channels": 6,
    },
    lambda d: {
        "hidden_states": d.latent(4, _FRAMES, SIZE, SIZE), "timestep": d.time()[:, None, None].expand(-1, 1,
        _FRAMES),
        "encoder_hidden_states": d.text(1, TEXT, 12), "encoder_attention_mask": d.ones(TEXT),
        "camera_conditions": _cameras(d), "chunk_plucker": d.text(6, _FRAMES, SIZE, SIZE),
    },
    "blocks",
)  # fmt: skip


def _cameras(d: Draw) -> Any:
    """Each frame's camera: a 4 x 4 pose, focal lengths and centre, `[batch, frames, 20]`."""
    camera = torch.cat((torch.eye(4).flatten(), torch.tensor([4.0, 4.0, 2.0, 2.0])))
    return d.rows(camera.expand(_FRAMES, -1))


_KANDINSKY = {
    "in_visual_dim": 4, "out_visual_dim": 4, "in_text_dim": 12, "in_text_dim2": 10, "time_dim": 8,
    "model_dim": 16,
    "ff_dim": 32, "num_text_blocks": 1, "num_visual_blocks": 3, "axes_dims": (4, 2, 2),
}  # fmt: skip


def _kandinsky(d: Draw, channels: int, **more: Any) -> dict[str, Any]:
    return {
        "hidden_states": d.latent(_FRAMES, 8, 8, channels),
        "timestep": d.time(),
        "encoder_hidden_states": d.text(TEXT, 12),
        "pooled_projections": d.text(10),
    } | more


_add(
    "kandinsky5", "Kandinsky5Transformer3DModel", _KANDINSKY,
    lambda d: _kandinsky(
        d, 4, visual_rope_pos=tuple(torch.arange(n) for n in (_FRAMES, SIZE, SIZE)),
        text_rope_pos=torch.arange(TEXT)
    ),
    "visual_transformer_blocks",
)  # fmt: skip
_add(
    "kandinsky6", "Kandinsky6Transformer3DModel",
    _KANDINSKY | {
        "in_audio_dim": 6, "out_audio_dim": 6, "text_token_padding": True, "ca_rope": True,
        "cross_gates": True,
        "fix_modulation": True,
    },
    lambda d: _kandinsky(d, 9, audio_hidden_states=d.latent(6, 6)), "visual_transformer_blocks",
)  # fmt: skip
_add(
    "kandinsky6_video", "Kandinsky6Transformer3DModel", _KANDINSKY | {"in_audio_dim": 6, "out_audio_dim": 6},
    lambda d: _kandinsky(d, 9), "visual_transformer_blocks",
)  # fmt: skip
_add(
    "kandinsky6_sr", "Kandinsky6SRTransformer3DModel",
    {
        "in_visual_dim": 4, "out_visual_dim": 4, "time_dim": 8, "model_dim": 32, "ff_dim": 32,
        "num_visual_blocks": 2,
        "axes_dims": (8, 4, 4),
    },
    lambda d: {"hidden_states": d.latent(1, 8, 8, 9), "timestep": d.time()}, "visual_transformer_blocks",
)  # fmt: skip
