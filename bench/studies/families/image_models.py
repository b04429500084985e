"""Tiny configurations of the transformers that make images."""

from __future__ import annotations

from typing import Any

import torch

from bench.studies.families.configuration import SIZE, TEXT, Draw
from bench.studies.families.table import Table, grid, rotary

TABLE = Table()
_add = TABLE.add
_HEADS = {"num_attention_heads": 2, "attention_head_dim": 8}  # width 16
_IMAGE = (4, 2 * SIZE, 2 * SIZE)  # channels, height, width
_LATENT = {"sample_size": 2 * SIZE, "patch_size": 2, "in_channels": 4, "out_channels": 4}
_SINGLE = ("transformer_blocks", "single_transformer_blocks")

_add(
    "dit", "DiTTransformer2DModel", _HEADS | _LATENT | {"num_layers": 3},
    lambda d: {"hidden_states": d.latent(*_IMAGE), "timestep": d.time(), "class_labels": d.rows(d.prompt)},
)  # fmt: skip
_add(
    "transformer_2d", "Transformer2DModel",
    _HEADS | _LATENT | {"num_layers": 3, "norm_type": "ada_norm_zero", "num_embeds_ada_norm": 1000},
    lambda d: {"hidden_states": d.latent(*_IMAGE), "timestep": d.time().long(),
    "class_labels": d.rows(d.prompt)},
)  # fmt: skip


def _pixart(d: Draw, conditions: bool = False) -> dict[str, Any]:
    size = {"resolution": d.ones(2) * 64, "aspect_ratio": d.ones(1)} if conditions else {}
    return {
        "hidden_states": d.latent(*_IMAGE),
        "timestep": d.time(),
        "encoder_hidden_states": d.text(TEXT, 12),
        "added_cond_kwargs": {"resolution": None, "aspect_ratio": None} | size,
    }


_PIXART = _HEADS | _LATENT | {"num_layers": 3, "cross_attention_dim": 16, "caption_channels": 12}
_add("pixart", "PixArtTransformer2DModel", _PIXART | {"use_additional_conditions": False}, _pixart)
_add(
    "pixart_conditions", "PixArtTransformer2DModel",
    _PIXART | {"use_additional_conditions": True, "out_channels": 8, "num_attention_heads": 3,
    "cross_attention_dim": 24},
    lambda d: _pixart(d, conditions=True),
)  # fmt: skip
_add(
    "hunyuan_dit", "HunyuanDiT2DModel",
    _HEADS | {
        "sample_size": 8, "patch_size": 2, "in_channels": 4, "num_layers": 4, "hidden_size": 16,
        "cross_attention_dim": 12, "cross_attention_dim_t5": 16, "pooled_projection_dim": 8, "text_len": TEXT,
        "text_len_t5": 4,
    },
    lambda d: {
        "hidden_states": d.latent(*_IMAGE), "timestep": d.time(), "encoder_hidden_states": d.text(TEXT, 12),
        "text_embedding_mask": d.ones(TEXT), "encoder_hidden_states_t5": d.text(4, 16),
        "text_embedding_mask_t5": d.ones(4), "image_meta_size": d.ones(6) * 16.0,
        "style": torch.zeros(d.batch, dtype=torch.int64), "image_rotary_emb": rotary(SIZE * SIZE, 8),
    },
    "blocks",
)  # fmt: skip
_add(
    "lumina_next", "LuminaNextDiT2DModel",
    {
        "sample_size": 8, "hidden_size": 24, "num_layers": 3, "num_attention_heads": 3, "num_kv_heads": 1,
        "multiple_of": 8, "learn_sigma": False, "cross_attention_dim": 12,
    },
    lambda d: {
        "hidden_states": d.latent(*_IMAGE), "timestep": d.reversed(), "encoder_hidden_states": d.text(TEXT,
        12),
        "encoder_mask": d.ones(TEXT), "cross_attention_kwargs": {},
        "image_rotary_emb": torch.polar(torch.ones(8, 8, 4), torch.linspace(0, 3, 256).view(8, 8, 4)),
    },
    "layers",
)  # fmt: skip
_add(
    "lumina2", "Lumina2Transformer2DModel",
    {
        "sample_size": 8, "in_channels": 4, "hidden_size": 24, "num_layers": 3, "num_refiner_layers": 1,
        "num_attention_heads": 3, "num_kv_heads": 1, "multiple_of": 2, "axes_dim_rope": (4, 2, 2),
        "axes_lens": (32, 16, 16), "cap_feat_dim": 12,
    },
    lambda d: {
        "hidden_states": d.latent(*_IMAGE), "timestep": d.reversed(), "encoder_hidden_states": d.text(TEXT,
        12),
        "encoder_attention_mask": d.ones(TEXT, dtype=torch.bool),
    },
    "layers",
)  # fmt: skip


def _sana(d: Draw, guidance: bool = False) -> dict[str, Any]:
    given = {
        "hidden_states": d.latent(*_IMAGE),
        "timestep": d.time(),
        "encoder_hidden_states": d.text(TEXT, 12),
    }
    return given | ({"guidance": d.ones() * 0.45, "encoder_attention_mask": d.ones(TEXT)} if guidance else {})


_SANA = _HEADS | {
    "in_channels": 4, "out_channels": 4, "num_layers": 3, "num_cross_attention_heads": 2,
    "cross_attention_head_dim": 8, "cross_attention_dim": 16, "caption_channels": 12, "sample_size": 8,
}  # fmt: skip
_add("sana", "SanaTransformer2DModel", _SANA, _sana)
_add(
    "sana_sprint", "SanaTransformer2DModel", _SANA | {"qk_norm": "rms_norm_across_heads",
    "guidance_embeds": True},
    lambda d: _sana(d, guidance=True),
)  # fmt: skip


def _sd3(d: Draw) -> dict[str, Any]:
    return {
        "hidden_states": d.latent(*_IMAGE),
        "timestep": d.time(),
        "encoder_hidden_states": d.text(TEXT, 12),
        "pooled_projections": d.text(10),
    }


_SD3 = _HEADS | _LATENT | {
    "num_layers": 4, "joint_attention_dim": 12, "caption_projection_dim": 16, "pooled_projection_dim": 10,
    "pos_embed_max_size": 8,
}  # fmt: skip
_add("sd3", "SD3Transformer2DModel", _SD3, _sd3)
_add("sd35", "SD3Transformer2DModel", _SD3 | {"dual_attention_layers": (0, 1), "qk_norm": "rms_norm"}, _sd3)
_add(
    "auraflow", "AuraFlowTransformer2DModel",
    _HEADS | _LATENT | {
        "num_mmdit_layers": 2, "num_single_dit_layers": 3, "joint_attention_dim": 12,
        "caption_projection_dim": 16,
        "pos_embed_max_size": 64,
    },
    lambda d: {"hidden_states": d.latent(*_IMAGE), "timestep": d.flow(),
    "encoder_hidden_states": d.text(TEXT, 12)},
    "joint_transformer_blocks", "single_transformer_blocks",
)  # fmt: skip


def _cogview(d: Draw) -> dict[str, Any]:
    return {
        "hidden_states": d.latent(*_IMAGE),
        "timestep": d.time(),
        "encoder_hidden_states": d.text(TEXT, 12),
        "original_size": d.rows([64.0, 64.0]),
        "target_size": d.rows([64.0, 64.0]),
        "crop_coords": d.rows([0.0, 0.0]),
    }


_COGVIEW = _HEADS | {
    "in_channels": 4, "out_channels": 4, "num_layers": 3, "text_embed_dim": 12, "time_embed_dim": 8,
    "condition_dim": 4,
}  # fmt: skip
_add(
    "cogview3",
    "CogView3PlusTransformer2DModel",
    _COGVIEW | {"pos_embed_max_size": 8, "sample_size": 8},
    _cogview,
)
_add("cogview4", "CogView4Transformer2DModel", _COGVIEW | {"rope_axes_dim": (8, 8)}, _cogview)


def _glm(d: Draw) -> dict[str, Any]:
    given = {name: value for name, value in _cogview(d).items() if name != "original_size"}
    tokens = torch.arange(SIZE * SIZE)
    return given | {
        "prior_token_id": d.rows(tokens),
        "prior_token_drop": torch.zeros(d.batch, SIZE * SIZE, dtype=torch.bool),
    }


_add("glm_image", "GlmImageTransformer2DModel", _COGVIEW | {"prior_vq_quantizer_codebook_size": 32}, _glm)
_add(
    "hidream", "HiDreamImageTransformer2DModel",
    _HEADS | {
        "patch_size": 2, "in_channels": 4, "out_channels": 4, "num_layers": 2, "num_single_layers": 2,
        "caption_channels": [12, 10], "text_emb_dim": 8, "num_routed_experts": 2, "num_activated_experts": 2,
        "axes_dims_rope": (4, 2, 2), "max_resolution": (8, 8), "llama_layers": (0, 1, 2, 3),
        "force_inference_output": True,
    },
    lambda d: {
        "hidden_states": d.latent(*_IMAGE), "timesteps": d.time(), "encoder_hidden_states_t5": d.text(TEXT,
        12),
        "encoder_hidden_states_llama3": d.text(4, TEXT, 10).transpose(0, 1), "pooled_embeds": d.text(8),
    },
    "double_stream_blocks", "single_stream_blocks",
)  # fmt: skip


def _hunyuan_image(d: Draw, distilled: bool = False) -> dict[str, Any]:
    given = {
        "hidden_states": d.latent(4, SIZE, SIZE),
        "timestep": d.time(),
        "encoder_hidden_states": d.text(TEXT, 12),
        "encoder_attention_mask": d.ones(TEXT),
    }
    if not distilled:
        return given | {"encoder_hidden_states_2": d.text(3, 10), "encoder_attention_mask_2": d.ones(3)}
    return given | {"timestep_r": d.time(0.9), "guidance": d.ones() * 3250.0}


_HUNYUAN_IMAGE = _HEADS | {
    "in_channels": 4, "out_channels": 4, "num_layers": 2, "num_single_layers": 2, "num_refiner_layers": 1,
    "mlp_ratio": 2.0, "text_embed_dim": 12, "rope_axes_dim": (4, 4),
}  # fmt: skip
_add(
    "hunyuan_image",
    "HunyuanImageTransformer2DModel",
    _HUNYUAN_IMAGE | {"text_embed_2_dim": 10},
    _hunyuan_image,
    *_SINGLE,
)
_add(
    "hunyuan_image_distilled", "HunyuanImageTransformer2DModel",
    _HUNYUAN_IMAGE | {"guidance_embeds": True, "use_meanflow": True},
    lambda d: _hunyuan_image(d, distilled=True), *_SINGLE,
)  # fmt: skip
_add(
    "krea2", "Krea2Transformer2DModel",
    _HEADS | {
        "in_channels": 8, "num_layers": 3, "num_key_value_heads": 1, "intermediate_size": 32,
        "timestep_embed_dim": 8,
        "text_hidden_dim": 12, "num_text_layers": 3, "text_num_attention_heads": 2,
        "text_num_key_value_heads": 1,
        "text_intermediate_size": 16, "num_layerwise_text_blocks": 1, "num_refiner_text_blocks": 1,
        "axes_dims_rope": (4, 2, 2),
    },
    lambda d: {
        "hidden_states": d.latent(SIZE * SIZE, 8), "timestep": d.flow(),
        "encoder_hidden_states": d.text(TEXT, 3, 12),
        "position_ids": torch.cat((torch.zeros(TEXT, 3), grid(1, SIZE, SIZE))),
        "encoder_attention_mask": d.rows([True] * (TEXT - 1) + [False]),
    },
)  # fmt: skip
_add(
    "nucleus", "NucleusMoEImageTransformer2DModel",
    _HEADS | {
        "patch_size": 2, "in_channels": 16, "out_channels": 4, "num_layers": 3, "joint_attention_dim": 12,
        "axes_dims_rope": (2, 2, 4), "moe_enabled": False, "capacity_factors": [8.0] * 3,
    },
    lambda d: {
        "hidden_states": d.latent(SIZE * SIZE, 16), "timestep": d.flow(),
        "encoder_hidden_states": d.text(TEXT, 12),
        "encoder_hidden_states_mask": d.ones(TEXT, dtype=torch.int64), "img_shapes": [(1, SIZE,
        SIZE)] * d.batch,
    },
)  # fmt: skip
_add(
    "omnigen", "OmniGenTransformer2DModel",
    {
        "hidden_size": 16, "num_attention_heads": 2, "num_key_value_heads": 2, "intermediate_size": 32,
        "num_layers": 3, "pad_token_id": 0, "vocab_size": 100, "in_channels": 4, "time_step_dim": 4,
        "rope_scaling": {"long_factor": [1, 2, 3, 4], "short_factor": [1, 2, 3, 4]},
    },
    lambda d: {
        "hidden_states": d.latent(*_IMAGE), "timestep": d.flow(),
        "input_ids": d.rows(torch.arange(TEXT) + 10 * d.prompt), "input_img_latents": [],
        "input_image_sizes": {},
        "attention_mask": d.ones(TEXT + 1 + SIZE * SIZE, TEXT + 1 + SIZE * SIZE),
        "position_ids": d.rows(torch.arange(TEXT + 1 + SIZE * SIZE)),
    },
    "layers",
)  # fmt: skip
_add(
    "prx", "PRXTransformer2DModel",
    {
        "in_channels": 4, "patch_size": 2, "context_in_dim": 12, "hidden_size": 16, "mlp_ratio": 2.0,
        "num_heads": 2,
        "depth": 3, "axes_dim": [4, 4],
    },
    lambda d: {"hidden_states": d.latent(*_IMAGE), "timestep": d.flow(),
    "encoder_hidden_states": d.text(TEXT, 12)},
    "blocks",
)  # fmt: skip
_add(
    "ernie_image", "ErnieImageTransformer2DModel",
    {
        "hidden_size": 16, "num_attention_heads": 1, "num_layers": 3, "ffn_hidden_size": 32, "in_channels": 8,
        "out_channels": 8, "patch_size": 1, "text_in_dim": 12, "rope_axes_dim": (8, 4, 4),
    },
    lambda d: {
        "hidden_states": d.latent(8, SIZE, SIZE), "timestep": d.time(), "text_bth": d.text(TEXT, 12),
        "text_lens": d.rows(TEXT),
    },
    "layers",
)  # fmt: skip
_add(
    "joyimage", "JoyImageEditTransformer3DModel",
    {"in_channels": 4, "hidden_size": 16, "num_attention_heads": 2, "text_dim": 12, "num_layers": 3,
    "rope_dim_list": [2, 2, 4]},
    lambda d: {"hidden_states": d.latent(4, 1, 8, 8), "timestep": d.time(),
    "encoder_hidden_states": d.text(TEXT, 12)},
    "double_blocks",
)  # fmt: skip
_add(
    "joyimage_plus", "JoyImageEditPlusTransformer3DModel",
    {"in_channels": 4, "hidden_size": 16, "num_attention_heads": 2, "text_dim": 12, "num_layers": 3,
    "rope_dim_list": [2, 2, 4]},
    lambda d: {
        "hidden_states": d.latent(8, 4, 1, 2, 2), "timestep": d.time(),
        "encoder_hidden_states": d.text(TEXT, 12),
        "encoder_hidden_states_mask": d.ones(TEXT), "shape_list": [[(1, 2, 2), (1, 2, 2)]] * d.batch,
    },
    "double_blocks",
)  # fmt: skip
_add(
    "prior", "PriorTransformer", _HEADS | {"num_layers": 3, "embedding_dim": 12, "num_embeddings": TEXT},
    lambda d: {
        "hidden_states": d.latent(12), "timestep": d.time(), "proj_embedding": d.text(12),
        "encoder_hidden_states": d.text(TEXT, 12), "attention_mask": d.ones(TEXT, dtype=torch.bool),
    },
)  # fmt: skip
