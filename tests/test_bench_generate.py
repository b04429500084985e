"""Images for people to look at: files, grid, classes by name, and mistakes in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from bench.cli.main import app


def generate(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["generate", "--steps", "4", *map(str, arguments)])


def test_images_and_their_grid(tiny_model_dir: Path, tmp_path: Path) -> None:
    """Each image is a file, all of them a grid; DQAR makes others and reports what it reused, and the
    same seed untouched makes the same ones again."""
    images = {}
    for name, more in {"one": [], "two": [], "reused": ["--dqar", "maximum"]}.items():
        done = generate("--model", tiny_model_dir, "--n", 3, "--out", tmp_path / name, *more)
        assert done.exit_code == 0, done.output
        images[name] = [(tmp_path / name / f"{i:04d}.png").read_bytes() for i in range(3)]
        with (
            Image.open(tmp_path / name / "grid.png") as grid,
            Image.open(tmp_path / name / "0000.png") as one,
        ):
            assert grid.size == (2 * one.width, 2 * one.height)
        assert ("attention calls reused" in done.output) == (name == "reused")
    assert images["one"] == images["two"]
    assert images["one"] != images["reused"]


def test_classes_by_number(tiny_model_dir: Path, tmp_path: Path) -> None:
    """Another class with the same seed is another image."""
    samples = set()
    for label in (0, 1):
        directory = tmp_path / str(label)
        arguments = ("--model", tiny_model_dir, "--n", 1, "--classes", label, "--out", directory)
        assert generate(*arguments).exit_code == 0
        samples.add((directory / "0000.png").read_bytes())
    assert len(samples) == 2


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--classes", "9999"], ["--classes", "'9999'", "allowed: 0 to"]),
        (["--dqar", "best"], ["--dqar", "'best'", "recommended", ".yaml"]),
        (["--dqar", "none.yaml"], ["--dqar", "none.yaml"]),
        (["--model", "nowhere"], ["model", "'nowhere'", "allowed"]),
    ],
)
def test_mistakes_are_one_line(
    tiny_model_dir: Path, tmp_path: Path, arguments: list[str], named: list[str]
) -> None:
    """An unknown class, preset, file or model is one line and exit code 2, and writes nothing."""
    done = generate("--model", tiny_model_dir, "--out", tmp_path / "out", *arguments)
    assert done.exit_code == 2
    line = done.stderr.strip().splitlines()[-1]
    assert all(part in line for part in named), line
    assert not (tmp_path / "out").exists()
