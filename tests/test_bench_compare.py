"""Comparing directories and revisions of records: verdicts, reasons and exit codes."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from bench import stats
from bench.cli.main import app
from bench.errors import BadInput
from bench.record import SCHEMA_VERSION, Record
from bench.report.compare import compared, exit_code
from bench.store import keys, validation
from bench.store.records import Store


def write(directory: Path, speedup: float, width: float = 0.005, **changes: Any) -> Path:
    """One record in `directory` with that speedup, its ratios spread over twice `width`, and as many seconds
    of the candidate; `changes`: machine, model, steps, status, name, fid, reference."""
    machine = changes.get("machine", "m")
    inputs = {"machine": machine, "model": changes.get("model", "w")}
    inputs |= {"reference": changes["reference"]} if "reference" in changes else {}
    config = {"steps": changes.get("steps", 50)}
    pairs = [(float(ratio) ** 2, float(ratio)) for ratio in np.linspace(speedup - width, speedup + width, 9)]
    timing = stats.timed(pairs, len(pairs), 0.02, seed=0)._asdict() | {
        "pairs": pairs, "contaminated": [], "contaminated_why": [], "baseline": "eager", "batch_size": 1,
        "stopped": "target",
    }  # fmt: skip
    status = changes.get("status", "ok")
    record = Record.model_validate(
        {
            "key": keys.key_of(config, inputs), "suite": "tiny", "method": "dqar",
            "name": changes.get("name", "run"), "config": config, "status": status,
            "reason": None if status == "ok" else "out of memory",
            "environment": {"machine": machine, "inputs": inputs},
            "timing": timing if status == "ok" else None,
            "quality": quality(changes["fid"]) if "fid" in changes else None,
        }
    )  # fmt: skip
    Store(directory, "tiny", machine).write(record)
    return directory


def quality(fid: float) -> dict[str, Any]:
    """With a FID of 50 images."""
    some = {"mean": 0.1, "low": 0.1, "high": 0.1}
    distance = {
        "fd": fid, "kid": some, "precision": 0.5, "recall": 0.5, "n": 50, "n_reference": 50,
        "extractor": "inception-v3-compat", "reference": "r",
    }  # fmt: skip
    return {
        "n": 1, "drift": some, "drift_per_image": [0.1], "psnr_db": some, "ssim": some, "lpips": some,
        "drift_converged": None, "baseline_drift_converged": None, "n_converged": 0, "missing": {},
        "to_reference": distance, "to_baseline": None, "identical": False, "latents_sha256": "",
        "worst": [], "image": None,
    }  # fmt: skip


def test_a_fid_is_compared_under_its_full_name(tmp_path: Path) -> None:
    """A FID of few images carries n and bias into the comparison, and is comparable only to one
    against a reference of the same contents; a speedup is comparable all the same."""
    a, b = (write(tmp_path / name, 1.2, fid=fid, reference="x") for name, fid in (("a", 9.0), ("b", 12.0)))
    (row,) = compared(a, b, "quality.to_reference.fd", 0.02, cross_machine=False)
    assert row.verdict == "WORSE"
    assert row.why.endswith("FID (inception-v3-compat, n = 50, biased)")
    (row,) = compared(a, b, "quality.to_reference.recall", 0.02, cross_machine=False)
    assert row.verdict == "SAME"
    c = write(tmp_path / "c", 1.2, fid=9.0, reference="y")
    (row,) = compared(a, c, "quality.to_reference.fd", 0.02, cross_machine=False)
    assert (row.verdict, row.why) == ("NOT COMPARED", "the contents of reference differ")
    assert compared(a, c, "timing.speedup", 0.02, cross_machine=False)[0].verdict == "SAME"


@pytest.mark.parametrize(
    ("after", "verdict", "code"),
    [
        ({"speedup": 1.2}, "SAME", 0),
        ({"speedup": 1.4}, "FASTER", 0),
        ({"speedup": 1.0}, "SLOWER", 1),
        ({"speedup": 1.25, "width": 0.2}, "AMBIGUOUS", 2),
        ({"speedup": 1.2, "status": "failed"}, "FAILED", 1),
        ({"speedup": 1.2, "machine": "n"}, "NOT COMPARED", 2),
        ({"speedup": 1.2, "model": "v"}, "NOT COMPARED", 2),
        ({"speedup": 1.2, "steps": 25}, "NOT COMPARED", 2),
        ({"speedup": 1.2, "name": "other"}, "NOT COMPARED", 2),
    ],
)
def test_verdicts(tmp_path: Path, after: dict[str, Any], verdict: str, code: int) -> None:
    """Each change gets its verdict, a reason, and the exit code that CI can act on."""
    a, b = write(tmp_path / "a", 1.2), write(tmp_path / "b", **after)
    rows = compared(a, b, "timing.speedup", 0.02, cross_machine=False)
    assert rows[0].verdict == verdict
    assert rows[0].why
    assert exit_code(rows) == code


def test_machines_may_differ_if_asked(tmp_path: Path) -> None:
    """--cross-machine compares what was measured on two machines."""
    a, b = write(tmp_path / "a", 1.2), write(tmp_path / "b", 1.2, machine="n")
    assert exit_code(compared(a, b, "timing.speedup", 0.02, cross_machine=True)) == 0


def test_less_is_better_for_seconds(tmp_path: Path) -> None:
    """For a metric that is better lower, growth is a regression."""
    a, b = write(tmp_path / "a", 1.0), write(tmp_path / "b", 1.5)
    rows = compared(a, b, "timing.candidate_s", 0.02, cross_machine=False)
    assert rows[0].verdict == "SLOWER"


@pytest.mark.parametrize("metric", ["timing.speedpu", "speed", "timing.speedup.median.x"])
def test_an_unknown_metric_is_named(tmp_path: Path, metric: str) -> None:
    """A metric that no record has is one line, with the fields there are."""
    a = write(tmp_path / "a", 1.2)
    with pytest.raises(BadInput, match="allowed"):
        compared(a, a, metric, 0.02, cross_machine=False)


def test_nothing_to_compare(tmp_path: Path) -> None:
    """A directory without any record cannot be compared."""
    a = write(tmp_path / "a", 1.2)
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match="empty: no records"):
        compared(a, tmp_path / "empty", "timing.speedup", 0.02, cross_machine=False)


def older(directory: Path) -> Path:
    """Make the record in `directory` one of the schema before this, with a field of its own."""
    (path,) = validation.files(directory)
    content = json.loads(path.read_text()) | {"schema_version": SCHEMA_VERSION - 1, "bygone": 1}
    path.write_text(json.dumps(content))
    return directory


def test_invalid_records_are_not_excluded_silently(tmp_path: Path) -> None:
    """An older schema's record and a truncated one have their rows, which state why, and exit 2."""
    a, b, c = (write(tmp_path / name, 1.2) for name in "abc")
    (cut,) = validation.files(c)
    cut.write_text(cut.read_text()[:-100])
    (old,) = compared(older(a), b, "timing.speedup", 0.02, cross_machine=False)
    schema = f"schema {SCHEMA_VERSION - 1}, but this harness reads {SCHEMA_VERSION}"
    assert (old.verdict, old.why) == ("NOT COMPARED", f"could not compare: A: {schema}")
    both = compared(a, c, "timing.speedup", 0.02, cross_machine=False)
    assert both[0].why == f"could not compare: A: {schema}; B: truncated, or not JSON"
    assert exit_code([old]) == exit_code(both) == 2


def test_each_machine_is_compared_with_itself(tmp_path: Path) -> None:
    """Of records of two machines, each is compared with the same machine's of the other side."""
    a, b = (write(write(tmp_path / name, 1.2), 2.0, machine="n") for name in "ab")
    write(b, 1.0)
    rows = compared(a, b, "timing.speedup", 0.02, cross_machine=False)
    assert {row.name: row.verdict for row in rows} == {"tiny/run (m)": "SLOWER", "tiny/run (n)": "SAME"}


@pytest.fixture
def history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, a git repository: records committed as `fast`, then as `slow`."""
    repository = tmp_path / "repository"
    for tag, speedup in (("fast", 1.4), ("slow", 1.2)):
        write(repository / "results", speedup)
        for command in (["init", "-q"], ["add", "."], ["commit", "-qm", tag], ["tag", tag]):
            identity = ["-c", "user.name=t", "-c", "user.email=t@localhost", "-c", "commit.gpgsign=false"]
            subprocess.run(["git", *identity, *command], cwd=repository, check=True)
    monkeypatch.chdir(repository)
    return repository


def run(*arguments: object) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["compare", *map(str, arguments)])
    return done.exit_code, done.output


def test_commits_are_compared(history: Path) -> None:
    """Revisions stand for the records committed in them, whatever lies in the work tree since."""
    write(history / "results", 1.0)
    code, message = run("fast", "HEAD")
    assert (code, "1.4 [" in message, "1.2 [" in message, "SLOWER" in message) == (1, True, True, True)
    assert run("HEAD", "fast")[0] == 0
    code, message = run("fast", "results")
    assert (code, "1 [" in message) == (1, True)
    assert run("fast:results/tiny", "fast")[0] == 0


def test_a_revision_is_found_from_a_directory_below(history: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A revision's records are those at the top of the repository, wherever one stands in it."""
    (history / "below").mkdir()
    monkeypatch.chdir(history / "below")
    assert run("slow", "slow")[0] == 0


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("fats", "compare: fats: no such directory, nor a revision of git; allowed: either"),
        ("fast:reports", "compare: fast:reports: no directory reports/ in that revision; needed"),
    ],
)
def test_a_place_that_is_neither_is_named(history: Path, place: str, message: str) -> None:
    """What is no directory and no revision, or a revision without records, is one line and exit 2."""
    code, output = run("fast", place)
    assert code == 2
    assert output.startswith(message)
    assert len(output.strip().splitlines()) == 1
