"""Tiny configurations of the transformers that make video: joint attention, or one of several kinds."""

from __future__ import annotations

from typing import Any

import torch

from bench.studies.families.configuration import SIZE, TEXT, Draw
from bench.studies.families.table import Table, grid, rotary

TABLE = Table()
_add = TABLE.add
_HEADS = {"num_attention_heads": 2, "attention_head_dim": 8}  # width 16
_FRAMES = 2
_VIDEO = (4, _FRAMES, 2 * SIZE, 2 * SIZE)  # channels, frames, height, width
_FRAMED = (_FRAMES, 4, 2 * SIZE, 2 * SIZE)  # frames, channels, height, width
_SINGLE = ("transformer_blocks", "single_transformer_blocks")
_PATCHES = _FRAMES * SIZE * SIZE


def _plain(d: Draw, **more: Any) -> dict[str, Any]:
    return {
        "hidden_states": d.latent(*_VIDEO),
        "timestep": d.time(),
        "encoder_hidden_states": d.text(TEXT, 12),
    } | more


_add(
    "allegro", "AllegroTransformer3DModel",
    _HEADS | {
        "attention_head_dim": 24, "num_layers": 3, "cross_attention_dim": 48, "sample_width": 8,
        "sample_height": 8,
        "sample_frames": 2, "caption_channels": 12,
    },
    lambda d: _plain(
        d, attention_mask=d.ones(_FRAMES, 8, 8), encoder_attention_mask=d.ones(TEXT),
        image_rotary_emb=_allegro_rotary(),
    ),
)  # fmt: skip


def _allegro_rotary() -> Any:
    """Rotary tables of the axes and each patch's place on them, as the pipeline makes them."""
    places = torch.unbind(grid(_FRAMES, SIZE, SIZE).long(), dim=1)
    return (rotary(SIZE, 8),) * 3, tuple(place[None] for place in places)


def _cogvideo(d: Draw, **more: Any) -> dict[str, Any]:
    given = {
        "hidden_states": d.latent(*_FRAMED),
        "timestep": d.time(),
        "encoder_hidden_states": d.text(TEXT, 12),
    }
    return given | more


_COGVIDEO = _HEADS | {
    "in_channels": 4, "out_channels": 4, "time_embed_dim": 8, "text_embed_dim": 12, "num_layers": 3,
    "sample_width": 8, "sample_height": 8, "sample_frames": 5, "max_text_seq_length": TEXT,
}  # fmt: skip
_add("cogvideox", "CogVideoXTransformer3DModel", _COGVIDEO, _cogvideo)
_ROTARY = {"use_rotary_positional_embeddings": True}
_add(
    "cogvideox_rotary", "CogVideoXTransformer3DModel", _COGVIDEO | _ROTARY,
    lambda d: _cogvideo(d, image_rotary_emb=rotary(_PATCHES, 8)),
)  # fmt: skip
_add(
    "cogvideox15", "CogVideoXTransformer3DModel", _COGVIDEO | _ROTARY | {"patch_size_t": 2,
    "ofs_embed_dim": 8},
    lambda d: _cogvideo(d, image_rotary_emb=rotary(SIZE * SIZE, 8), ofs=torch.tensor([2.0])),
)  # fmt: skip
_add(
    "consisid", "ConsisIDTransformer3DModel",
    _COGVIDEO | {
        "cross_attn_interval": 1, "is_train_face": True, "cross_attn_dim_head": 1, "cross_attn_num_heads": 1,
        "LFE_id_dim": 2, "LFE_vit_dim": 2, "LFE_depth": 5, "LFE_dim_head": 8, "LFE_num_heads": 2,
        "LFE_num_id_token": 1, "LFE_num_querie": 1, "LFE_output_dim": 10, "LFE_ff_mult": 1,
        "LFE_num_scale": 1,
    },
    lambda d: _cogvideo(d, id_vit_hidden=[d.text(2, 2)], id_cond=d.text(2)),
)  # fmt: skip


def _cosmos(d: Draw, **more: Any) -> dict[str, Any]:
    return _plain(d, fps=16, padding_mask=torch.zeros(1, 1, 8, 8)) | more


_COSMOS = {
    "in_channels": 4, "out_channels": 4, "num_attention_heads": 2, "attention_head_dim": 12, "num_layers": 3,
    "mlp_ratio": 2, "text_embed_dim": 12, "adaln_lora_dim": 4, "max_size": (4, 32, 32),
}  # fmt: skip
_add("cosmos", "CosmosTransformer3DModel", _COSMOS, _cosmos)
_add(
    "cosmos_video_to_world", "CosmosTransformer3DModel", _COSMOS | {"in_channels": 5,
    "extra_pos_embed_type": None},
    lambda d: _cosmos(d, condition_mask=d.ones(1, _FRAMES, 8, 8), timestep=d.flow()),
)  # fmt: skip
_add(
    "cosmos_25", "CosmosTransformer3DModel",
    _COSMOS | {
        "use_crossattn_projection": True, "crossattn_proj_in_channels": 20,
        "encoder_hidden_states_channels": 12,
    },
    lambda d: _cosmos(d, encoder_hidden_states=d.text(TEXT, 20), timestep=d.flow()),
)  # fmt: skip
_add(
    "easyanimate", "EasyAnimateTransformer3DModel",
    {
        "num_attention_heads": 2, "attention_head_dim": 16, "in_channels": 4, "out_channels": 4,
        "mmdit_layers": 2,
        "num_layers": 3, "patch_size": 2, "sample_height": 16, "sample_width": 16, "text_embed_dim": 12,
        "time_embed_dim": 8,
    },
    _plain,
)  # fmt: skip


def _hunyuan_video(d: Draw, channels: int = 4, guidance: bool = True) -> dict[str, Any]:
    return {
        "hidden_states": d.latent(channels, _FRAMES, SIZE, SIZE),
        "timestep": d.time(),
        "encoder_hidden_states": d.text(TEXT, 12),
        "encoder_attention_mask": d.ones(TEXT),
        "pooled_projections": d.text(10),
        "guidance": d.ones() * 6000.0 if guidance else None,
    }


_HUNYUAN = _HEADS | {
    "in_channels": 4, "out_channels": 4, "num_layers": 2, "num_single_layers": 2, "num_refiner_layers": 1,
    "mlp_ratio": 2.0, "patch_size": 1, "patch_size_t": 1, "text_embed_dim": 12, "pooled_projection_dim": 10,
    "rope_axes_dim": (2, 2, 4),
}  # fmt: skip
_add("hunyuan_video", "HunyuanVideoTransformer3DModel", _HUNYUAN, _hunyuan_video, *_SINGLE)
_add(
    "hunyuan_video_i2v", "HunyuanVideoTransformer3DModel",
    _HUNYUAN | {"in_channels": 9, "guidance_embeds": False, "image_condition_type": "latent_concat"},
    lambda d: _hunyuan_video(d, 9, guidance=False), *_SINGLE,
)  # fmt: skip
_add(
    "hunyuan_video_token_replace", "HunyuanVideoTransformer3DModel",
    _HUNYUAN | {"image_condition_type": "token_replace"}, _hunyuan_video, *_SINGLE,
)  # fmt: skip
_add(
    "framepack", "HunyuanVideoFramepackTransformer3DModel",
    _HUNYUAN | {"patch_size": 2, "has_image_proj": True, "image_proj_dim": 14, "has_clean_x_embedder": True},
    lambda d: _hunyuan_video(d) | {
        "image_embeds": d.text(3, 14), "indices_latents": torch.arange(_FRAMES),
        "latents_clean": d.text(4, 1, SIZE, SIZE), "indices_latents_clean": torch.ones(1),
        "latents_history_2x": d.text(4, 1, SIZE, SIZE), "indices_latents_history_2x": torch.ones(1),
        "latents_history_4x": d.text(4, 4, SIZE, SIZE), "indices_latents_history_4x": torch.ones(4),
    },
    *_SINGLE,
)  # fmt: skip
_add(
    "hunyuan_video_15", "HunyuanVideo15Transformer3DModel",
    _HEADS | {
        "in_channels": 4, "out_channels": 4, "num_layers": 3, "num_refiner_layers": 1, "mlp_ratio": 2.0,
        "text_embed_dim": 12, "text_embed_2_dim": 10, "image_embed_dim": 14, "rope_axes_dim": (2, 2, 4),
        "target_size": 16, "task_type": "t2v",
    },
    lambda d: {
        "hidden_states": d.latent(4, 1, SIZE, SIZE), "timestep": d.time(),
        "encoder_hidden_states": d.text(TEXT, 12),
        "encoder_attention_mask": d.ones(TEXT), "encoder_hidden_states_2": d.text(4, 10),
        "encoder_attention_mask_2": d.ones(4), "image_embeds": torch.zeros(d.batch, 3, 14),
    },
)  # fmt: skip
_add(
    "latte", "LatteTransformer3DModel",
    _HEADS | {
        "sample_size": 8, "num_layers": 3, "patch_size": 2, "caption_channels": 12, "in_channels": 4,
        "cross_attention_dim": 16, "out_channels": 4, "attention_bias": True,
        "activation_fn": "gelu-approximate",
        "num_embeds_ada_norm": 1000, "norm_type": "ada_norm_single", "norm_elementwise_affine": False,
        "video_length": _FRAMES,
    },
    _plain, "transformer_blocks", "temporal_transformer_blocks",
)  # fmt: skip


def _ltx(d: Draw) -> dict[str, Any]:
    return {
        "hidden_states": d.latent(_PATCHES, 4),
        "timestep": d.time(),
        "encoder_hidden_states": d.text(TEXT, 12),
        "encoder_attention_mask": d.ones(TEXT, dtype=torch.bool),
        "num_frames": _FRAMES,
        "height": SIZE,
        "width": SIZE,
    }


_LTX = _HEADS | {
    "in_channels": 4,
    "out_channels": 4,
    "cross_attention_dim": 16,
    "num_layers": 3,
    "caption_channels": 12,
}
_add("ltx", "LTXVideoTransformer3DModel", _LTX, _ltx)
_LTX2 = _LTX | {
    "audio_in_channels": 6, "audio_out_channels": 6, "audio_num_attention_heads": 2,
    "audio_attention_head_dim": 4,
    "audio_cross_attention_dim": 8, "rope_double_precision": False,
}  # fmt: skip
_add(
    "ltx2", "LTX2VideoTransformer3DModel", _LTX2,
    lambda d: _ltx(d) | {
        "audio_hidden_states": d.latent(6, 6), "audio_encoder_hidden_states": d.text(TEXT, 12),
        "audio_encoder_attention_mask": d.ones(TEXT, dtype=torch.bool), "audio_num_frames": 6, "fps": 25.0,
    },
)  # fmt: skip
_add(
    "sana_wm_refiner", "SanaWMLTX2RefinerTransformer3DModel", _LTX2 | {"rope_type": "interleaved"},
    lambda d: {
        "hidden_states": d.latent(_PATCHES, 4), "timestep": d.time()[:, None].expand(-1, _PATCHES),
        "encoder_hidden_states": d.text(TEXT, 12), "encoder_attention_mask": d.ones(TEXT),
        "video_rotary_emb": tuple(d.rows(part) for part in rotary(_PATCHES, 16)),
    },
)  # fmt: skip
_add(
    "mochi", "MochiTransformer3DModel",
    _HEADS | {
        "num_layers": 3, "pooled_projection_dim": 16, "in_channels": 4, "text_embed_dim": 16,
        "time_embed_dim": 4,
        "max_sequence_length": TEXT,
    },
    lambda d: _plain(
        d, encoder_hidden_states=d.text(TEXT, 16),
        encoder_attention_mask=d.rows([True] * (TEXT - 1) + [False])
    ),
)  # fmt: skip
_MOTIF = {
    "in_channels": 9, "out_channels": 4, "num_attention_heads": 2, "attention_head_dim": 12, "num_layers": 2,
    "num_single_layers": 2, "mlp_ratio": 2.0, "patch_size": 1, "text_embed_dim": 12, "rope_axes_dim": (4, 4,
    4),
}  # fmt: skip


def _motif(d: Draw) -> dict[str, Any]:
    return _plain(d, hidden_states=d.latent(9, _FRAMES, SIZE, SIZE))


_add("motif_video", "MotifVideoTransformer3DModel", _MOTIF, _motif, *_SINGLE)
_add(
    "motif_video_cross", "MotifVideoTransformer3DModel",
    _MOTIF | {
        "enable_text_cross_attention_dual": True, "enable_text_cross_attention_single": True,
        "num_decoder_layers": 1,
    },
    _motif, *_SINGLE,
)  # fmt: skip
