"""`doctor`: each thing that may be lacking has its line, and what is lacking its reason."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from bench.cli import doctor
from bench.cli.main import app
from bench.machine import device, nvml
from bench.spec.external_files import LPIPS_FILES


def test_what_is_lacking_has_a_reason() -> None:
    """No check fails without a reason, and those of files name the option that gives them."""
    checks = {check.what: check for check in doctor.checks()}
    assert all(check.why for check in checks.values() if not check.there)
    for what in ("NVML", "energy", "Inception", "LPIPS", "ADM", "host memory"):
        assert any(what in name for name in checks), what
    output = CliRunner().invoke(app, ["doctor"]).output
    assert all(check.what in output for check in checks.values())


def test_it_lists_what_it_would_do_on_cuda() -> None:
    """Without a device too: the suite's runs, batches, precisions and baselines, and what random weights
    leave out."""
    check = doctor.on_cuda()
    assert check.there == torch.cuda.is_available()
    for words in ("batch 1, 4, 32, 128", "bf16 and fp16", "compiled with CUDA graphs", "skipped", "-m cuda"):
        assert words in check.why, words


def test_the_weights_of_lpips_are_looked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """LPIPS needs two files: each one that lacks is named, with the option that gives them."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    own, vgg = LPIPS_FILES
    assert own in doctor.lpips().why and vgg in doctor.lpips().why
    directory = tmp_path / "hub" / "checkpoints"
    directory.mkdir(parents=True)
    (directory / own).touch()
    assert not doctor.lpips().there
    assert own not in doctor.lpips().why and "--lpips-weights" in doctor.lpips().why
    (directory / vgg).touch()
    assert doctor.lpips().there


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without a device")
def test_energy_without_a_device_and_with_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Energy is there where the counter answers, and its lack has a reason."""
    assert doctor.energy() == (False, "energy (NVML)", "no CUDA device")
    monkeypatch.setattr(nvml, "energy_j", lambda: 12.5)
    assert doctor.energy().there


@pytest.mark.parametrize(
    ("flags", "native"), [("fma avx2 avx512f", False), ("avx2 avx512_bf16", True), ("amx_bf16", True)]
)
def test_bfloat16_is_native_where_the_cpu_has_instructions_for_it(
    monkeypatch: pytest.MonkeyPatch, flags: str, native: bool
) -> None:
    """The doctor, and the training's autocast, go by the instruction sets that the system lists."""
    monkeypatch.setattr(device, "device_type", lambda: "cpu")
    monkeypatch.setattr(Path, "read_text", lambda self: f"processor: 0\nflags\t\t: fpu {flags} vme\n")
    assert device.has_bfloat16() is native
