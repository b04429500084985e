"""The shipped text-to-image model, its scorer and the pieces that trained them."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline, StableDiffusion3Pipeline
from safetensors.torch import load_file
from transformers import CLIPTokenizer

import dqar
from bench import embedded
from bench.embedded.data import VENDORS
from bench.embedded.text_to_image import emoji, evaluate, mmdit, mmdit_training, prompts, scorer
from dqar import DQARConfig

pytestmark = pytest.mark.filterwarnings("ignore")

# Names of signs from many subcategories, first in the dataset's own order: none chosen for its images.
SAMPLED = (
    "red heart",
    "grinning face",
    "broken heart",
    "green apple",
    "purple heart",
    "eight o clock",
    "full moon",
    "police car",
    "blue circle",
    "red square",
    "flag japan",
    "cat face",
    "evergreen tree",
    "sunflower",
    "crying face",
    "stop sign",
)


@pytest.fixture(scope="module")
def pipe() -> Any:
    pipeline = embedded.load_text_pipeline()
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def generate(pipe: Any, texts: list[str], seed: int = 0, **options: Any) -> torch.Tensor:
    """Latents of `texts` after six steps."""
    options = {"num_inference_steps": 6, "max_sequence_length": 1, "output_type": "latent", **options}
    images: torch.Tensor = pipe(texts, generator=torch.Generator().manual_seed(seed), **options).images
    return images


def test_the_directory_is_a_stock_pipeline() -> None:
    """diffusers' generic loader finds Stable Diffusion 3's pipeline, given that there is no T5."""
    loaded: Any = DiffusionPipeline.from_pretrained(
        embedded.TEXT_MODEL_DIR, local_files_only=True, text_encoder_3=None, tokenizer_3=None
    )
    assert type(loaded) is StableDiffusion3Pipeline and loaded.text_encoder_3 is None
    loaded.set_progress_bar_config(disable=True)
    image = loaded("red heart", num_inference_steps=2, output_type="np").images
    assert image.shape == (1, 64, 64, 3) and image.min() >= 0 and image.max() <= 1


def test_prompts_matter_and_seeds_repeat(pipe: Any) -> None:
    """The same seed repeats the latents to the bit; another prompt, or order of words, changes them."""
    first = generate(pipe, ["red heart"])
    assert torch.equal(first, generate(pipe, ["red heart"]))
    assert not torch.allclose(first, generate(pipe, ["grinning face"]), atol=0.1)
    assert not torch.equal(first, generate(pipe, ["heart red"]))


@pytest.mark.parametrize(
    "change", [{"entropy_threshold": 0.0}, {"warmup_steps": 1000}, {"layer_fraction": 0.0}]
)
def test_nothing_reusable_is_bit_identical(pipe: Any, change: dict[str, Any]) -> None:
    """A configuration that forbids every reuse leaves the text-to-image latents bit-identical."""
    untouched = generate(pipe, ["red heart", "full moon"])
    dqar.enable(pipe, DQARConfig.preset("maximum", **change))
    try:
        assert torch.equal(generate(pipe, ["red heart", "full moon"]), untouched)
        assert dqar.summary(pipe).ratio == 0
    finally:
        dqar.disable(pipe)


def test_disable_restores_the_pipeline(pipe: Any) -> None:
    """Reuse changes the latents; after `disable` they are bit-identical again, by the same processors."""
    untouched = generate(pipe, ["red heart", "full moon"])
    processors = [block.attn.processor for block in pipe.transformer.transformer_blocks]
    dqar.enable(pipe, DQARConfig.preset("maximum"))
    try:
        assert not torch.equal(generate(pipe, ["red heart", "full moon"]), untouched)
    finally:
        dqar.disable(pipe)
    assert torch.equal(generate(pipe, ["red heart", "full moon"]), untouched)
    assert [block.attn.processor for block in pipe.transformer.transformer_blocks] == processors


@pytest.mark.slow
def test_samples_fit_their_own_prompt_better_than_others(pipe: Any) -> None:
    """The text score of a sample to its own prompt is above that to another one in 90 % of pairs."""
    texts = list(SAMPLED)
    images = evaluate.sample(pipe, texts, steps=14)
    scores = scorer.embed_images(images) @ scorer.embed_prompts(texts).T
    assert scorer.own_above_other(scores, texts) >= 0.9


@pytest.mark.slow
def test_the_number_of_zero_tokens_is_the_users_choice(pipe: Any) -> None:
    """The pipeline's default of 256 zero tokens in place of T5's gives images as fitting as one token."""
    texts = list(SAMPLED[:6])
    call: dict[str, Any] = {
        "num_inference_steps": 8,
        "output_type": "pt",
        "guidance_scale": evaluate.GUIDANCE,
    }
    scores = []
    for count in (1, 256):
        images = generate(pipe, texts, max_sequence_length=count, **call)
        scores.append(scorer.text_scores((images * 255).round().to(torch.uint8), texts).mean())
    assert scores[1] > scores[0] - 0.2


def test_files_are_small_and_half_precision() -> None:
    """The directory stays under 14 MB and both models together under 36 MB, in JSON and safetensors only."""
    files = [path for path in embedded.TEXT_MODEL_DIR.rglob("*") if path.is_file()]
    other = [path for path in embedded.MODEL_DIR.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".json", ".safetensors"}
    size, both = (sum(path.stat().st_size for path in each) for each in (files, files + other))
    assert size <= 14_000_000 and both <= 36_000_000
    for path in embedded.TEXT_MODEL_DIR.rglob("*.safetensors"):
        floats = [tensor for tensor in load_file(path).values() if tensor.is_floating_point()]
        assert {tensor.dtype for tensor in floats} == {torch.float16}


def test_both_models_share_the_autoencoder() -> None:
    """The autoencoder's weights are those of the class-conditional model to the byte."""
    name = Path("vae") / "diffusion_pytorch_model.safetensors"
    assert (embedded.TEXT_MODEL_DIR / name).read_bytes() == (embedded.MODEL_DIR / name).read_bytes()


def test_a_trained_tokenizer_reads_the_same_after_saving(tmp_path: Path) -> None:
    """The vocabulary's files and the saved tokenizer give the same ids; known words are one token."""
    texts = ["", "red heart", "Grinning face with big eyes", "café ☃ xyzzy"]
    prompts.write_tokenizer_files(["red heart", "grinning face with eyes", "big heart"] * 3, tmp_path)
    trained = prompts.load_tokenizer(tmp_path)
    trained.save_pretrained(tmp_path / "saved")
    saved = CLIPTokenizer.from_pretrained(tmp_path / "saved")
    ids = prompts.encode(trained, texts)
    assert torch.equal(prompts.encode(saved, texts), ids)
    start, end, rest = 0, 1, prompts.TOKENS - 4
    assert ids[0].tolist() == [start] + [end] * (prompts.TOKENS - 1)
    assert ids[1].tolist()[:1] == [start] and ids[1].tolist()[3:] == [end] * (rest + 1)


def test_both_encoders_read_the_same_tokens(pipe: Any) -> None:
    """The pipeline's two tokenizers and the scorer's agree, in letters of any case."""
    texts = ["", "red heart", "Grinning face with big eyes"]
    first, second, third = (
        prompts.encode(each, texts) for each in (pipe.tokenizer, pipe.tokenizer_2, scorer.tokenizer())
    )
    assert torch.equal(first, second) and torch.equal(first, third)


@torch.no_grad()
def test_one_weighted_token_stands_for_many_equal_ones() -> None:
    """Training's one zero token with weight m gives what the pipeline's attention gives with m of them."""
    torch.manual_seed(0)
    model = mmdit.new_mmdit()
    for parameter in model.parameters():
        parameter.normal_(std=0.2)
    latents, pooled, text = torch.randn(2, 4, 16, 16), torch.randn(2, 128), torch.randn(2, 15, 128)
    step = torch.tensor([300.0, 700.0])

    def zeros(count: int) -> torch.Tensor:
        return torch.nn.functional.pad(text, (0, 0, 0, count))

    stock = model(latents, encoder_hidden_states=zeros(37), pooled_projections=pooled, timestep=step)[0]
    weight = torch.full((2, 1, 1, 1), math.log(37))
    ours = mmdit_training.Denoise(model)(latents, step, zeros(1), pooled, weight)
    assert torch.allclose(ours, stock, atol=1e-3 * float(stock.abs().max()))


def test_the_velocity_leads_the_scheduler_to_the_image() -> None:
    """Euler steps along eps - x0, which training regresses, end at x0 from any noise."""
    image, noise = torch.randn(2, 1, 4, 16, 16).unbind()
    scheduler = mmdit.new_scheduler(shift=2.0)
    scheduler.set_timesteps(7)
    latents = noise
    for timestep in scheduler.timesteps:
        latents = scheduler.step(noise - image, timestep, latents).prev_sample
    assert torch.allclose(latents, image, atol=1e-5)


def test_prompts_are_one_to_twelve_words_and_are_not_cut_off() -> None:
    """Every drawn prompt has 1 to 12 words and its tokens fit, even where words are long and unknown."""
    tokenizer, draw = scorer.tokenizer(), random.Random(0)
    names = ("zxqjv kwpyz qqwjx zzkvj", "heart")
    sign = emoji.Sign(names, ("love", "very long keyword indeed it is"), "heart", "medium light skin tone")
    for _ in range(200):
        text = prompts.fitting_prompt(sign, tokenizer, draw)
        assert 1 <= len(text.split()) <= prompts.MAX_WORDS
        assert len(tokenizer(text).input_ids) <= prompts.TOKENS


def test_names_are_held_out_with_all_their_drawings_and_drawings_without_their_names() -> None:
    """A held-out sign is held out of both vendors; of one in twelve others a single vendor's drawing is."""
    held = {"1F600"}
    assert {emoji.split_of({"unified": "1F600"}, held, vendor) for vendor in VENDORS} == {"names"}
    splits = [
        {emoji.split_of({"unified": f"{code:X}"}, held, vendor) for vendor in VENDORS}
        for code in range(0x1F601, 0x1F680)
    ]
    assert all(split in ({"train"}, {"train", "drawings"}) for split in splits)
    assert 3 <= sum("drawings" in split for split in splits) <= 30


def test_words_are_plain_and_the_sign_keeps_its_own_names() -> None:
    """Accents, signs and case go; a keyword that is a name already is not repeated."""
    assert emoji.plain("Piñata: it's 5 O'Clock!") == "pinata its 5 oclock"
    entry = {"unified": "2764-FE0F", "name": "BLACK HEART", "short_names": ["heart"], "subcategory": "heart"}
    sign = emoji.sign_of(entry, {"❤": ["red_heart", "love", "heart", ":)"]})
    assert sign.names == ("red heart", "black heart", "heart") and sign.keywords == ("love",)


def test_pairs_with_equal_prompts_do_not_count() -> None:
    """Of the six ordered pairs of three images, the two of one prompt are no pairs; three of four are won."""
    scores = torch.tensor([[0.9, 0.9, 0.1], [0.5, 0.5, 0.7], [0.2, 0.2, 0.3]])
    assert scorer.own_above_other(scores, ["a", "a", "b"]) == 0.75


def test_scores_do_not_depend_on_the_batch() -> None:
    """An image's score is a cosine, the same alone and among others, in capitals and in small letters."""
    images = torch.randint(256, (5, 3, 64, 64), dtype=torch.uint8)
    texts = ["red heart", "full moon", "cat face", "flag japan", "Cat Face"]
    scores = scorer.text_scores(images, texts)
    assert scores.shape == (5,) and scores.abs().max() <= 1
    assert torch.allclose(scores[2:3], scorer.text_scores(images[2:3], ["CAT face"]), atol=1e-5)


@pytest.mark.parametrize(
    ("images", "texts", "error"),
    [
        (torch.zeros(1, 3, 64, 64), ["a"], "torch.float32"),
        (torch.zeros(1, 3, 32, 32, dtype=torch.uint8), ["a"], "(1, 3, 32, 32)"),
        (torch.zeros(2, 3, 64, 64, dtype=torch.uint8), ["a"], "prompts: 1"),
    ],
)
def test_wrong_images_and_counts_are_refused_by_name(
    images: torch.Tensor, texts: list[str], error: str
) -> None:
    """The message names the dtype, the shape or the number that was given."""
    with pytest.raises((TypeError, ValueError)) as caught:
        scorer.text_scores(images, texts)
    assert error in str(caught.value)


def test_unknown_split_is_refused_with_what_is_allowed() -> None:
    """The message lists the splits there are."""
    empty = torch.zeros(0, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"'validation'.*train.*names.*drawings"):
        emoji.TextData(empty, empty, empty, empty, ()).rows("validation")
