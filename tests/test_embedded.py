"""The shipped model, its feature extractor and the pieces that trained them."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from bench import embedded
from bench.embedded import classes, data, dit, evaluate, export, extractor, loop, vae
from bench.embedded.classes import NULL_CLASS

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def pipe() -> Any:
    pipeline = embedded.load_pipeline()
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def generate(pipe: Any, labels: list[int], seed: int = 0) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    images: torch.Tensor = pipe(labels, generator=draw, num_inference_steps=6, output_type="pt").images
    return images


@pytest.mark.slow
def test_the_stock_pipeline_paints_every_named_class(pipe: Any) -> None:
    """An image of every class name comes out, in range, finite, and no two classes alike."""
    images = generate(pipe, pipe.get_label_ids(list(embedded.CLASSES)))
    assert images.shape == (len(embedded.CLASSES), 3, 64, 64)
    assert float(images.min()) >= 0 and float(images.max()) <= 1 and images.isfinite().all()
    assert float(torch.pdist(images.flatten(1)).min()) > 1


def test_labels_matter_and_seeds_repeat(pipe: Any) -> None:
    """The same seed repeats the image to the bit; another label changes it."""
    first = generate(pipe, [9])
    assert torch.equal(first, generate(pipe, [9]))
    assert not torch.allclose(first, generate(pipe, [10]), atol=0.05)


def test_the_model_has_the_shape_that_the_pipeline_and_dqar_need(pipe: Any) -> None:
    """12 layers, explicit output channels, the null class 1000 learned, unused labels zeroed."""
    config = pipe.transformer.config
    assert (config.num_layers, config.out_channels, config.num_embeds_ada_norm) == (12, 4, 1000)
    for block in pipe.transformer.transformer_blocks:
        table = block.norm1.emb.class_embedder.embedding_table.weight
        assert table[len(embedded.CLASSES) : NULL_CLASS].abs().max() == 0
        assert table[NULL_CLASS].abs().max() > 0


def test_the_shipped_files_are_small_half_precision_safetensors() -> None:
    """The directory stays under 26 MB and holds JSON and safetensors only."""
    files = [path for path in embedded.MODEL_DIR.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".json", ".safetensors"}
    assert sum(path.stat().st_size for path in files) <= 26_000_000


def test_class_names_are_those_of_the_training_code() -> None:
    """`id2label` of the directory lists the classes in the order that training numbered them."""
    assert tuple(spec.name for spec in classes.CLASSES) == embedded.CLASSES


def test_id2label_survives_saving(tmp_path: Path) -> None:
    """`save_pretrained` drops the labels; the export puts them back."""
    (tmp_path / "model_index.json").write_text('{"_class_name": "DiTPipeline"}')
    export.write_labels(tmp_path)
    labels = json.loads((tmp_path / "model_index.json").read_text())["id2label"]
    assert labels["9"] == "clock"


def test_registering_twice_changes_nothing() -> None:
    """torch-fidelity refuses a second registration; ours makes sure there is none."""
    assert extractor.register() == extractor.register() == extractor.EXTRACTOR


def test_torch_fidelity_accepts_the_extractor() -> None:
    """FD of a set of images against itself is 0 through `calculate_metrics`."""
    import torch_fidelity

    images = torch.randint(256, (120, 3, 64, 64), dtype=torch.uint8)
    dataset = [image for image in images]
    metrics = torch_fidelity.calculate_metrics(
        input1=_Images(dataset),
        input2=_Images(dataset),
        feature_extractor=extractor.register(),
        fid=True,
        cuda=False,
        cache=False,
        verbose=False,
    )
    assert abs(metrics["frechet_inception_distance"]) < 1e-3


class _Images(torch.utils.data.Dataset[torch.Tensor]):
    def __init__(self, images: list[torch.Tensor]) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.images[index]


def test_features_do_not_depend_on_the_batch() -> None:
    """An image's features are the same alone and among others, and fit the documented shape."""
    images = torch.randint(256, (5, 3, 64, 64), dtype=torch.uint8)
    features = extractor.extract(images)
    assert features.shape == (5, extractor.FEATURES) and features.dtype == torch.float32
    assert torch.allclose(features[3:4], extractor.extract(images[3:4]), atol=1e-5)


def test_features_distinguish_held_out_classes() -> None:
    """Nearest class mean of the training features names most held-out images (chance: 5 %)."""
    train, labels = extractor.reference_features("train"), extractor.reference_labels("train")
    means = torch.stack([train[labels == label].mean(dim=0) for label in labels.unique()])
    nearest = torch.cdist(extractor.reference_features("heldout"), means).argmin(dim=1)
    hits = (nearest == extractor.reference_labels("heldout")).float().mean()
    assert hits > 0.6


@pytest.mark.slow
def test_samples_are_nearer_to_their_class_than_to_others(pipe: Any) -> None:
    """The extractor puts generated clocks and flags nearer to real ones of their own class."""
    train, labels = extractor.reference_features("train"), extractor.reference_labels("train")
    wanted = torch.tensor([9] * 6 + [10] * 6)
    features = extractor.extract(evaluate.sample(pipe, wanted, guidance=4.0, steps=10))
    means = torch.stack([train[labels == label].mean(dim=0) for label in (9, 10)])
    assert (torch.cdist(features, means).argmin(dim=1) + 9).eq(wanted).float().mean() > 0.8


@pytest.mark.parametrize(
    ("images", "error"),
    [
        (torch.zeros(1, 3, 64, 64), "torch.float32"),
        (torch.zeros(1, 3, 32, 32, dtype=torch.uint8), "(1, 3, 32, 32)"),
    ],
)
def test_wrong_images_are_refused_by_name(images: torch.Tensor, error: str) -> None:
    """The message names the dtype or shape that was given."""
    with pytest.raises((TypeError, ValueError)) as caught:
        extractor.extract(images)
    assert error in str(caught.value)


def test_unknown_split_is_refused_with_what_is_allowed() -> None:
    """The message lists the splits there are."""
    with pytest.raises(ValueError, match=r"'validation'.*heldout.*train"):
        extractor.reference_features("validation")


def test_variants_of_a_sign_stay_on_one_side() -> None:
    """Sexes and skins of one sign share the key that the split is made by."""
    cook = {data.sign_key(f"{who}-200D-1F373") for who in ("1F468", "1F469-1F3FD", "1F9D1")}
    assert cook == {"1F373"}


def test_folding_gives_unit_latents_and_keeps_the_images() -> None:
    """After folding, latents have mean 0 and std 1 a channel, and reconstructions are unchanged."""
    torch.manual_seed(0)
    model = vae.new_vae().eval()
    images = torch.randint(256, (4, 3, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        before = model.decode(vae.encode(model, images)).sample
        vae.fold_scale(model, vae.encode(model, images))
        latents = vae.encode(model, images)
        assert torch.allclose(model.decode(latents).sample, before, atol=1e-4)
    assert latents.mean(dim=(0, 2, 3)).abs().max() < 1e-4
    assert (latents.std(dim=(0, 2, 3)) - 1).abs().max() < 1e-4


def test_a_saved_autoencoder_names_no_path_of_this_machine(tmp_path: Path) -> None:
    """Training that goes on from the shipped one saves it again, with where it was loaded from."""
    vae.load_shipped().save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert saved["_name_or_path"] == "bench/embedded/model/vae"


def test_a_killed_training_run_continues_as_if_unbroken(tmp_path: Path) -> None:
    """Weights after 4 + 4 steps with a restart between equal those after 8 steps."""

    def run(directory: Path, stops: tuple[int, ...]) -> torch.Tensor:
        for stop in stops:
            torch.manual_seed(0)
            model = nn.Linear(3, 1)
            trainer = loop.Trainer(
                model=model,
                loss=functools.partial(_loss, model),
                budget=_StopAt(minutes=1, steps=8, stop=stop),
                checkpoint=directory / "part.pt",
                learning_rate=0.1,
            )
            trainer.run()
        return model.weight.detach()

    assert torch.equal(run(tmp_path / "broken", (4, 8)), run(tmp_path / "whole", (8,)))


def _loss(model: nn.Module, step: int) -> torch.Tensor:
    inputs = torch.randn(8, 3, generator=loop.seeded(0, step))
    mean: torch.Tensor = model(inputs).square().mean()
    return mean


class _StopAt(loop.Budget):
    """A budget that ends early, as a kill after a checkpoint does."""

    def __init__(self, *, stop: int, **budget: Any) -> None:
        super().__init__(**budget)
        self.stop = stop

    def fraction(self) -> float:
        return 1.0 if self.step >= self.stop else super().fraction()


def test_a_pause_does_not_eat_the_budget() -> None:
    """A step that took 1000 times as long as the others counts as three of them."""
    budget = loop.Budget(minutes=1)
    for duration in [5.0, *[0.1] * 20, 100.0]:
        budget.count(duration)
    assert budget.spent_s == pytest.approx(20 * 0.1 + 0.3, abs=0.2)


def test_training_looks_most_at_timesteps_where_signal_and_noise_are_alike() -> None:
    """Timesteps are drawn one from each slice of shares that favour a log-SNR near 0 and leave none out."""
    signal = dit.new_scheduler().alphas_cumprod
    shares = dit.timestep_shares(signal)
    near = torch.logit(signal).abs() < 2
    assert float(shares.sum()) == pytest.approx(1.0, abs=1e-5)
    assert float(shares.min()) >= dit.UNIFORM_SHARE / 1000 * 0.999
    assert float(shares[near].sum()) > 1.8 * float(near.float().mean())
    drawn = dit.stratified_timesteps(torch.Generator().manual_seed(0), shares)
    slices = (shares.cumsum(0)[drawn] - shares[drawn] / 2) * dit.BATCH
    assert bool((slices.floor() - torch.arange(dit.BATCH)).abs().max() <= 1)
    assert 0.55 < float(near[drawn].float().mean()) < 0.75
