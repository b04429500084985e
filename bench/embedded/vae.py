"""The autoencoder: 64x64 RGB images to 4x16x16 latents of unit scale."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from bench.embedded import MODEL_DIR
from bench.embedded.data import EmojiData, to_float
from bench.embedded.loop import Budget, Trainer, load_ema, seeded
from bench.machine.device import has_bfloat16
from dqar.evaluation.psnr import psnr

# diffusers imports lazily, which hides its classes from mypy: hence `Any` for its models.
BATCH = 16
KL_WEIGHT = 1e-4
SEED = 1


def new_vae() -> Any:
    """Make the autoencoder, untrained: 0.9 M parameters; no attention in the middle, as the images are
    small.

    Returns:
        The autoencoder.
    """
    return AutoencoderKL(
        block_out_channels=(32, 64, 64),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=16,
        sample_size=64,
        scaling_factor=1.0,  # the scale is folded into the quant convolutions: see `fold_scale`
        mid_block_add_attention=False,
    )


def edges(images: Tensor) -> tuple[Tensor, Tensor]:
    """Compute finite differences along x and y.

    Args:
        images: `[n, 3, h, w]`.

    Returns:
        `[n, 3, h, w - 1]` and `[n, 3, h - 1, w]`.
    """
    return images.diff(dim=-1), images.diff(dim=-2)


def reconstruction_loss(output: Tensor, target: Tensor) -> Tensor:
    """Compute L1 + L2 + half the L1 of the edges: sharp outlines without a perceptual network.

    Args:
        output: `[n, 3, h, w]`.
        target: the images wanted, of the same shape.

    Returns:
        The loss, a scalar.
    """
    error = output - target
    gradient = sum(e.abs().mean() for e in edges(error))
    return error.abs().mean() + error.square().mean() + 0.5 * gradient


def kl(mean: Tensor, logvar: Tensor) -> Tensor:
    """Compute KL(N(mean, exp logvar) || N(0, 1)).

    Args:
        mean: means of the latents.
        logvar: natural logarithm of their variance, of the same shape.

    Returns:
        The mean over latent dimensions, in nats.
    """
    return 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()


def make_loss(vae: Any, images: Tensor) -> Callable[[int], Tensor]:
    """Make the loss of the autoencoder.

    Args:
        vae: the autoencoder to train, in training mode.
        images: uint8 `[n, 3, 64, 64]`; half of those drawn are mirrored.

    Returns:
        The loss of one batch by the batch's number.
    """
    compiled = torch.compile(_Reconstruct(vae))

    half = has_bfloat16()

    def loss(step: int) -> Tensor:
        draw = seeded(SEED, step)
        batch = to_float(images[torch.randint(len(images), (BATCH,), generator=draw)])
        mirror = torch.rand(BATCH, 1, 1, 1, generator=draw) < 0.5
        batch = torch.where(mirror, batch.flip(-1), batch)
        noise = torch.randn(BATCH, 4, 16, 16, generator=draw)
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            output, mean, logvar = compiled(batch.contiguous(memory_format=torch.channels_last), noise)
        fit = reconstruction_loss(output.float(), batch)
        return fit + KL_WEIGHT * kl(mean.float(), logvar.float())

    return loss


class _Reconstruct(nn.Module):
    """encode -> reparametrise -> decode with the caller's noise, so that runs repeat."""

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, images: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean, logvar = self.vae.quant_conv(self.vae.encoder(images)).chunk(2, dim=1)
        logvar = logvar.clamp(-30, 20)
        latents = mean + (0.5 * logvar).exp() * noise
        return self.vae.decoder(self.vae.post_quant_conv(latents)), mean, logvar


def train(data: EmojiData, work: Path, budget: Budget) -> None:
    """Train, or resume, into `work/vae.pt`.

    Args:
        data: the dataset of images, labels and splits.
        work: the directory of the checkpoints.
        budget: how long to train.
    """
    torch.manual_seed(SEED)
    vae = new_vae().to(memory_format=torch.channels_last)
    images, _ = data.split("train")
    Trainer(
        model=vae,
        loss=make_loss(vae, images),
        budget=budget,
        checkpoint=work / "vae.pt",
        learning_rate=2e-3,
        ema_decay=0.99,
    ).run()


@torch.no_grad()
def encode(vae: Any, images: Tensor) -> Tensor:
    """Encode images, in chunks.

    Args:
        vae: the autoencoder.
        images: RGB images, uint8 `[n, 3, 64, 64]`.

    Returns:
        Mean latents `[n, 4, 16, 16]`.
    """
    return torch.cat([vae.encode(to_float(c)).latent_dist.mean for c in images.split(64)])


@torch.no_grad()
def fold_scale(vae: Any, latents: Tensor) -> None:
    """Make every latent channel mean 0 and std 1 over `latents`, within the 1x1 convolutions.

    `DiTPipeline` knows a scaling factor but no shift, and channels differ: so z' = (z - m) / s goes
    into `quant_conv` (means first, then log-variances) and its inverse into `post_quant_conv`.

    Args:
        vae: the autoencoder, which is changed in place.
        latents: `[n, 4, 16, 16]`, as `encode` returns them.
    """
    m, s = latents.mean(dim=(0, 2, 3)), latents.std(dim=(0, 2, 3))
    quant, post = vae.quant_conv, vae.post_quant_conv
    post.bias += post.weight[:, :, 0, 0] @ m  # W (s z' + m) + b, with the old W
    post.weight *= s[None, :, None, None]
    quant.weight[:4] /= s[:, None, None, None]
    quant.bias[:4] = (quant.bias[:4] - m) / s
    quant.bias[4:] -= 2 * s.log()


def load_shipped() -> Any:
    """Load the autoencoder that both shipped models share.

    Returns:
        The autoencoder in float32, in evaluation mode; its latents have unit scale.
    """
    vae: Any = AutoencoderKL.from_pretrained(MODEL_DIR / "vae", torch_dtype=torch.float32).eval()
    # What is saved names where it was loaded from: not a path of this machine.
    vae.register_to_config(_name_or_path=(MODEL_DIR / "vae").relative_to(MODEL_DIR.parents[2]).as_posix())
    return vae


def load_folded(data: EmojiData, work: Path) -> Any:
    """Load the trained autoencoder with unit-scale latents over the training images.

    Args:
        data: the dataset of images, labels and splits.
        work: the directory of the checkpoints; without one of an autoencoder it is the shipped one's.

    Returns:
        The autoencoder, in evaluation mode.
    """
    if not (work / "vae.pt").exists():
        return load_shipped()
    vae = new_vae().eval()
    load_ema(vae, work / "vae.pt")
    fold_scale(vae, encode(vae, data.split("train")[0]))
    return vae


@torch.no_grad()
def reconstruction_psnr(vae: Any, images: Tensor) -> float:
    """Measure the reconstruction of images, before rounding.

    Args:
        vae: the autoencoder.
        images: RGB images, uint8 `[n, 3, 64, 64]`.

    Returns:
        The mean PSNR in dB.
    """
    values = []
    for chunk in images.split(64):
        output = vae.decode(vae.encode(to_float(chunk)).latent_dist.mean).sample.clamp(-1, 1)
        values.append(psnr(output, to_float(chunk), peak=2))
    return float(torch.cat(values).mean())
