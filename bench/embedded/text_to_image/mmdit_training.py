"""Trains the text-to-image transformer and its two text encoders together, by flow matching."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from bench.embedded.loop import Budget, Trainer, seeded
from bench.embedded.text_to_image import prompts
from bench.embedded.text_to_image.emoji import TextData
from bench.embedded.text_to_image.mmdit import TextToImage
from bench.embedded.vae import encode, load_shipped
from bench.machine.device import has_bfloat16

BATCH = 64
PROMPT_DROPOUT = 0.1
SEED = 5
# The pipeline appends this many zero tokens in place of T5's, unless `max_sequence_length` sets others.
STOCK_ZERO_TOKENS = 256


class JointAttention:
    """Joint attention by plain matrix products, with a weight for the last text token.

    A key that stands for m equal ones has log m added to its scores: so one zero token is trained as though
    the pipeline had appended m of them, exactly. `log_count` [b, 1, 1, 1] is set before each forward pass.
    On a CPU two products are also far faster backwards than the fused kernel.
    """

    log_count: Tensor

    def __call__(
        self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor, **_: Any
    ) -> tuple[Tensor, Tensor]:
        """The image's and the text's outputs."""
        b, n, width = hidden_states.shape

        def split(image: Tensor, text: Tensor) -> Tensor:
            joint: Tensor = torch.cat([image, text], dim=1).unflatten(2, (attn.heads, -1))
            return joint.transpose(1, 2)

        text = encoder_hidden_states
        query = split(attn.to_q(hidden_states), attn.add_q_proj(text))
        key = split(attn.to_k(hidden_states), attn.add_k_proj(text))
        value = split(attn.to_v(hidden_states), attn.add_v_proj(text))
        scores = query @ key.transpose(2, 3) * key.shape[-1] ** -0.5
        weights = (scores.float() + self.bias(scores)).softmax(dim=-1).to(value.dtype)
        joined = (weights @ value).transpose(1, 2).reshape(b, -1, width)
        image, text = joined[:, :n], joined[:, n:]
        if not attn.context_pre_only:
            text = attn.to_add_out(text)
        return attn.to_out[0](image), text

    def bias(self, scores: Tensor) -> Tensor:
        """Weigh the last text token for the m zero tokens that it stands for.

        Args:
            scores: products of queries and keys, `[..., queries, keys]`.

        Returns:
            log m in the last key's column, 0 elsewhere.
        """
        last = torch.arange(scores.shape[-1], device=scores.device) == scores.shape[-1] - 1
        return self.log_count * last


class Denoise(nn.Module):
    """The transformer with the count of zero tokens as an argument, so that it compiles once.

    Args:
        transformer: its blocks' attention processors are replaced.
    """

    def __init__(self, transformer: Any) -> None:
        super().__init__()
        self.transformer, self.attention = transformer, JointAttention()
        for block in transformer.transformer_blocks:
            block.attn.set_processor(self.attention)

    def forward(
        self, noisy: Tensor, timesteps: Tensor, tokens: Tensor, pooled: Tensor, log_count: Tensor
    ) -> Tensor:
        """Predict the velocity.

        Args:
            noisy: latents `[b, 4, 16, 16]`.
            timesteps: `[b]`, in [0, 1000].
            tokens: `[b, TOKENS + 1, 128]`.
            pooled: `[b, 128]`.
            log_count: logarithm of the number of zero tokens, `[b, 1, 1, 1]`.

        Returns:
            The velocity `[b, 4, 16, 16]`.
        """
        self.attention.log_count = log_count
        output: Tensor = self.transformer(
            noisy,
            timestep=timesteps,
            encoder_hidden_states=tokens,
            pooled_projections=pooled,
            return_dict=False,
        )[0]
        return output


def logit_normal(draw: torch.Generator) -> Tensor:
    """Draw noise levels: the sigmoid of a normal, one from each of BATCH equal slices.

    Args:
        draw: generator of the random numbers.

    Returns:
        sigma in (0, 1), `[BATCH]`.
    """
    uniform = (torch.arange(BATCH) + torch.rand(BATCH, generator=draw)) / BATCH
    return (math.sqrt(2) * torch.erfinv((2 * uniform - 1).clamp(-0.9999, 0.9999))).sigmoid()


def zero_token_counts(draw: torch.Generator) -> Tensor:
    """Draw numbers of zero tokens: half are 1, a quarter what the pipeline does by default, the rest
    between.

    Args:
        draw: generator of the random numbers.

    Returns:
        Their logarithms, `[BATCH, 1, 1, 1]`.
    """
    kind, between = torch.rand(2, BATCH, generator=draw)
    log_count = torch.where(kind < 0.5, 0.0, torch.where(kind < 0.75, 1.0, between))
    return log_count.mul(math.log(STOCK_ZERO_TOKENS)).view(-1, 1, 1, 1)


def mirrored(data: TextData, rows: Tensor) -> Tensor:
    """Choose the images that may be mirrored: no writing, no flags, no clocks, and nothing called left or
    right.

    Args:
        data: the dataset of images, labels and splits.
        rows: indices of images, `[n]`.

    Returns:
        Whether each may, bool `[n]`.
    """
    fixed = (
        "flag", "alphanum", "keycap", "sign", "time", "arrow", "av symbol", "religion", "zodiac",
        "punctuation", "math", "currency", "other symbol", "warning", "money",
    )  # fmt: skip
    one_way = {"left", "right", "leftwards", "rightwards", "east", "west", "first", "last"}

    def fair(index: int) -> bool:
        sign = data.texts[index]
        words = {word for name in sign.names for word in name.split()}
        return not (any(word in sign.kind for word in fixed) or words & one_way)

    return torch.tensor([fair(i) for i in data.signs[rows].tolist()])


def training_latents(data: TextData, work: Path) -> tuple[Tensor, Tensor, Tensor]:
    """Encode the training images, mirrored ones too where that is fair.

    Subcategories of n images are drawn in proportion to sqrt(n); a mirror image halves its original's share.

    Args:
        data: the dataset of images, labels and splits.
        work: the directory that the latents are kept in.

    Returns:
        Latents `[m, 4, 16, 16]`, the sign `[m]` and the sampling weight `[m]`.
    """
    rows = data.rows("train")
    images, signs, kinds = data.images[rows], data.signs[rows], data.kinds[rows]
    weights = kinds.bincount()[kinds].float().rsqrt()
    flips = mirrored(data, rows)
    shares = torch.where(flips, 0.5 * weights, weights)
    cached = work / "text-latents.safetensors"
    if not cached.exists():
        save_file({"latents": encode(load_shipped(), torch.cat([images, images[flips].flip(-1)]))}, cached)
    return load_file(cached)["latents"], torch.cat([signs, signs[flips]]), torch.cat([shares, shares[flips]])


def make_loss(
    model: TextToImage, latents: Tensor, signs: Tensor, weights: Tensor, table: Tensor, empty: Tensor
) -> Callable[[int], Tensor]:
    """Make the loss: mean squared error of the velocity eps - x0 at (1 - sigma) x0 + sigma eps (Lipman et
    al. 2023).

    Args:
        model: the model to train, in training mode.
        latents: encoded training images, `[m, 4, 16, 16]`.
        signs: index of each training image's sign, `[m]`.
        weights: sampling weights of the images, `[m]`.
        table: prompts of each sign, see `prompts.prompt_table`.
        empty: the tokens of the empty prompt, `[1, TOKENS]`.

    Returns:
        The loss of one batch by the batch's number.
    """
    compiled = torch.compile(Denoise(model.transformer))
    for encoder in (model.text_encoder, model.text_encoder_2):
        encoder.set_attn_implementation("eager")

    half = has_bfloat16()

    def loss(step: int) -> Tensor:
        draw = seeded(SEED, step)
        chosen = torch.multinomial(weights, BATCH, replacement=True, generator=draw)
        noise = torch.randn(latents[chosen].shape, generator=draw)
        sigma = logit_normal(draw)
        which = torch.randint(table.shape[1], (BATCH,), generator=draw)
        dropped = torch.rand(BATCH, generator=draw) < PROMPT_DROPOUT
        log_count = zero_token_counts(draw)
        ids = torch.where(dropped[:, None], empty, table[signs[chosen], which])
        scale = sigma.view(-1, 1, 1, 1)
        noisy = (1 - scale) * latents[chosen] + scale * noise
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            tokens, pooled = model.embed(ids)
            output = compiled(noisy, sigma * 1000, tokens, pooled, log_count)
        return F.mse_loss(output.float(), noise - latents[chosen])

    return loss


def train(data: TextData, work: Path, budget: Budget) -> None:
    """Train, or resume, into `work/mmdit.pt`.

    Args:
        data: the dataset of images, labels and splits.
        work: the directory of the checkpoints.
        budget: how long to train.
    """
    torch.manual_seed(SEED)
    tokenizer = prompts.tokenizer_for(data, work)
    latents, signs, weights = training_latents(data, work)
    table = prompts.prompt_table(data, tokenizer, SEED, signs)
    model = TextToImage()
    Trainer(
        model=model,
        loss=make_loss(model, latents, signs, weights, table, prompts.encode(tokenizer, [""])),
        budget=budget,
        checkpoint=work / "mmdit.pt",
        learning_rate=1.5e-3,
    ).run()
