"""Prompts of 1 to 12 words from names, keywords and subcategories, and the tokenizer of their vocabulary."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import CLIPTokenizer

from bench.embedded.text_to_image.emoji import Sign, TextData

TOKENS = 15  # a prompt's tokens with start, end and padding
MAX_WORDS = 12
VOCABULARY = 2048
START, END, UNKNOWN = "<|startoftext|>", "<|endoftext|>", "<|unknown|>"
PRINTABLE = [chr(code) for code in range(33, 127)]
# Prompts drawn for each sign; one of them is taken each time that an image is seen.
PROMPTS_PER_SIGN = 48


def name_of(sign: Sign) -> str:
    """Choose the prompt that evaluation uses.

    Args:
        sign: the words of an emoji.

    Returns:
        The sign's first name, with its skin tone where it has one, at most MAX_WORDS words.
    """
    return " ".join(f"{sign.names[0]} {sign.skin}".split()[:MAX_WORDS])


def draw_prompt(sign: Sign, draw: random.Random) -> str:
    """Draw a prompt: half of them name the sign, a quarter add keywords, a quarter are keywords alone.

    Args:
        sign: the words of an emoji.
        draw: generator of the random numbers.

    Returns:
        The prompt.
    """
    name = draw.choice((sign.names[0], *sign.names))
    keywords = draw.sample(sign.keywords, min(len(sign.keywords), draw.randint(1, 4)))
    parts = [name]
    style = draw.random()
    if style < 0.25:
        parts = [name, *keywords]
    elif style < 0.5 and keywords:
        parts = [*keywords, sign.kind] if draw.random() < 0.5 else keywords
        draw.shuffle(parts)
    elif style < 0.6:
        parts = [sign.kind, name]
    if sign.skin and draw.random() < 0.8:
        parts.append(sign.skin)
    return " ".join(" ".join(parts).split()[:MAX_WORDS])


def corpus(data: TextData) -> list[str]:
    """Collect what the vocabulary is made from.

    Args:
        data: the dataset of images, labels and splits.

    Returns:
        The words of every sign that is trained on.
    """
    trained = [data.texts[i] for i in data.signs[data.rows("train")].unique().tolist()]
    return [" ".join((*sign.names, *sign.keywords, sign.kind, sign.skin)) for sign in trained]


def write_tokenizer_files(texts: list[str], directory: Path) -> None:
    """Train byte-pair encoding; write CLIP's `vocab.json` and `merges.txt`.

    Args:
        texts: texts to train on.
        directory: the files go to it.
    """
    pairs = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token=UNKNOWN))
    pairs.pre_tokenizer = pre_tokenizers.Split(Regex(r"\p{L}+|\p{N}"), "removed", invert=True)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[START, END, UNKNOWN],
        end_of_word_suffix="</w>",
        initial_alphabet=PRINTABLE,
        show_progress=False,
    )
    pairs.train_from_iterator(texts, trainer)
    directory.mkdir(parents=True, exist_ok=True)
    pairs.model.save(str(directory))


def load_tokenizer(directory: Path) -> Any:
    """Load a tokenizer.

    Args:
        directory: the one with `vocab.json` and `merges.txt`.

    Returns:
        A `CLIPTokenizer`.
    """
    vocabulary = json.loads((directory / "vocab.json").read_text())
    lines = (directory / "merges.txt").read_text().splitlines()
    # transformers takes pairs, though it is annotated otherwise.
    merges: Any = [tuple(line.split(" ")) for line in lines if not line.startswith("#version")]
    return CLIPTokenizer(vocabulary, merges, unk_token=UNKNOWN, model_max_length=TOKENS)


def tokenizer_for(data: TextData, work: Path) -> Any:
    """Load the tokenizer of the training texts, trained on first use.

    Args:
        data: the dataset of images, labels and splits.
        work: it is kept in `tokenizer` in there.

    Returns:
        A `CLIPTokenizer`.
    """
    directory = work / "tokenizer"
    if not (directory / "vocab.json").exists():
        write_tokenizer_files(corpus(data), directory)
    return load_tokenizer(directory)


def encode(tokenizer: Any, texts: list[str]) -> Tensor:
    """Encode prompts as `StableDiffusion3Pipeline` does.

    Args:
        tokenizer: the model's tokenizer.
        texts: the prompts, one an image.

    Returns:
        Token ids int64 `[n, TOKENS]`.
    """
    batch = tokenizer(texts, padding="max_length", max_length=TOKENS, truncation=True, return_tensors="pt")
    ids: Tensor = batch.input_ids
    return ids


def fitting_prompt(sign: Sign, tokenizer: Any, draw: random.Random) -> str:
    """Draw a prompt that is not cut off: words are dropped from its end until it fits.

    Args:
        sign: the words of an emoji.
        tokenizer: the model's tokenizer.
        draw: generator of the random numbers.

    Returns:
        The prompt, of at most TOKENS tokens unless one word has more.
    """
    words = draw_prompt(sign, draw).split()
    while len(tokenizer(" ".join(words)).input_ids) > TOKENS and len(words) > 1:
        words.pop()
    return " ".join(words)


def prompt_table(data: TextData, tokenizer: Any, seed: int, signs: Tensor) -> Tensor:
    """Draw prompts of signs.

    Args:
        data: the dataset of images, labels and splits.
        tokenizer: the model's tokenizer.
        seed: random seed of the draws.
        signs: indices of the signs that prompts are drawn for.

    Returns:
        Token ids int64 `[number of texts, PROMPTS_PER_SIGN, TOKENS]`; rows of signs not wanted stay 0.
    """
    table = torch.zeros(len(data.texts), PROMPTS_PER_SIGN, TOKENS, dtype=torch.int64)
    draw = random.Random(seed)
    for index in signs.unique().tolist():
        texts = [fitting_prompt(data.texts[index], tokenizer, draw) for _ in range(PROMPTS_PER_SIGN)]
        table[index] = encode(tokenizer, texts)
    return table
