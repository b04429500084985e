"""Tiny configurations of the transformers that make sound, several modalities at once, or proteins."""

from __future__ import annotations

from typing import Any

import torch

from bench.studies.families.configuration import SIZE, TEXT, Draw
from bench.studies.families.table import Table, grid, rotary

TABLE = Table()
_add = TABLE.add
_HEADS = {"num_attention_heads": 2, "attention_head_dim": 8}  # width 16
_LENGTH = 8  # frames of sound
_add(
    "ace_step", "AceStepTransformer1DModel",
    {
        "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2,
        "num_key_value_heads": 1, "head_dim": 8, "in_channels": 12, "audio_acoustic_hidden_dim": 4,
        "sliding_window": 4,
    },
    lambda d: {
        "hidden_states": d.latent(_LENGTH, 4), "timestep": d.flow(), "timestep_r": d.flow(),
        "encoder_hidden_states": d.text(TEXT, 16), "context_latents": d.text(_LENGTH, 8),
    },
    "layers",
)  # fmt: skip
_add(
    "stable_audio", "StableAudioDiTModel",
    _HEADS | {
        "sample_size": _LENGTH, "in_channels": 4, "num_layers": 3, "num_key_value_attention_heads": 1,
        "out_channels": 4, "cross_attention_dim": 8, "time_proj_dim": 8, "global_states_input_dim": 10,
        "cross_attention_input_dim": 12,
    },
    lambda d: {
        "hidden_states": d.latent(4, _LENGTH), "timestep": d.flow(), "encoder_hidden_states": d.text(TEXT,
        12),
        "global_hidden_states": d.text(1, 10), "rotary_embedding": rotary(_LENGTH + 1, 4),
    },
)  # fmt: skip


def _stable_audio_3(d: Draw) -> dict[str, Any]:
    return {
        "hidden_states": d.latent(4, _LENGTH),
        "timestep": d.flow(),
        "encoder_hidden_states": d.text(TEXT, 12),
        "global_hidden_states": d.text(10),
        "local_add_cond": d.text(5, _LENGTH),
    }


_STABLE_AUDIO_3 = {
    "io_channels": 4, "embed_dim": 16, "depth": 3, "num_heads": 2, "cond_token_dim": 12,
    "global_cond_dim": 10,
    "local_add_cond_dim": 5, "timestep_features_dim": 8, "ff_mult": 2, "num_memory_tokens": 3,
}  # fmt: skip
_add("stable_audio_3", "StableAudio3DiTModel", _STABLE_AUDIO_3, _stable_audio_3)
_add(
    "stable_audio_3_small",
    "StableAudio3DiTModel",
    _STABLE_AUDIO_3 | {"use_differential_attention": False},
    _stable_audio_3,
)
_add(
    "longcat_audio", "LongCatAudioDiTTransformer",
    {"dit_dim": 16, "dit_depth": 3, "dit_heads": 2, "dit_text_dim": 12, "latent_dim": 4},
    lambda d: {
        "hidden_states": d.latent(_LENGTH, 4), "timestep": d.flow(), "encoder_hidden_states": d.text(TEXT,
        12),
        "encoder_attention_mask": d.ones(TEXT, dtype=torch.bool), "latent_cond": d.text(_LENGTH, 4),
        "attention_mask": d.ones(_LENGTH, dtype=torch.bool),
    },
    "blocks",
)  # fmt: skip
_add(
    "minimax_music", "MiniMaxMusic3Transformer1DModel",
    _HEADS | {
        "in_channels": 4, "condition_dim": 12, "num_layers": 3, "ff_inner_dim": 32, "rotary_dim": 4,
        "fourier_embedding_dim": 8,
    },
    lambda d: {
        "hidden_states": d.latent(4, _LENGTH), "timestep": d.flow(),
        "encoder_hidden_states": d.text(_LENGTH, 12),
    },
)  # fmt: skip


def _minimax_h3(d: Draw) -> dict[str, Any]:
    """One packed sequence: text, sound, then video, each row tagged with its modality and its noise level."""
    sound, video = 6, SIZE * SIZE
    text = torch.arange(TEXT)
    audio_indices = TEXT + torch.arange(sound)
    video_indices = TEXT + sound + torch.arange(video)
    total = TEXT + sound + video
    tags, times = torch.ones(total, dtype=torch.int64), torch.zeros(total, dtype=torch.int64)
    tags[audio_indices], tags[video_indices], times[audio_indices] = 2, 0, 1
    positions = torch.zeros(total, 3)
    positions[:, 0], positions[video_indices] = torch.arange(total).float(), grid(1, SIZE, SIZE)
    return {
        "hidden_states": d.latent(video, 16),
        "audio_hidden_states": d.latent(sound, 6),
        "encoder_hidden_states": d.text(TEXT, 12),
        "timestep": torch.stack((d.t, d.t)) / 1000,
        "timestep_indices": times,
        "token_tags": tags,
        "position_ids": positions,
        "video_indices": video_indices,
        "audio_indices": audio_indices,
        "text_indices": text,
    }


_add(
    "minimax_h3", "MiniMaxH3Transformer3DModel",
    {
        "num_attention_heads": 2, "attention_head_dim": 16, "hidden_size": 24, "num_layers": 3,
        "num_refiner_layers": 1,
        "ffn_dim": 32, "in_channels": 4, "audio_in_channels": 6, "text_dim": 12, "freq_dim": 8,
        "time_embed_hidden_dim": 24, "time_embed_dim": 16, "rope_freq_dim": 2,
    },
    _minimax_h3,
)  # fmt: skip


def _cosmos3(d: Draw) -> dict[str, Any]:
    vision = SIZE * SIZE
    total = TEXT + vision
    places = torch.arange(TEXT, total)
    positions = torch.cat((torch.arange(TEXT)[None].expand(3, -1), 100 + grid(1, SIZE, SIZE).long().T), dim=1)
    return {
        "input_ids": torch.arange(TEXT) + 10 * d.prompt,
        "text_indexes": torch.arange(TEXT),
        "position_ids": positions,
        "und_len": TEXT,
        "sequence_length": total,
        "vision_tokens": [d.latent(2, 1, SIZE, SIZE)],
        "vision_token_shapes": [(1, SIZE, SIZE)],
        "vision_sequence_indexes": places,
        "vision_mse_loss_indexes": places,
        "vision_timesteps": d.t.expand(vision),
        "vision_noisy_frame_indexes": [torch.tensor([0])],
    }


_add(
    "cosmos3", "Cosmos3OmniTransformer",
    {
        "head_dim": 8, "hidden_size": 16, "intermediate_size": 32, "latent_channel": 2,
        "latent_patch_size": 1,
        "num_attention_heads": 2, "num_hidden_layers": 3, "num_key_value_heads": 1, "patch_latent_dim": 2,
        "rope_axes_dim": [2, 1, 1], "vocab_size": 64,
    },
    _cosmos3, "layers", batch=1, halves=False,
)  # fmt: skip
_add(
    "t5_film", "T5FilmDecoder",
    {"input_dims": 6, "targets_length": _LENGTH, "d_model": 16, "num_layers": 3, "num_heads": 2, "d_kv": 8,
    "d_ff": 32},
    lambda d: {
        "encodings_and_masks": [(d.text(TEXT, 16), d.ones(TEXT))], "decoder_input_tokens": d.latent(_LENGTH,
        6),
        "decoder_noise_time": d.flow(),
    },
    "decoders",
)  # fmt: skip
_TIMES = ("time_emb_bb_ca", "time_emb_local_latents")
_add(
    "rfd4_proteina", "RFD4ProteinaTransformer",
    {
        "nlayers": 3, "token_dim": 16, "nheads": 2, "dim_cond": 8, "pair_repr_dim": 8, "latent_dim": 4,
        "t_emb_dim": 8,
        "token_type_emb_dim": 4, "tri_mult_c": 8, "num_sequence_classes": 5, "xt_pair_dist_dim": 6,
        "feats_seq": ("xt_bb_ca", "xt_local_latents", "token_type"), "feats_cond_seq": _TIMES,
        "feats_pair_repr": ("xt_bb_ca_pair_dists",), "feats_pair_cond": _TIMES,
    },
    lambda d: {
        "bb_ca": d.latent(_LENGTH, 3), "local_latents": d.latent(_LENGTH, 4), "bb_ca_time": d.reversed(),
        "local_latents_time": d.reversed(), "padding_mask": d.ones(_LENGTH, dtype=torch.bool),
        "token_type": d.rows(torch.arange(_LENGTH) % (2 + d.prompt)),
        "conditioning": {
            "is_in_context_conditioning": torch.zeros(d.batch, _LENGTH, dtype=torch.bool),
            "supports_local_latent": d.ones(_LENGTH, dtype=torch.bool),
        },
    },
    "transformer_layers",
)  # fmt: skip
