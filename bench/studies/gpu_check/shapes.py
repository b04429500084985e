"""Text-to-image transformers of published shape with random weights: seconds and memory at 1024 x 1024."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel, SD3Transformer2DModel

import dqar
from bench.pipeline.session import stopwatch
from bench.studies.gpu_check.rig import Rig
from bench.studies.gpu_check.step import Value

STEPS, MODEL_STEPS = 12, 4
ModelCall = tuple[
    Any, tuple[int, ...], dict[str, Any]
]  # transformer, latent's shape, the call's other arguments


def _sd3(rig: Rig) -> ModelCall:
    """Stable Diffusion 3.5 medium's transformer: 24 joint blocks, width 1536."""
    side, layers, heads = rig.scale.side, rig.scale.layers or 24, rig.scale.heads
    model = SD3Transformer2DModel(
        sample_size=side, patch_size=2, in_channels=16, out_channels=16, num_layers=layers,
        attention_head_dim=64, num_attention_heads=heads, joint_attention_dim=4096,
        caption_projection_dim=64 * heads, pooled_projection_dim=2048, pos_embed_max_size=384,
        qk_norm="rms_norm",
    )  # fmt: skip
    inputs = {"encoder_hidden_states": torch.randn(2, 154, 4096), "pooled_projections": torch.randn(2, 2048)}
    return model, (2, 16, side, side), inputs


def _flux(rig: Rig) -> ModelCall:
    """FLUX.1-dev's transformer: 19 joint and 38 single blocks, width 3072; guidance is distilled."""
    tokens, layers, heads = (rig.scale.side // 2) ** 2, rig.scale.layers, rig.scale.heads
    model = FluxTransformer2DModel(
        patch_size=1, in_channels=64, num_layers=layers or 19, num_single_layers=layers or 38,
        attention_head_dim=128, num_attention_heads=heads, joint_attention_dim=4096,
        pooled_projection_dim=768, guidance_embeds=True, axes_dims_rope=(16, 56, 56),
    )  # fmt: skip
    inputs = {
        "encoder_hidden_states": torch.randn(1, 512, 4096),
        "pooled_projections": torch.randn(1, 768),
        "guidance": torch.full((1,), 3.5),
        "img_ids": torch.zeros(tokens, 3),
        "txt_ids": torch.zeros(512, 3),
    }
    return model, (1, tokens, 64), inputs


def shapes(rig: Rig) -> dict[str, Value]:
    """Time the loops of large models with random weights: of STEPS steps, all run and MODEL_STEPS run.

    Args:
        rig: the scale of the check.

    Returns:
        Seconds, and the peak of memory, by model.
    """
    values: dict[str, Value] = {}
    for name, build in {"SD3.5 medium": _sd3, "FLUX.1-dev": _flux}.items():
        values |= {f"{name}: {key}": value for key, value in _measured(rig, build).items()}
    return values


@torch.no_grad()
def _measured(rig: Rig, build: Callable[[Rig], ModelCall]) -> dict[str, Value]:
    device = "cuda" if rig.on_cuda else "cpu"
    dtype = torch.bfloat16 if rig.on_cuda else torch.float32
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            model, shape, inputs = build(rig)
    finally:
        torch.set_default_dtype(before)
    pipe = SimpleNamespace(
        transformer=model.eval(), scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0), components={}
    )
    if rig.on_cuda:
        torch.cuda.reset_peak_memory_stats()
    _loop(pipe, shape, inputs, dtype, device, steps=2)  # warm-up
    with stopwatch() as whole:
        _loop(pipe, shape, inputs, dtype, device)
    layers = len([name for name, _ in model.named_modules() if name.endswith(".attn")])
    config = dqar.DQARConfig.preset(
        "maximum", layer_fraction=0.0, model_steps=MODEL_STEPS, num_layers=max(1, layers)
    )
    dqar.enable(pipe, config)
    try:
        _loop(pipe, shape, inputs, dtype, device)  # warm-up
        with stopwatch() as skipped:
            latent = _loop(pipe, shape, inputs, dtype, device)
        run = int((dqar.summary(pipe).branches > 0).sum())
    finally:
        dqar.disable(pipe)
    return {
        "seconds": whole[0],
        "seconds with skipped steps": skipped[0],
        "speedup": whole[0] / skipped[0],
        "steps run": run,
        "finite": bool(torch.isfinite(latent).all()),
        "torch peak, GiB": torch.cuda.max_memory_allocated() / 2**30 if rig.on_cuda else None,
    }


def _loop(
    pipe: Any, shape: tuple[int, ...], inputs: dict[str, Any], dtype: Any, device: str, steps: int = STEPS
) -> torch.Tensor:
    pipe.scheduler.set_timesteps(steps, device=device)
    noise = torch.Generator().manual_seed(1)
    latent = torch.randn(shape, generator=noise).to(device=device, dtype=dtype)
    for t in pipe.scheduler.timesteps:
        # Flux divides by a thousand, as its pipeline does; the loop is the same otherwise.
        time = t.expand(shape[0]).to(dtype) / (1000 if "img_ids" in inputs else 1)
        output = pipe.transformer(hidden_states=latent, timestep=time, **inputs, return_dict=False)[0]
        latent = pipe.scheduler.step(output, t, latent).prev_sample
    return latent
