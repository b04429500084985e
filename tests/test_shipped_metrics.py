"""Metrics of the shipped models: the READMEs repeat them, and what measures them is right."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from bench.embedded import extractor, metrics_file, recognition, shipped
from bench.embedded.classes import CLASSES
from bench.embedded.text_to_image.emoji import Sign
from bench.embedded.train import app

pytestmark = pytest.mark.filterwarnings("ignore")

ROW = re.compile(
    r"\| samples at guidance ([\d.]+) to (held-out images|half of them) \| ([\d.]+) \| (\S+) / (\S+) \|"
)
TRIAL = re.compile(r"([\d.]+) at ((?:[\d.]+)(?: and at [\d.]+)?)[,.]")
KEYS = {"held-out images": "samples to held-out", "half of them": "samples to held-out, n of a half"}
NAMES = {spec.name: label for label, spec in enumerate(CLASSES)}


@pytest.fixture(autouse=True)
def threads() -> Any:
    """The training's command line sets torch's threads, which other tests have as they were."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def metrics(model: str) -> dict[str, Any]:
    """What the model's metrics.json holds."""
    found: dict[str, Any] = json.loads((metrics_file.DIRECTORIES[model] / "metrics.json").read_text())
    return found


@pytest.mark.parametrize("model", shipped.MODELS)
def test_the_readme_repeats_the_distances_with_their_numbers_of_images(model: str) -> None:
    """Each row at another guidance is the measured distance, with n; the stated ratio is of equal n."""
    text = (metrics_file.DIRECTORIES[model] / "README.md").read_text(encoding="utf-8")
    values = metrics(model)
    found = ROW.findall(text)
    assert len(found) >= 2
    for guidance, what, distance, *numbers in found:
        measured = values["distance_at"][guidance][KEYS[what]]
        assert float(distance) == pytest.approx(measured["fd"], abs=0.0051)
        assert [int(n.replace(",", "")) for n in numbers] == measured["n"]
    best = values["distance_at"][f"{shipped.GUIDANCE[model]:g}"]
    ours, real = best["samples to held-out, n of a half"], best["halves of held-out"]
    assert ours["n"] == real["n"]
    (ratio,) = re.findall(r"of\s+as\s+many\s+images,\s+it\s+is\s+([\d.]+)\s+times", text)
    assert float(ratio) == pytest.approx(ours["fd"] / real["fd"], abs=0.0051)


def test_the_readme_repeats_what_other_guidance_gives() -> None:
    """The text model's distances at every guidance that was tried, and those of its autoencoder alone."""
    text = re.sub(
        r"\s+", " ", (metrics_file.DIRECTORIES["embedded-t2i"] / "README.md").read_text(encoding="utf-8")
    )
    trials = metrics("embedded-t2i")["distance_trials"]
    shown = {at: value for value, places in TRIAL.findall(text) for at in places.split(" and at ")}
    assert shown == {at: f"{trials[at]:.2f}" for at in ("1", "1.5", "2", "2.5", "3", "4")}
    assert f"to the other half | {trials['autoencoder alone']:.2f} | 250 / 250 |" in text


def test_the_readme_repeats_how_many_samples_are_recognised() -> None:
    """Every class's share and that over all, of real images and of both models' samples."""
    text = (metrics_file.HERE / "README.md").read_text(encoding="utf-8").split("## Recognition")[1]
    dit, t2i = (metrics(model)["recognised"] for model in shipped.MODELS)
    measured = (dit["real"], dit["4"], t2i["3"])
    real, *sampled = ({"all": each, **each["classes"]} for each in measured)
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    shown = {cells[0]: cells[1:] for cells in rows}
    for name in (*NAMES, "all"):
        shares = [f"{100 * each[name]['share']:.0f} %" for each in (real, *sampled)]
        assert shown[name] == [f"{shares[0]} of {real[name]['n']}", *shares[1:]], name
    assert {each[name]["n"] for each in sampled for name in NAMES} == {8}


def test_real_images_are_recognised_and_mislabelled_ones_are_not() -> None:
    """The discriminant knows 80 % of held-out images; under the next class's label hardly any."""
    real = recognition.real()
    assert real == metrics("embedded")["recognised"]["real"]
    assert real["share"] > 0.8 and real["n"] == 470
    features, labels = extractor.reference_features("heldout"), extractor.reference_labels("heldout")
    assert recognition.recognised(features, (labels + 1) % len(CLASSES))["share"] < 0.1


@pytest.mark.parametrize(
    ("names", "kind", "expected"),
    [
        (("waving hand",), "hand fingers open", "hand"),
        (("polar bear",), "animal mammal", "animal face"),
        (("ram",), "animal mammal", "animal"),
        (("grapes",), "food fruit", "fruit"),
        (("toast",), "food prepared", None),
        (("family man boy",), "family", "family sign"),
        (("bust in silhouette",), "family", None),
    ],
)
def test_signs_belong_to_the_class_that_takes_them(
    names: tuple[str, ...], kind: str, expected: str | None
) -> None:
    """By subcategory, and where the class narrows it by names; most food is of no class."""
    sign = Sign(names, (), kind)
    assert [spec.name for spec in CLASSES if recognition.belongs(sign, spec)] == [expected] * bool(expected)


@pytest.mark.slow
def test_recognition_samples_every_class_and_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each class is sampled, and what is measured later or evaluated again drops nothing of it."""
    monkeypatch.setattr(shipped, "STEPS", {"embedded": 2})
    monkeypatch.setattr(metrics_file, "DIRECTORIES", {"embedded": tmp_path})
    (tmp_path / "metrics.json").write_text('{"guidance": 4.0}')
    values = shipped.recognition("embedded", tmp_path, each=1, guidance=1.5)
    assert set(values["classes"]) == set(NAMES) and values["n"] == len(CLASSES)
    metrics_file.add("embedded", "recognised", "4", {})
    metrics_file.put("embedded", "extractor_accuracy_heldout", 0.5)
    metrics_file.write(tmp_path, {"guidance": 3.0})
    kept = json.loads((tmp_path / "metrics.json").read_text())
    assert kept["guidance"] == 3.0 and kept["recognised"]["1.5"] == values
    assert kept["extractor_accuracy_heldout"] == 0.5
    assert set(kept["recognised"]) == {"1.5", "4", "real"}


@pytest.mark.parametrize(
    ("command", "error"),
    [
        (["distance", "--model", "sdxl"], "--model: 'sdxl'; allowed: embedded, embedded-t2i"),
        (["distance", "--samples", "1"], "--samples: 1; allowed: 2 or more"),
        (["recognise", "--each", "0"], "--each: 0; allowed: 1 or more"),
    ],
)
def test_bad_options_are_refused_by_name(command: list[str], error: str, tmp_path: Path) -> None:
    """One line, before a model or the data are loaded."""
    done = CliRunner().invoke(app, [*command, "--work", str(tmp_path)])
    assert str(done.exception) == error
