"""Every model family that DQAR claims: stock diffusers classes with small random weights."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxTransformer2DModel,
    PixArtTransformer2DModel,
    SD3Transformer2DModel,
)

import dqar
from dqar import DQARConfig
from dqar.integration.pipeline import attention_layers

STEPS = 8
TEXT = 5  # prompt tokens


def sd3() -> tuple[Any, Any, Any]:
    model = SD3Transformer2DModel(
        sample_size=8,
        num_layers=4,
        attention_head_dim=8,
        num_attention_heads=4,
        joint_attention_dim=16,
        caption_projection_dim=32,
        pooled_projection_dim=16,
        pos_embed_max_size=8,
        in_channels=4,
        out_channels=4,
    )
    inputs = {"encoder_hidden_states": torch.randn(2, TEXT, 16), "pooled_projections": torch.randn(2, 16)}
    return model, FlowMatchEulerDiscreteScheduler(), ((2, 4, 8, 8), inputs)


def flux() -> tuple[Any, Any, Any]:
    model = FluxTransformer2DModel(
        patch_size=1,
        in_channels=4,
        num_layers=2,
        num_single_layers=3,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=16,
        pooled_projection_dim=16,
        axes_dims_rope=(4, 4, 8),
    )
    inputs = {
        "encoder_hidden_states": torch.randn(2, TEXT, 16),
        "pooled_projections": torch.randn(2, 16),
        "img_ids": torch.zeros(16, 3),
        "txt_ids": torch.zeros(TEXT, 3),
    }
    return model, FlowMatchEulerDiscreteScheduler(), ((2, 16, 4), inputs)


def pixart() -> tuple[Any, Any, Any]:
    model = PixArtTransformer2DModel(
        sample_size=8,
        num_layers=4,
        attention_head_dim=8,
        num_attention_heads=4,
        in_channels=4,
        out_channels=4,
        cross_attention_dim=32,
        caption_channels=16,
        use_additional_conditions=False,
    )
    inputs = {
        "encoder_hidden_states": torch.randn(2, TEXT, 16),
        "added_cond_kwargs": {"resolution": None, "aspect_ratio": None},
    }
    return model, DDIMScheduler(clip_sample=False), ((2, 4, 8, 8), inputs)


FAMILIES = {"sd3": sd3, "flux": flux, "pixart": pixart}


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> Any:
    torch.manual_seed(0)
    model, scheduler, rest = FAMILIES[request.param]()
    return SimpleNamespace(transformer=model.eval(), scheduler=scheduler, rest=rest, name=request.param)


@torch.no_grad()
def denoise(family: Any, halves_equal: bool = False) -> torch.Tensor:
    """The latents after a real scheduler's loop over the model."""
    shape, inputs = family.rest
    latent = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    if halves_equal:
        latent = torch.cat((latent[:1], latent[:1]))
    family.scheduler.set_timesteps(STEPS)
    for t in family.scheduler.timesteps:
        output = family.transformer(hidden_states=latent, timestep=t.expand(2), **inputs).sample
        latent = family.scheduler.step(output, t, latent).prev_sample
        if halves_equal:
            latent = torch.cat((latent[:1], latent[:1]))
    return latent


def layers_of(family: Any) -> int:
    return len(attention_layers(family.transformer))


def test_nothing_reusable_and_disabled_are_bit_identical(family: Any) -> None:
    """For each family, reuse forbidden (entropy measured all the while) and removed change no bit."""
    untouched = denoise(family)
    dqar.enable(family, DQARConfig.preset("maximum", entropy_threshold=0.0, trace_entropy=True))
    assert torch.equal(denoise(family), untouched)
    summary = dqar.summary(family)
    assert summary.ratio == 0
    assert np.isfinite(summary.entropy).all() and (summary.entropy > 0).all()
    dqar.disable(family)
    assert torch.equal(denoise(family), untouched)


BEYOND = {"forecast_order": 1, "guidance_interval": 2, "max_age": 2, "use_layer_scheduling": False}


def test_all_that_goes_beyond_attention_leaves_nothing_behind(family: Any) -> None:
    """For each family, forecasts and single branches (and PixArt's MLPs) change no bit while the warm-up
    forbids them, change the output after it, and change no bit once they are removed."""
    untouched = denoise(family, halves_equal=True)
    targets = "both" if family.name == "pixart" else "attention"
    config = DQARConfig.preset("maximum", targets=targets, **BEYOND)
    dqar.enable(family, config.replace(warmup_steps=1000))
    assert torch.equal(denoise(family, halves_equal=True), untouched)
    dqar.enable(family, config)
    assert not torch.equal(denoise(family, halves_equal=True), untouched)
    assert dqar.summary(family).ratio > 0 and dqar.summary(family).conditional_only.any()
    dqar.disable(family)
    assert torch.equal(denoise(family, halves_equal=True), untouched)


def state_of(family: Any) -> tuple[list[Any], int, list[Any]]:
    """All that DQAR may change on a transformer: processors, hooks, MLPs' `forward`."""
    model = family.transformer
    processors = [attention.processor for attention in attention_layers(model)]
    hooks = len(model._forward_pre_hooks) + len(model._forward_hooks)
    return processors, hooks, [m for m in model.modules() if "forward" in m.__dict__]


SUPPORTED = {("pixart", "reuse_mode"), ("pixart", "targets"), ("sd3", "targets")}
REFUSED: list[dict[str, Any]] = [
    {"reuse_mode": "kv"},
    {"targets": "mlp"},
    {"num_heads": 4, "targets": ("attention",)},
    {"quantization_bits": (8,)},
    {"entropy_scales": (1.0,)},
    {"schedule_type": "custom", "custom_schedule": (0.5,)},
    {"plan_path": "nowhere.json"},
    {"use_learned_policy": True, "policy_path": "nowhere"},
]


@pytest.mark.parametrize(
    ("family", "fields"),
    [
        pytest.param(family, fields, id=f"{family}-{field}")
        for family in FAMILIES
        for fields in REFUSED
        if (family, field := next(iter(fields))) not in SUPPORTED
    ],
    indirect=["family"],
)
def test_a_refused_configuration_changes_nothing(family: Any, fields: dict[str, Any]) -> None:
    """For each family, whatever the reason, a failed `enable` leaves model and pipeline as they were."""
    before = state_of(family)
    with pytest.raises(ValueError):
        dqar.enable(family, DQARConfig(**fields))
    assert state_of(family) == before and not hasattr(family, "_dqar")
    with pytest.raises(ValueError):
        dqar.DQARDiTWrapper(family.transformer, DQARConfig(**fields))
    assert state_of(family) == before


def test_reuse_follows_its_plan_and_changes_the_output(family: Any) -> None:
    """For each family, the run reuses exactly what the plan has, and its latents show it."""
    untouched = denoise(family)
    config = DQARConfig.preset("maximum", max_age=2)
    dqar.enable(family, config)
    latents = denoise(family)
    assert latents.isfinite().all() and not torch.equal(latents, untouched)
    assert torch.equal(denoise(family), latents)
    planned = dqar.plan(config, family.scheduler, STEPS, layers_of(family))
    assert planned.any()
    assert np.array_equal(dqar.summary(family).map, planned)


def test_prompt_length_scales_the_entropy_threshold(family: Any) -> None:
    """The model's own prompt, 5 tokens, lowers tau by sqrt(5 / 77): no entropy passes any more."""
    dqar.enable(family, DQARConfig.preset("maximum", trace_entropy=True))
    denoise(family)
    highest = float(np.nanmax(dqar.summary(family).entropy)) + 0.1
    for adaptive, reused in ((False, True), (True, False)):
        config = DQARConfig.preset("maximum", entropy_threshold=highest, adaptive_entropy=adaptive)
        dqar.enable(family, config)
        denoise(family)
        assert (dqar.summary(family).ratio > 0) == reused


def test_sharing_one_guidance_branch_halves_the_cache(family: Any) -> None:
    """With two equal latent halves, `cfg_sharing` keeps half the bytes and reuses one for both."""
    held = []
    for sharing in (False, True):
        dqar.enable(family, DQARConfig.preset("maximum", cfg_sharing=sharing, quantization_bits=16))
        denoise(family, halves_equal=True)
        held.append(dqar.summary(family).cache_bytes)
    assert held[1] == held[0] / 2


def test_kv_mode_is_refused_for_joint_attention(family: Any) -> None:
    """K/V reuse works where K and V can be computed apart, and is refused by name elsewhere."""
    config = DQARConfig.preset("maximum", reuse_mode="kv")
    if family.name == "pixart":
        dqar.enable(family, config)
        assert denoise(family).isfinite().all()
    else:
        with pytest.raises(ValueError, match="reuse_mode = 'kv' is not allowed; allowed: 'output'"):
            dqar.enable(family, config)


def test_the_conditional_branch_alone(family: Any) -> None:
    """For each family the blocks see one row of two on the steps without the unconditional branch, the
    second, for text pipelines put the conditional one there; equal branches lose nothing."""
    seen: list[int] = []
    block = family.transformer.transformer_blocks[0]
    hook = block.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(len(args[0] if args else kwargs["hidden_states"])),
        with_kwargs=True,
    )
    inputs = family.rest[1]
    for name in ("encoder_hidden_states", "pooled_projections"):
        if name in inputs:
            inputs[name] = inputs[name][1:].repeat(2, *([1] * (inputs[name].ndim - 1)))
    untouched = denoise(family, halves_equal=True)
    seen.clear()
    dqar.enable(family, DQARConfig.preset("maximum", layer_fraction=0.0, guidance_interval=2))
    latents = denoise(family, halves_equal=True)
    hook.remove()
    alone = dqar.summary(family).conditional_only
    assert alone.any() and seen == [1 if single else 2 for single in alone]
    torch.testing.assert_close(latents, untouched, rtol=1e-4, atol=1e-4)


def test_mlps_are_a_target_where_blocks_have_one(family: Any) -> None:
    """An MLP within a block's own projections is refused by name; those of one stream or two are reused."""
    config = DQARConfig.preset("maximum", targets="both", max_age=1)
    if family.name == "flux":
        with pytest.raises(
            ValueError, match=r"targets = 'mlp' is not allowed; allowed: 'attention' for .* 0 to 1"
        ):
            dqar.enable(family, config)
        config = config.replace(targets=("both",) * 2 + ("attention",) * 3, num_layers=5)
    untouched = denoise(family)
    dqar.enable(family, config)
    assert not torch.equal(denoise(family), untouched)
    assert dqar.summary(family).ratio > 0
    dqar.disable(family)
    assert torch.equal(denoise(family), untouched)
