"""Files for quality that cannot be used are named in one line before anything runs."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bench.errors import BadInput
from bench.methods import timesteps
from bench.run.preflight import check
from bench.spec import external_files
from bench.spec.run_spec import RunSpec
from bench.spec.settings import QualitySettings
from dqar.evaluation.metrics import _inception
from dqar.policy.mlp_policy import ABOUT, WEIGHTS, ReusePolicy

Make = Callable[[Path], object]


def refused(**given: str) -> str:
    with pytest.raises(BadInput) as caught:
        check(QualitySettings(**given))  # type: ignore[arg-type]
    line = str(caught.value)
    assert "\n" not in line and "; allowed: " in line
    return line


@pytest.mark.parametrize("field", ["inception_weights", "reference", "lpips_weights"])
def test_files_that_are_not_there(field: str) -> None:
    """A path that does not exist is named with its field."""
    assert refused(**{field: "/nowhere/x"}).startswith(f"quality.{field}: '/nowhere/x': does not exist")


def sample(path: Path, side: int = 64) -> Path:
    path.parent.mkdir(exist_ok=True)
    Image.new("RGB", (side, side)).save(path)
    return path


def npz(**arrays: np.ndarray) -> Make:
    return lambda path: np.savez(path, **arrays)  # type: ignore[arg-type]


PIXELS = np.zeros((4, 64, 64, 3), np.uint8)
MU, SIGMA = np.zeros(2048), np.zeros((2048, 2048), np.float32)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.mkdir(), "no images in it; allowed: .png, "),
        (lambda path: [sample(path / "a.png"), sample(path / "b.png", 32)], "of one size"),
        (lambda path: [sample(path / "a.png")], "it holds 1 images; needed: 4 or more"),
        (lambda path: [sample(path / f"{i}.png", 32) for i in range(4)], "images of (32, 32); without"),
        (
            lambda path: [sample(path / "a.png"), (path / "b.gif").touch()],
            "b.gif: images of this format are",
        ),
        (lambda path: os.mkfifo(sample(path / "a.png").with_name("b.png")), "b.png is no regular file"),
        (os.mkfifo, "is no regular file"),
        (npz(arr_0=PIXELS[:0]), "it holds 0 images; needed: 4 or more"),
        (lambda path: [path.mkdir(), (path / "a.png").write_text("x")], "a.png is not readable"),
        (lambda path: path.write_text("no archive"), "File is not a zip file"),
        (npz(other=PIXELS), "its keys are other"),
        (npz(arr_0=PIXELS.astype(np.float32)), "arr_0 is float32 (4, 64, 64, 3)"),
        (npz(arr_0=np.array([{}])), "allow_pickle"),
        (npz(mu=MU[:96], sigma=SIGMA[:96, :96]), "mu is (96,), sigma (96, 96); needed: (2048,)"),
        (npz(mu=MU * np.nan, sigma=SIGMA), "not finite"),
        (npz(mu=MU, sigma=SIGMA), "needed: inception_weights"),
    ],
)
def test_references_that_cannot_be_used(tmp_path: Path, make: Make, message: str) -> None:
    """Directories without images of one size, broken files, wrong keys, types and shapes, and
    statistics without Inception are each distinguished."""
    path = tmp_path / "ref.npz"
    make(path)
    assert message in refused(reference=str(path))


def test_weights_that_cannot_be_used(tmp_path: Path) -> None:
    """Broken files and weights of something else are refused, and so is a directory without VGG16."""
    broken, other = tmp_path / "broken.pth", tmp_path / "other.pth"
    broken.write_text("no weights")
    torch.save({"a": torch.zeros(1)}, other)
    assert "quality.inception_weights" in refused(inception_weights=str(broken))
    assert "Missing key(s)" in refused(inception_weights=str(other))
    assert "a file is missing" in refused(lpips_weights=str(tmp_path))
    for name in external_files.LPIPS_FILES:
        torch.save({"a": torch.zeros(1)}, tmp_path / name)
    hub = torch.hub._hub_dir
    assert "Missing key(s)" in refused(lpips_weights=str(tmp_path))
    assert torch.hub._hub_dir == hub, "a look into the directory changed where torch looks for weights"


def test_weights_that_would_run_code_are_refused(tmp_path: Path) -> None:
    """A file that is more than tensors is not unpickled."""

    torch.save({"a": Path("x")}, tmp_path / "code.pth")
    assert "inception_weights" in refused(inception_weights=str(tmp_path / "code.pth"))


@pytest.mark.parametrize("file", [WEIGHTS, ABOUT])
def test_a_policys_content_is_part_of_the_key(tmp_path: Path, file: str) -> None:
    """A record that one policy made does not stand for another in the same directory."""
    ReusePolicy().save(tmp_path)
    options = {"use_learned_policy": True, "policy_path": str(tmp_path)}
    spec = RunSpec(suite="tiny", name="run", method="dqar", model="embedded", options=options)
    before = external_files.plan(spec)
    assert external_files.plan(spec) == before
    (tmp_path / file).write_bytes((tmp_path / file).read_bytes() + b" ")
    assert external_files.plan(spec) != before


def test_the_content_of_timesteps_that_ship_is_part_of_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A search that is run again under the same name makes other records."""
    monkeypatch.setattr(timesteps, "FILES", tmp_path)
    options = {"scheduler": "unipc", "timesteps": "found"}
    keys = []
    for found in ([900, 0], [800, 0]):
        (tmp_path / "found.json").write_text(json.dumps({"timesteps": found}))
        spec = RunSpec(suite="tiny", name="run", method="fewer_steps", model="embedded", options=options)
        keys.append(external_files.plan(spec)["timesteps"])
    assert keys[0] != keys[1]


def test_weights_that_are_a_pipe_are_not_waited_for(tmp_path: Path) -> None:
    """`compute_fid` names a pipe in place of Inception's weights at once."""
    os.mkfifo(tmp_path / "pipe.pth")
    with pytest.raises(ValueError, match="inception_weights = "):
        _inception(tmp_path / "pipe.pth")
