"""The diffusion transformer: v-prediction on unit-scale latents, one class label an image."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMScheduler, DiTTransformer2DModel
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn
from torch.nn import functional as F

from bench.embedded.classes import CLASSES, NULL_CLASS
from bench.embedded.data import EmojiData
from bench.embedded.loop import Budget, Trainer, load_ema, seeded
from bench.embedded.vae import encode
from bench.machine.device import device_type, has_bfloat16

BATCH = 64
LABEL_DROPOUT = 0.1
LAPLACE_SCALE = 1.5  # of the log-SNR
UNIFORM_SHARE = 0.25
SEED = 2


def new_scheduler() -> Any:
    """Make the scheduler: DiT-XL/2's noise schedule, but for a v-predicting model.

    Returns:
        DDIM.
    """
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=1e-4,
        beta_end=0.02,
        beta_schedule="linear",
        clip_sample=False,
        prediction_type="v_prediction",
        timestep_spacing="leading",
    )


def new_dit() -> Any:
    """Make the transformer, untrained: 12 layers, 6 heads x 32.

    Every block's output starts at 0 (adaLN-zero, Peebles & Xie 2023); diffusers leaves that initialisation to
    the caller.

    Returns:
        The transformer.
    """
    model: Any = DiTTransformer2DModel(
        num_attention_heads=6,
        attention_head_dim=32,
        num_layers=12,
        in_channels=4,
        out_channels=4,
        sample_size=16,
        patch_size=2,
        num_embeds_ada_norm=1000,
        norm_type="ada_norm_zero",
        activation_fn="gelu-approximate",
        attention_bias=True,
    )
    zeroed = [block.norm1.linear for block in model.transformer_blocks]
    for layer in [*zeroed, model.proj_out_1, model.proj_out_2]:
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    for block in model.transformer_blocks:
        # Each block would drop labels by itself; the training loop drops them once for all.
        block.norm1.emb.class_embedder.dropout_prob = 0.0
    nn.init.normal_(model.transformer_blocks[0].norm1.emb.class_embedder.embedding_table.weight, std=0.02)
    return model


def share_embedder(model: Any) -> None:
    """Let all blocks use the first one's timestep and label embedder.

    Args:
        model: the transformer, which is changed in place.
    """
    for block in model.transformer_blocks[1:]:
        block.norm1.emb = model.transformer_blocks[0].norm1.emb


def use_plain_attention(model: Any) -> None:
    """Compute attention by two batched matrix products: on a CPU far faster backwards than the fused
    kernel.

    Args:
        model: the transformer, which is changed in place.
    """
    for block in model.transformer_blocks:
        block.attn1.set_processor(AttnProcessor())


def training_latents(data: EmojiData, vae: Any) -> tuple[Tensor, Tensor]:
    """Encode the training images, mirrored ones too where that is fair.

    Args:
        data: the dataset of images, labels and splits.
        vae: the trained autoencoder.

    Returns:
        Latents `[n, 4, 16, 16]` and labels `[n]`.
    """
    images, labels = data.split("train")
    flips = torch.tensor([spec.flip for spec in CLASSES])[labels]
    pool = torch.cat([images, images[flips].flip(-1)])
    return encode(vae, pool), torch.cat([labels, labels[flips]])


def balanced_weights(labels: Tensor) -> Tensor:
    """Balance classes: one of n images is drawn in proportion to sqrt(n).

    Args:
        labels: a class for each image, `[n]`.

    Returns:
        Weights of sampling, `[n]`.
    """
    return labels.bincount()[labels].float().rsqrt()


def timestep_shares(alphas_cumprod: Tensor) -> Tensor:
    """Compute how often each timestep is trained on: mostly where signal and noise are alike.

    Three quarters follow a Laplace distribution of the log-SNR about 0 (Hang et al. 2024, "Improved Noise
    Schedule for Diffusion Training"), a quarter is uniform: of uniform timesteps, four in ten have a log-SNR
    below -4, where there is little to learn.

    Args:
        alphas_cumprod: share of the signal's variance at each timestep, `[steps]`, falling.

    Returns:
        Probabilities, `[steps]`.
    """
    log_snr = torch.logit(alphas_cumprod)
    density = -torch.gradient(log_snr)[0] * torch.exp(-log_snr.abs() / LAPLACE_SCALE)
    return UNIFORM_SHARE / len(log_snr) + (1 - UNIFORM_SHARE) * density / density.sum()


def stratified_timesteps(draw: torch.Generator, shares: Tensor) -> Tensor:
    """Draw one timestep from each of BATCH slices of equal probability: less noise in the loss.

    Args:
        draw: generator of the random numbers.
        shares: probability of each timestep, `[steps]`.

    Returns:
        Timesteps int64 `[BATCH]`, in [0, steps).
    """
    uniform = (torch.arange(BATCH) + torch.rand(BATCH, generator=draw)) / BATCH
    return torch.searchsorted(shares.cumsum(0), uniform).clamp(max=len(shares) - 1)


def make_loss(model: nn.Module, latents: Tensor, labels: Tensor) -> Callable[[int], Tensor]:
    """Make the loss: mean squared error of v = sqrt(a) eps - sqrt(1 - a) x0 (Salimans & Ho 2022).

    What is drawn is drawn on the CPU, the same for every device.

    Args:
        model: the transformer, on its device.
        latents: encoded training images, `[n, 4, 16, 16]`.
        labels: classes of the training images, `[n]`.

    Returns:
        The loss of one batch by the batch's number.
    """
    compiled, device = torch.compile(model), next(model.parameters()).device
    scheduler = new_scheduler()
    weights, shares = balanced_weights(labels), timestep_shares(scheduler.alphas_cumprod)
    half = has_bfloat16()

    def loss(step: int) -> Tensor:
        draw = seeded(SEED, step)
        chosen = torch.multinomial(weights, BATCH, replacement=True, generator=draw)
        noise = torch.randn(latents[chosen].shape, generator=draw)
        dropped = torch.rand(BATCH, generator=draw) < LABEL_DROPOUT
        timesteps = stratified_timesteps(draw, shares)
        noisy = scheduler.add_noise(latents[chosen], noise, timesteps).to(device)
        target = scheduler.get_velocity(latents[chosen], noise, timesteps).to(device)
        condition = labels[chosen].masked_fill(dropped, NULL_CLASS).to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            output = compiled(noisy, timestep=timesteps.to(device), class_labels=condition, return_dict=False)
        return F.mse_loss(output[0].float(), target)

    return loss


def train(data: EmojiData, vae: Any, work: Path, budget: Budget, weights: Path | None = None) -> None:
    """Train, or resume, into `work/dit.pt`, on this machine's device.

    Args:
        data: the dataset of images, labels and splits.
        vae: the trained autoencoder.
        work: the directory of the checkpoints.
        budget: how long to train.
        weights: directory of a trained transformer to go on from; None: new weights.
    """
    torch.manual_seed(SEED)
    model, device = new_dit(), device_type()
    if weights is not None:
        trained: Any = DiTTransformer2DModel.from_pretrained(weights, torch_dtype=torch.float32)
        model.load_state_dict(trained.state_dict())
    share_embedder(model)
    if device == "cpu":
        use_plain_attention(model)
    model.to(device)
    Trainer(
        model=model,
        loss=make_loss(model, *training_latents(data, vae)),
        budget=budget,
        checkpoint=work / "dit.pt",
        learning_rate=1e-3,
    ).run()


@torch.no_grad()
def load_unshared(work: Path) -> Any:
    """Load the trained transformer as stock diffusers has it.

    Args:
        work: the directory of the checkpoints.

    Returns:
        The averaged model with the shared embedder copied into each block, unused labels zeroed.
    """
    shared, model = new_dit(), new_dit()
    share_embedder(shared)
    load_ema(shared, work / "dit.pt")
    model.load_state_dict(shared.state_dict())  # a shared module is saved once for each user
    for block in model.transformer_blocks:
        block.norm1.emb.class_embedder.embedding_table.weight[len(CLASSES) : NULL_CLASS] = 0
    return model.eval()
