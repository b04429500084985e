"""Tiny configurations of Flux and of the image transformers that take packed latents as it does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from bench.studies.families.configuration import SIZE, TEXT, Draw
from bench.studies.families.table import Table, grid

TABLE = Table()
_add = TABLE.add
_HEADS = {"num_attention_heads": 2, "attention_head_dim": 8}  # width 16
_PACKED = (SIZE * SIZE, 4)  # tokens, channels
_SINGLE = ("transformer_blocks", "single_transformer_blocks")
_BASE = _HEADS | {"in_channels": 4, "num_layers": 2, "num_single_layers": 2, "joint_attention_dim": 12}


def _flux(time: Callable[[Draw], Any] = Draw.flow, axes: int = 3, **more: Callable[[Draw], Any]) -> Any:
    """The inputs of a model called as Flux is, with `more` drawn besides."""

    def inputs(d: Draw) -> dict[str, Any]:
        given = {
            "hidden_states": d.latent(*_PACKED),
            "timestep": time(d),
            "encoder_hidden_states": d.text(TEXT, 12),
            "img_ids": grid(*(1,) * (axes - 2), SIZE, SIZE) if axes == 3 else grid(1, SIZE, SIZE, 1),
            "txt_ids": torch.zeros(TEXT, axes),
        }
        return given | {name: draw(d) for name, draw in more.items()}

    return inputs


def _pooled(d: Draw) -> Any:
    return d.text(10)


def _guidance(d: Draw) -> Any:
    return d.ones() * 3.5


_FLUX = _BASE | {"pooled_projection_dim": 10, "axes_dims_rope": (4, 2, 2)}
_add("flux", "FluxTransformer2DModel", _FLUX, _flux(pooled_projections=_pooled), *_SINGLE)
_add(
    "flux_guidance", "FluxTransformer2DModel", _FLUX | {"guidance_embeds": True},
    _flux(pooled_projections=_pooled, guidance=_guidance), *_SINGLE,
)  # fmt: skip
_add(
    "chroma", "ChromaTransformer2DModel",
    _BASE | {
        "axes_dims_rope": (4, 2, 2), "approximator_num_channels": 8, "approximator_hidden_dim": 16,
        "approximator_layers": 1,
    },
    _flux(attention_mask=lambda d: d.ones(TEXT + SIZE * SIZE)), *_SINGLE,
)  # fmt: skip
_FOUR = {"axes_dims_rope": (2, 2, 2, 2)}
_add("flux2", "Flux2Transformer2DModel", _BASE | _FOUR, _flux(axes=4, guidance=_guidance), *_SINGLE)
_add(
    "flux2_klein",
    "Flux2Transformer2DModel",
    _BASE | _FOUR | {"guidance_embeds": False},
    _flux(axes=4),
    *_SINGLE,
)
_FLUX3 = _BASE | _FOUR | {"cond_in_channels": 4, "timestep_channels": 16}
_MODES = ("mode_blocks.image", "single_transformer_blocks")  # the text's own blocks never change
_add("flux3", "Flux3Transformer2DModel", _FLUX3, _flux(axes=4), *_MODES, layers=6)
_add(
    "flux3_flow_map", "Flux3Transformer2DModel", _FLUX3 | {"flow_map": True},
    _flux(
        axes=4, target_timestep=lambda d: d.flow() * 0.9, image_cond_hidden_states=lambda d: d.text(6, 4),
        image_cond_ids=lambda d: torch.zeros(6, 4),
    ),
    *_MODES, "mode_blocks.image_cond",
)  # fmt: skip
_BRIA = _BASE | {"pooled_projection_dim": None, "axes_dims_rope": [0, 4, 4]}
_add("bria", "BriaTransformer2DModel", _BRIA, _flux(Draw.time), *_SINGLE)
_add(
    "bria_fibo", "BriaFiboTransformer2DModel", _BRIA | {"text_encoder_dim": 6},
    _flux(Draw.time, text_encoder_layers=lambda d: [d.text(TEXT, 6) for _ in range(4)]), *_SINGLE,
)  # fmt: skip
_add(
    "bria_fibo2", "BriaFibo2Transformer2DModel",
    {
        "in_channels": 4, "dim": 16, "n_layers": 3, "n_refiner_layers": 1, "n_heads": 2, "cap_feat_dim": 12,
        "injection_layer_ids": (1,), "perceiver_num_layers": 1, "min_num_gist_tokens": 3,
        "max_num_gist_tokens": 6,
        "gist_step": 1, "gist_min_text_len": 3, "gist_max_text_len": 8, "axes_dims": (4, 2, 2),
        "axes_lens": (32, 16, 16),
    },
    lambda d: {
        "hidden_states": d.latent(4, 2 * SIZE, 2 * SIZE), "timestep": d.flow(),
        "encoder_hidden_states": d.text(2, TEXT, 12),
    },
    "layers",
)  # fmt: skip
_add(
    "ovis",
    "OvisImageTransformer2DModel",
    _BASE | {"out_channels": 4, "axes_dims_rope": (4, 2, 2)},
    _flux(),
    *_SINGLE,
)
_add(
    "longcat_image", "LongCatImageTransformer2DModel", _BASE | {"pooled_projection_dim": 12,
    "axes_dims_rope": [4, 2, 2]},
    _flux(), *_SINGLE,
)  # fmt: skip


def _qwen(d: Draw, **more: Any) -> dict[str, Any]:
    return {
        "hidden_states": d.latent(SIZE * SIZE, 16),
        "timestep": d.flow(),
        "encoder_hidden_states": d.text(TEXT, 12),
        "encoder_hidden_states_mask": d.rows([1] * (TEXT - 1) + [0]).bool(),
        "img_shapes": [[(1, SIZE, SIZE)]] * d.batch,
    } | more


_QWEN = _HEADS | {
    "in_channels": 16, "out_channels": 4, "num_layers": 3, "joint_attention_dim": 12, "axes_dims_rope": (4,
    2, 2),
}  # fmt: skip
_add("qwen_image", "QwenImageTransformer2DModel", _QWEN, _qwen)
_add("qwen_image_zero_cond", "QwenImageTransformer2DModel", _QWEN | {"zero_cond_t": True}, _qwen)
_add(
    "qwen_image_layered", "QwenImageTransformer2DModel", _QWEN | {"use_additional_t_cond": True,
    "use_layer3d_rope": True},
    lambda d: _qwen(
        d, hidden_states=d.latent(2 * SIZE * SIZE, 16), img_shapes=[[(1, SIZE, SIZE)] * 2] * d.batch,
        additional_t_cond=torch.zeros(d.batch, dtype=torch.int64),
    ),
)  # fmt: skip
_SLOTS = [False] * TEXT + [True] * SIZE  # a slot of the language model stands for four latent tokens
_add(
    "qwen_image_21", "QwenImage21Transformer2DModel",
    _HEADS | {
        "in_channels": 4, "out_channels": 4, "num_layers": 3, "context_in_dim": 12, "axes_dims_rope": (4, 2,
        2),
    },
    lambda d: {
        "hidden_states": d.latent(*_PACKED), "timestep": d.flow(), "encoder_hidden_states": d.text(TEXT, 12),
        "img_shapes": [[(1, SIZE, SIZE)]] * d.batch, "img_mask": d.rows(_SLOTS),
    },
)  # fmt: skip
_add(
    "z_image", "ZImageTransformer2DModel",
    {
        "in_channels": 4, "dim": 16, "n_layers": 3, "n_refiner_layers": 1, "n_heads": 2, "n_kv_heads": 2,
        "cap_feat_dim": 12, "axes_dims": [4, 2, 2], "axes_lens": [64, 16, 16],
    },
    lambda d: {
        "x": list(d.latent(4, 1, 2 * SIZE, 2 * SIZE)), "t": d.reversed(), "cap_feats": list(d.text(TEXT, 12)),
    },
    "layers",
)  # fmt: skip


def _ideogram(d: Draw) -> dict[str, Any]:
    tokens = TEXT + SIZE * SIZE
    hidden, text = torch.zeros(d.batch, tokens, 8), torch.zeros(d.batch, tokens, 12)
    hidden[:, TEXT:], text[:, :TEXT] = d.latent(SIZE * SIZE, 8), d.text(TEXT, 12)
    positions = torch.cat((torch.arange(TEXT)[:, None].expand(-1, 3), 65536 + grid(1, SIZE, SIZE).long()))
    return {
        "hidden_states": hidden,
        "timestep": d.flow(),
        "encoder_hidden_states": text,
        "position_ids": d.rows(positions),
        "segment_ids": d.ones(tokens, dtype=torch.int64),
        "indicator": d.rows([3] * TEXT + [2] * (SIZE * SIZE)),
    }


_add(
    "ideogram4", "Ideogram4Transformer2DModel",
    _HEADS | {
        "in_channels": 8, "num_layers": 3, "intermediate_size": 32, "adaln_dim": 8, "llm_features_dim": 12,
        "rope_theta": 10000, "mrope_section": (2, 1, 1),
    },
    _ideogram, "layers",
)  # fmt: skip
