"""The original specification's own code runs: its Quick Start and the imports of its API Reference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

QUICK_START = """
import torch
from diffusers import DiTPipeline
from dqar import DQARDiTWrapper
from dqar.integration import DQARDDIMSampler, DQARConfig
from dqar.integration.samplers import SamplerConfig

# Load DiT model
pipe = DiTPipeline.from_pretrained("facebook/DiT-XL-2-256", torch_dtype=torch.float16)
pipe.to("cuda")

# Configure DQAR
dqar_config = DQARConfig(
    entropy_threshold=2.0,
    snr_low=0.1,
    snr_high=10.0,
    quantization_mode="per_tensor",
    quantization_bits=8,
    use_layer_scheduling=True,
    schedule_type="step",
    warmup_steps=5,
)

# Wrap model with DQAR
wrapped_model = DQARDiTWrapper(pipe.transformer, dqar_config)

# Create sampler
sampler_config = SamplerConfig(
    num_inference_steps=50,
    guidance_scale=4.0,
    enable_dqar=True,
)
sampler = DQARDDIMSampler(wrapped_model, pipe.scheduler, sampler_config)

# Generate images
latents = sampler.sample(
    batch_size=4,
    class_labels=torch.tensor([207, 360, 387, 974], device="cuda"),
    progress_bar=True,
)

# Decode with VAE
images = pipe.vae.decode(latents / pipe.vae.config.scaling_factor).sample
"""

API_REFERENCE = """
from dqar import (
    DQARDiTWrapper,          # Main wrapper for DiT models
    ReuseGate,               # Entropy/SNR-based reuse decision
    KVQuantizer,             # K/V tensor quantization
    ReusePolicy,             # Learned reuse policy
    LayerScheduler,          # Layer-wise scheduling
    QuantizedKVCache,        # Cache management
    compute_attention_entropy,  # Entropy computation
    compute_latent_snr,      # SNR computation
)

from dqar.integration import (
    DQARConfig,              # Configuration dataclass
    DQARDDIMSampler,         # DDIM sampler with DQAR
    DQARDPMSolverSampler,    # DPM-Solver sampler with DQAR
)
"""


def run(model: Path) -> dict[str, Any]:
    """Run the Quick Start; the model's path and the device alone are this machine's."""
    code = QUICK_START.replace("facebook/DiT-XL-2-256", str(model)).replace('"cuda"', '"cpu"')
    names: dict[str, Any] = {}
    exec(code, names)
    return names


def test_quick_start(tiny_model_dir: Path) -> None:
    """The Quick Start runs verbatim, gives a finite image a label, and followed all 50 steps."""
    names = run(tiny_model_dir)
    assert names["latents"].dtype == torch.float16
    size = names["pipe"].transformer.config.sample_size
    assert names["latents"].shape == (4, 4, size, size)
    assert names["images"].shape[:2] == (4, 3) and torch.isfinite(names["images"]).all()
    assert names["wrapped_model"].summary().steps == 50


def test_api_reference() -> None:
    """Every import of the API Reference works."""
    exec(API_REFERENCE, {})
