"""Ordinary mistakes and hostile files are one line and exit code 2: no traceback, no hang, nothing late."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from bench.cli import boundary
from bench.cli.main import app
from bench.errors import BadInput
from bench.pipeline import hub, models
from bench.run import preflight
from bench.spec.suite import Suite, available

ROOT = Path(__file__).parents[1]
SUITE = {"title": "t", "model": "embedded", "runs": [{"name": "a", "method": "baseline"}]}


def bench(*arguments: object) -> int:
    """The exit code of a command, run in this process as `python -m bench` runs it."""
    return boundary.guarded(lambda: app(args=[*map(str, arguments)], standalone_mode=False))


def text(**changes: object) -> str:
    return yaml.safe_dump(SUITE | changes)


def runs(**run: object) -> str:
    return text(runs=[{"name": "a", "method": "baseline"} | run])


def aliases() -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    return "\n".join(lines)


FILES = {
    "a space.yaml": (text(), "the name is not allowed"),
    "zwölf.yaml": (text(), "the name is not allowed"),
    "infinite-time.yaml": (text(timeout_s=float("inf")), "timeout_s: inf is not allowed"),
    "infinite-budget.yaml": (text(timing={"budget_s": float("inf")}), "timing.budget_s: inf is not allowed"),
    "infinite-guidance.yaml": (text(guidance_scale=float("inf")), "guidance_scale: inf is not allowed"),
    "nan.yaml": (runs(settings={"guidance_scale": float("nan")}), "guidance_scale: nan is not allowed"),
    "key.yaml": (text() + "5: x\n", "key 5 is not text"),
    "twice.yaml": (text() + "title: again\n", "key 'title' is there twice"),
    "digits.yaml": (text() + f"seed: {'9' * 5000}\n", "integer"),
    "seed.yaml": (text(seed=2**63), "seed: 9223372036854775808 is not allowed"),
    "deep.yaml": (text() + f"goals: {'[' * 5000}{']' * 5000}\n", "nested more than 64 levels deep"),
    "aliases.yaml": (aliases(), "nodes with its aliases expanded"),
    "grid.yaml": (runs(grid={"x": [*range(2001)]}), "2001 configurations are not allowed; allowed: 2000"),
    "grids.yaml": (runs(grid={f"x{i}": [*range(99)] for i in range(30)}), "configurations are not allowed"),
    "name.yaml": (runs(name="a" * 232), "at most 128 characters"),
    "long-grid.yaml": (runs(grid={"x": ["b" * 200]}), "at most 128 characters"),
    "preset.yaml": (runs(method="dqar", options={"preset": "x" * 5000}), "preset = 'xxx"),
    "type.yaml": (text(runs=5), "runs: 5 is not allowed"),
    "part.yaml": (text(timing=[1]), "timing: [1] is not allowed"),
    "list.yaml": ("- a\n", "a mapping is needed"),
    "empty.yaml": ("", "a mapping is needed"),
    "tag.yaml": ("!!python/object/apply:os.system [id]\n", "could not determine a constructor"),
    "bytes.yaml": ("\ud800", "not UTF-8"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_suite_that_cannot_be_is_one_line(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever is wrong with a suite file, `show` reports it at once in one short line and exits 2."""
    content, message = FILES[name]
    (tmp_path / name).write_bytes(content.encode(errors="surrogatepass"))
    started = time.process_time()
    assert bench("show", tmp_path / name) == 2
    line = capsys.readouterr().err
    assert message in line and line.count("\n") == 1 and len(line) < 600
    assert time.process_time() - started < 5


@pytest.mark.parametrize("kind", ["pipe", "device", "directory", "loop"])
def test_what_is_no_file_is_refused(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A pipe, a device, a directory or a link to itself in place of a suite, a record, a plan, a policy or a
    model's configuration is refused; nothing waits for it."""
    make: dict[str, Callable[[Path], object]] = {
        "pipe": os.mkfifo,
        "device": lambda path: path.symlink_to("/dev/zero"),
        "directory": Path.mkdir,
        "loop": lambda path: path.symlink_to(path),
    }
    places = [tmp_path / "s.yaml", tmp_path / "r" / "a.json", tmp_path / "m" / "model_index.json"]
    for place in places:
        place.parent.mkdir(exist_ok=True)
        make[kind](place)
    (tmp_path / "plan.yaml").write_text(runs(method="dqar", options={"plan_path": str(places[1])}))
    assert bench("show", places[0]) == 2
    assert bench("validate", tmp_path / "r") == 1
    assert bench("show", tmp_path / "plan.yaml") == 2
    assert bench("generate", "--model", tmp_path / "m", "--out", tmp_path / "out") == 2
    assert "0 of 1 records are" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "smoke", "--seed", "x"),
        ("run", "smoke", "--seed", "9" * 5000),
        ("run", "smoke", "--nope"),
        ("run",),
        ("generate", "--n", "1.5"),
        ("generate", "--guidance", "inf"),
        ("show", "x" * 10_000),
        ("validate", "x" * 10_000),
        ("compare", "\0", "x"),
    ],
)
def test_an_option_that_cannot_be_is_one_line(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """A wrong type, an unknown option, a missing argument and endless values: one line, at most 200
    characters of the value, exit code 2."""
    assert bench(*arguments) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and len(line) < 1000, line


def test_what_the_model_does_not_have_is_refused_before_anything_runs(
    tiny_suite: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Labels and steps that the model lacks, and a plan for other steps, end the run before a worker starts;
    every suite that ships passes."""
    plan = ROOT / "bench" / "embedded" / "plans"
    named = sorted(plan.glob("*.json"))[0].stem
    wrong = {
        "labels: 999 is not allowed; allowed: 0 to 21": text(labels=[3, 999]),
        "labels: 22 is not allowed": runs(settings={"labels": [22]}),
        "the plan is for": runs(method="dqar", options={"plan": named, "steps": 7}),
    }
    for message, content in wrong.items():
        (tmp_path / "s.yaml").write_text(content)
        assert bench("run", tmp_path / "s.yaml", "--results", tmp_path / "r") == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "r").exists()
    for name in available():
        suite = Suite.load(name)
        weights = "random" if models.is_hub_id(suite.file.model) else "trained"
        preflight.check_model([s.model_copy(update={"weights": weights}) for s in suite.configurations])


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A proxy that accepts every connection and sends nothing, in front of the hub."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        held: list[socket.socket] = []

        def accept() -> None:
            while True:
                try:
                    held.append(server.accept()[0])
                except OSError:
                    return

        threading.Thread(target=accept, daemon=True).start()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        yield


def test_a_silent_hub_is_given_up(silent: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A hub that sends nothing is waited for no longer than the limit, which is named; the process that
    waited is gone."""
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setattr(hub, "FIRST_S", 1.0)
    monkeypatch.setattr(hub, "SAY_S", 0.2)
    lines: list[str] = []
    started = time.monotonic()
    with pytest.raises(
        BadInput, match=r"model: 'owner/none' cannot be fetched: nothing arrived from the hub for 1 s"
    ):
        hub.fetch("owner/none", lines.append)
    assert time.monotonic() - started < 30
    assert lines and lines[0].startswith("fetching owner/none: 0 MB in ")


def test_a_hub_that_cannot_be_reached_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where nothing listens, the reason is the client's own, in one line."""
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(BadInput, match="model: 'owner/none' cannot be fetched: ") as error:
        models.directory("owner/none")
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


# What runs, in which environment, and the exit code. `show` loads torch; `list` takes a third of the time.
ENVIRONMENTS: dict[str, tuple[str, dict[str, str | None], int]] = {
    "no home": ("{} show smoke", {"HOME": None}, 0),
    "a home that is not there": ("{} list", {"HOME": "/nonexistent/home"}, 0),
    "no temporary directory": ("{} show smoke", {"TMPDIR": "/nonexistent"}, 0),
    "a full disk": ("{} list > /dev/full", {}, 2),
    "a closed stdout": ("{} list >&-", {}, 0),
    "a reader that leaves": ("{} list | true", {}, 1),
    "few file descriptors": ("ulimit -n 16; {} show smoke", {}, 0),
}


@pytest.mark.everyday("a home that is not there", "a full disk", "a closed stdout", "a reader that leaves")
@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_a_machine_in_a_bad_state_gets_no_traceback(name: str) -> None:
    """Whatever the environment lacks, a command works or names in one line what it lacks."""
    command, changes, code = ENVIRONMENTS[name]
    env = {key: value for key, value in (os.environ | changes).items() if value is not None}
    shell = f"set -o pipefail; {command.format(f'{sys.executable} -m bench')}"
    done = subprocess.run(
        ["bash", "-c", shell], cwd=ROOT, env=env, capture_output=True, text=True, timeout=200
    )
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr, done.stderr
    assert done.returncode in (0, code, 2), done.stderr
    assert len(done.stderr.splitlines()) <= 1


def test_ctrl_c_while_libraries_load_is_one_line() -> None:
    """An interrupt in the first seconds, while imports run, ends the command with 130 and one line."""
    code = (
        "import runpy, signal, sys\n"
        "class Interrupts:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == sys.argv[1]: signal.raise_signal(signal.SIGINT)\n"
        "sys.meta_path.insert(0, Interrupts())\n"
        "runpy.run_module('bench', run_name='__main__')\n"
    )
    for module in ("typer", "pydantic", "bench.cli.main", "bench.spec.suite"):
        command = [sys.executable, "-c", code, module]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200)
        assert (done.returncode, done.stderr) == (130, "interrupted: run it again to resume\n"), module


def test_ctrl_c_that_comes_out_of_a_library_as_another_error_is_one_line() -> None:
    """An interrupt while a command imports what it needs may end as an ImportError or a panic of compiled
    code; it is still an interrupt."""
    code = (
        "import signal, sys; from bench import interrupts; from bench.cli.boundary import guarded\n"
        "class Panic(BaseException): pass\n"
        "def run():\n"
        "    try: signal.raise_signal(signal.SIGINT)\n"
        "    except KeyboardInterrupt: raise {'panic': Panic, 'import': ImportError}[sys.argv[1]]('broken')\n"
        "interrupts.interruptible(); sys.exit(guarded(run))\n"
    )
    for kind in ("panic", "import"):
        command = [sys.executable, "-c", code, kind]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200)
        assert (done.returncode, done.stderr) == (130, "interrupted: run it again to resume\n"), kind


def test_a_killed_probe_leaves_nothing(tmp_path: Path) -> None:
    """Killed while it tests whether results can be written, the store leaves no file behind."""
    code = (
        "import os, signal, sys; from pathlib import Path; from bench.store import records\n"
        "records.os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)\n"
        "records.Store(Path(sys.argv[1]), 's', 'm').prepare()"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT)
    assert done.returncode == -signal.SIGKILL
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
