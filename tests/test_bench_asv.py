"""asv: the benchmarks run and are stored without a path, and the gate sees what got slower, and only that."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from bench.cli import regression
from bench.cli.main import app
from bench.cli.regression import CONFIG
from bench.errors import BadInput
from bench.machine.provenance import ROOT
from bench.regression import check, config, gate
from bench.regression.environment import SERIES
from bench.regression.offline import make_offline
from bench.report.compare import Row

CHROMIUM = shutil.which("chromium")
KERNELS = r"kernels\.(Reference|Entropy)"


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two kernels' benchmarks of this commit, run by asv itself and published."""
    directory = tmp_path_factory.mktemp("asv")
    places = {
        "env_dir": directory / "env",
        "results_dir": directory / "results",
        "html_dir": directory / "html",
    }
    path = config.written(directory, **places)
    known = ("--machine", "here", "--os", "linux", "--arch", "x", "--cpu", "a cpu", "--num_cpu", "1")
    asv(path, "machine", *known, "--ram", "1", home=directory)
    given = (
        "-E", "here:same", "--set-commit-hash", "HEAD", "--machine", "here", "--append-samples", "--quick",
        "--launch-method", "forkserver",  # one import of torch for all benchmarks
    )  # fmt: skip
    asv(path, "run", *given, "--bench", KERNELS, home=directory)
    asv(path, "publish", home=directory)
    make_offline(directory / "html")
    return directory


def asv(config: Path, *arguments: str, home: Path) -> None:
    command = [sys.executable, "-m", "asv", "--config", str(config), *arguments]
    here = dict.fromkeys(("PYTHONPATH", "ASV_PYTHONPATH"), str(ROOT))
    env = {"HOME": str(home), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"} | here
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=env)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_results_are_stored_with_samples_and_without_a_path(stored: Path) -> None:
    """The series is named after Python's version, not its path, and every benchmark has samples."""
    (path,) = (stored / "results" / "here").glob("*-here-py*.json")
    assert str(Path(sys.executable).parent) not in path.read_text()
    commit = json.loads(path.read_text())["commit_hash"]
    values = gate.measured(path)
    assert commit.startswith(path.name[:8])
    assert len(values) == 5
    assert all(each.value and each.samples for each in values.values())
    assert gate.REFERENCE in values


@pytest.mark.slow
def test_pages_hold_every_series(stored: Path) -> None:
    """What is published has a page, and a graph for each benchmark."""
    assert (stored / "html" / "index.html").exists()
    graphs = {path.name for path in (stored / "html" / "graphs").rglob("*.json")}
    assert {"kernels.Entropy.time_entropy.json", f"{gate.REFERENCE}.json"} <= graphs


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None and "CI" not in os.environ, reason="no chromium: make browser")
def test_a_browser_shows_a_graph(stored: Path, tmp_path: Path) -> None:
    """Opened in a headless browser, without a network, a benchmark's page draws its graph. CI has one."""
    assert CHROMIUM, "no chromium: make browser"
    serve = partial(SimpleHTTPRequestHandler, directory=str(stored / "html"))
    with ThreadingHTTPServer(("127.0.0.1", 0), serve) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        page = f"http://127.0.0.1:{server.server_port}/#{gate.REFERENCE}"
        done = subprocess.run(
            [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
             "--disable-background-networking", "--disable-component-update", "--disable-sync",
             f"--user-data-dir={tmp_path}", "--virtual-time-budget=20000", "--dump-dom", page],
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        server.shutdown()
    assert re.search(r'<canvas[^>]*class="flot-base"', done.stdout), done.stdout[-2000:] + done.stderr[-2000:]
    assert "time_feed_forward" in done.stdout


@pytest.mark.slow
def test_the_pages_name_no_other_host(stored: Path) -> None:
    """Whatever a page loads lies next to it."""
    index = (stored / "html" / "index.html").read_text()
    assert not re.findall(r'<(?:script|link)[^>]*(?:src|href)="https?://', index)
    for name in re.findall(r'"(vendor/[^"]+)"', index):
        assert (stored / "html" / name).stat().st_size > 0


def verdicts(unchanged: str, planted: str) -> pd.DataFrame:
    """Two unchanged repetitions and a slowed one, of one benchmark and the reference benchmark."""
    yard = Row(gate.REFERENCE, "1", "1", "SAME", "")
    found = {"1": unchanged, "2": "SAME", check.PLANTED: planted}
    return check.table({name: [Row("t", "1", "2", verdict, ""), yard] for name, verdict in found.items()})


def test_the_check_of_the_gate_fails_on_an_alarm_or_a_miss(tmp_path: Path) -> None:
    """It holds only where the planted slowdown is caught and nothing else raises an alarm; its page states
    which."""
    assert check.holds(verdicts("AMBIGUOUS", "SLOWER"))
    assert not check.holds(verdicts("SLOWER", "SLOWER"))
    assert not check.holds(verdicts("SAME", "AMBIGUOUS"))
    page = check.write_report(verdicts("SLOWER", "AMBIGUOUS"), 1.2, "a machine", tmp_path).read_text()
    assert "raised 1 alarm, and a planted slowdown of 20% was caught in 0 of 1" in page


@pytest.mark.slow
def test_a_commit_compared_with_itself_is_the_same(stored: Path) -> None:
    """Equal samples are no regression; a commit without results is named."""
    (path,) = (stored / "results" / "here").glob("*-here-py*.json")
    commit = json.loads(path.read_text())["commit_hash"]
    rows = gate.compared(stored / "results", "here", commit, commit)
    assert gate.exit_code(rows) == 0
    with pytest.raises(BadInput, match="00000000: no results of here"):
        gate.compared(stored / "results", "here", commit, "0" * 40)


def as_if(stored: Path, directory: Path, *series: str, commit: str = "") -> str:
    """Store the fixture's results under other environments' names, and another commit's; its hash."""
    (path,) = (stored / "results" / "here").glob("*-here-py*.json")
    content = json.loads(path.read_text())
    content["commit_hash"] = commit or content["commit_hash"]
    (directory / "here").mkdir(exist_ok=True)
    for name in series:
        (directory / "here" / f"{content['commit_hash'][:8]}-{name}.json").write_text(json.dumps(content))
    return str(content["commit_hash"])


@pytest.mark.slow
def test_only_the_same_environment_is_compared(stored: Path, tmp_path: Path) -> None:
    """Of a commit stored under two Pythons the one that the other commit has is compared, this one's first;
    without a common one nothing is, with 2, and files that asv did not write are refused."""
    old, both = "1" * 40, "2" * 40
    as_if(stored, tmp_path, "here-py2.7", commit=old)
    as_if(stored, tmp_path, "here-py2.7", SERIES, commit=both)
    new = as_if(stored, tmp_path, SERIES)
    assert gate.exit_code(gate.compared(tmp_path, "here", both, new)) == 0
    assert gate.exit_code(gate.compared(tmp_path, "here", old, both)) == 0
    with pytest.raises(BadInput, match=f"the base is of here-py2.7, the new commit of {SERIES}: values of"):
        gate.compared(tmp_path, "here", old, new)
    with pytest.raises(BadInput, match=f"--environment: 'x' has not both; allowed: {SERIES}"):
        gate.compared(tmp_path, "here", both, new, "x")
    for text in ("[" * 100_000, "{}", "[]", "no JSON"):
        (tmp_path / "here" / f"22222222-{SERIES}.json").write_text(text)
        with pytest.raises(BadInput, match="not readable as asv's results"):
            gate.compared(tmp_path, "here", both, new)


@pytest.mark.slow
def test_pages_are_made_on_any_branch_and_hold_no_script(stored: Path, tmp_path: Path) -> None:
    """In a repository without a branch called main the pages are made; what a benchmark's code or a machine's
    name holds is text there, and nothing but files next to the page may run."""
    repo, results = tmp_path / "repo", tmp_path / "results"
    git = ["git", "-C", str(repo), "-c", "user.name=a", "-c", "user.email=a@b.c"]
    subprocess.run(["git", "init", "-q", "-b", "topic", str(repo)], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "first"], check=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
    shutil.copytree(stored / "results", results)
    for file in (results / "here").glob("*-here-py*.json"):
        file.unlink()
    as_if(stored, results, SERIES, commit=commit)
    benchmarks = json.loads((results / "benchmarks.json").read_text())
    benchmarks[gate.REFERENCE]["code"] = "<img src=x onerror=alert(1)>"
    (results / "benchmarks.json").write_text(json.dumps(benchmarks))
    places = {
        "repo": repo,
        "results_dir": results,
        "html_dir": tmp_path / "html",
        "env_dir": tmp_path / "env",
    }
    asv(config.written(tmp_path, **places), "publish", home=stored)
    make_offline(tmp_path / "html")
    assert (tmp_path / "html" / "graphs").is_dir()
    assert "<img" not in (tmp_path / "html" / "index.json").read_text()
    page = (tmp_path / "html" / "index.html").read_text()
    assert "script-src 'self';" in page and "onerror" not in page
    assert not re.findall(r"<script[^>]*>\s*[^<\s]", page)


def test_pages_that_cannot_be_made_leave_those_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where asv fails, nothing of the pages that are there is deleted, and the exit code shows it."""
    pages = tmp_path / "pages"
    pages.mkdir()
    (pages / "kept.html").write_text("kept")
    monkeypatch.setattr(regression, "PAGES", pages)
    monkeypatch.setattr(regression, "STORED", ())
    changes = {"results_dir": tmp_path / "none", "env_dir": tmp_path / "env"}
    monkeypatch.setattr(regression, "CONFIG", config.written(tmp_path, **changes))
    assert CliRunner().invoke(app, ["asv", "html"]).exit_code == 1
    assert [file.name for file in pages.iterdir()] == ["kept.html"]
    assert not list(tmp_path.glob(".pages*"))


def samples(rng: np.random.Generator, seconds: float) -> list[float]:
    """Three passes of twelve samples: the machine's speed differs between passes, each sample scatters."""
    speeds = np.exp(rng.normal(0, 0.02, 3)).repeat(12)
    return list(seconds * speeds * np.exp(np.abs(rng.standard_t(3, 36)) * 0.03))


def test_a_slowdown_of_a_fifth_is_caught_and_no_change_is_no_alarm() -> None:
    """In ten repetitions each: 20 % slower is SLOWER every time, unchanged never, also on a machine
    that is itself 15 % slower the second time, which the reference benchmark shows."""
    rng = np.random.default_rng(0)
    for speed in (1.0, 1.15):
        for _ in range(10):
            before, yard = (gate.Measured(x[0], x) for x in (samples(rng, 1.0), samples(rng, 1.0)))
            after = {s: samples(rng, s * speed) for s in (1.0, 1.2)}
            yard_after = gate.Measured(speed, samples(rng, speed))
            run = {
                s: gate.rows({"t": before, gate.REFERENCE: yard}, {"t": m, gate.REFERENCE: yard_after})
                for s, m in ((s, gate.Measured(x[0], x)) for s, x in after.items())
            }
            assert gate.exit_code(run[1.0]) == 0
            assert gate.exit_code(run[1.2]) == 1


def test_what_is_not_a_time_is_compared_as_it_is() -> None:
    """More bytes are worse, fewer better; what failed since is a failure; what is gone is not compared."""
    one, more = gate.Measured(100.0, None), gate.Measured(110.0, None)
    failed = gate.Measured(None, None)
    cases = {"WORSE": (one, more), "BETTER": (more, one), "SAME": (one, one), "FAILED": (one, failed)}
    for verdict, (a, b) in cases.items():
        (row,) = gate.rows({"track": a}, {"track": b})
        assert row.verdict == verdict
    (row,) = gate.rows({"track": one}, {})
    assert row.verdict == "NOT COMPARED"
    assert gate.exit_code([row]) == 2


def test_what_was_not_asked_for_is_no_failure() -> None:
    """asv stores nan for parameters that were not chosen: they are left out, and what failed stays."""

    class Found:
        get_all_result_keys = staticmethod(lambda: ["t"])
        get_result_params = staticmethod(lambda key: [["'a'", "'b'", "'c'"]])
        get_result_value = staticmethod(lambda key, params: [1.0, float("nan"), None])
        get_result_samples = staticmethod(lambda key, params: [[1.0, 1.1], None, None])

    assert dict(gate._entries(Found())) == {
        "t('a')": gate.Measured(1.0, [1.0, 1.1]),
        "t('c')": gate.Measured(None, None),
    }


def test_asv_measures_this_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever checkout is installed, the benchmarks import the one whose commit names the results."""
    given: list[dict[str, str]] = []

    def run(command: list[str], check: bool, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
        given.append(env)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", run)
    regression._asv(CONFIG, "publish")
    assert given[0]["ASV_PYTHONPATH"] == str(ROOT)


def test_a_dirty_tree_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Results of changed files would be stored under a commit that does not hold them."""
    monkeypatch.setattr("bench.machine.provenance.git", lambda: {"commit": "0" * 40, "dirty": True})
    done = CliRunner().invoke(app, ["asv", "run"])
    assert done.exit_code == 2
    assert "the tree is dirty" in done.stderr
