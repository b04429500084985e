"""The commands as a user runs them: what they write, what they say, how they exit."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from bench.cli import options
from bench.cli.main import app
from bench.run.estimate import estimate
from bench.spec.suite import Suite
from bench.store import validation

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.usefixtures("warm_processes", "undrawn")


def bench(*arguments: object, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bench", *map(str, arguments)],
        cwd=cwd, capture_output=True, text=True, timeout=250,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


def test_run_report_validate_compare(tiny_suite: Path, tmp_path: Path) -> None:
    """A run leaves a record and a report; a corrupted record is named and made again, a valid one
    with --force alone; the other commands read what was written."""
    places = ("--results", tmp_path / "results", "--reports", tmp_path / "reports")
    done = bench("run", tiny_suite, *places)
    assert done.returncode == 0, done.stderr
    assert "half" in done.stdout
    (path,) = validation.files(tmp_path / "results")
    assert (tmp_path / "reports" / "tiny" / "README.md").exists()
    for file in (path, tmp_path / "reports" / "tiny" / "README.md"):
        assert str(tmp_path) not in file.read_text()
        assert str(ROOT) not in file.read_text()

    text, written = path.read_text(), path.stat().st_mtime_ns
    path.write_text(text[:-100])
    checked = bench("validate", tmp_path / "results")
    assert checked.returncode == 1
    assert f"{path}: truncated" in checked.stdout

    assert bench("run", tiny_suite, *places).returncode == 0
    assert path.stat().st_mtime_ns > written
    written = path.stat().st_mtime_ns
    assert bench("run", tiny_suite, *places, "--force").returncode == 0
    assert path.stat().st_mtime_ns > written
    assert bench("validate", tmp_path / "results").returncode == 0
    nowhere = ("--results", str(tmp_path / "results"), "--reports", str(tiny_suite / "below-a-file"))
    refused = CliRunner().invoke(app, ["report", str(tiny_suite), *nowhere])
    assert refused.exit_code == 2
    assert refused.output.startswith("reports: ") and len(refused.output.splitlines()) == 1
    metric = ("--metric", "quality.drift")
    same = bench("compare", tmp_path / "results", tmp_path / "results", *metric)
    assert same.returncode == 0, same.stdout + same.stderr
    assert "SAME" in same.stdout


@pytest.mark.parametrize("name", ["control", "reproduce"])
def test_a_study_is_reported_by_its_own_page(name: str, tmp_path: Path) -> None:
    """`report` writes the page that the study's command wrote, byte for byte, from the committed records."""
    done = bench("report", name, "--results", "results/published", "--reports", tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / name / "README.md").read_bytes() == Path("reports", name, "README.md").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "embeded"), "suite 'embeded': no such suite; allowed: auto, "),
        (("run", "smoke", "--only", "x"), "--only: 'x' is not a run; allowed: baseline"),
        (("run", "smoke", "--model", "/nowhere"), "model: '/nowhere' is no directory; allowed"),
        (
            ("run", "control"),
            "run: 'control' is not allowed; allowed: its own command, python -m bench control",
        ),
        (
            ("run", "prompt-length"),
            "run: 'prompt-length' is not a suite; allowed: its own command, python -m bench prompt-length",
        ),
        (("run", "gpu-check", "--seed", "1"), "its own command, python -m bench gpu-check"),
        (("run", "gpu-check", "--keep-images", "x"), "its own command, python -m bench gpu-check"),
        (("run", "smoke", "--seed", "-1"), "seed: -1 is not allowed"),
        (
            ("run", "smoke", "--reference", "/nowhere"),
            "quality.reference: '/nowhere': does not exist; allowed",
        ),
        (("run", "smoke", "--lpips-weights", "bench"), "quality.lpips_weights: 'bench': a file is missing"),
        (("report", "smoke", "--results", "/nowhere"), "no valid records"),
        (("run", "smoke", "--results", "LICENSE/x"), "results: LICENSE/x/smoke/"),
        (("validate", "/nowhere"), "/nowhere: no such directory"),
        (("compare", "/nowhere", "/nowhere"), "/nowhere: no such directory"),
    ],
)
def test_bad_input_is_one_line(arguments: tuple[str, ...], message: str) -> None:
    """Bad input is one line on stderr that names it and what is allowed, and exit code 2."""
    done = bench(*arguments)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_run_starts_the_check_of_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """`run gpu-check` is the command gpu-check, which states in one line that there is no device."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert bench("run", "gpu-check").stderr.startswith("gpu-check: torch finds no CUDA device; allowed")


def test_doctor_and_lists_show_what_there_is() -> None:
    """`doctor` names what cannot be measured and why; `show` counts a suite's runs."""
    checks = CliRunner().invoke(app, ["doctor"])
    assert checks.exit_code == 0, checks.output
    assert "CUDA" in checks.output
    assert "undisturbed timing" in checks.output
    assert "smoke" in CliRunner().invoke(app, ["list"]).output


def test_show_prints_grid_count_and_time() -> None:
    """`show` has a line for each configuration of the grid, how many there are, and how long they take."""
    shown = CliRunner().invoke(app, ["show", "snr"]).output
    assert all(f"from-snr_low={low} " in shown for low in (0.0, 0.01, 0.1, 1.0))
    assert re.search(r"7 runs of at least \d pairs; about [\d.]+ to [\d.]+ (min|h) on \d+ CPU cores?", shown)


STUDIES = ("layer-fraction", "warmup", "entropy", "snr", "adaptive", "gate", "ablations", "memory")


def test_the_studies_are_done_within_an_hour() -> None:
    """What a machine with two cores has to run for all studies takes no longer than that."""
    suites = [Suite.load(name) for name in (*STUDIES, "reproduce", "quality")]
    assert sum(estimate(suite.configurations).low for suite in suites) < 60 * 60


@pytest.mark.skipif(torch.cuda.is_available(), reason="on a CUDA device `auto` is another suite")
def test_auto_measures_every_model_that_ships() -> None:
    """Without a device `auto` means a suite of each embedded model, and a single one its first."""
    names = options.all_chosen("auto")
    assert {Suite.load(name).file.model for name in names} == {"embedded", "embedded-t2i"}
    assert options.chosen("auto") == names[0] and options.all_chosen("gate") == ("gate",)
