"""Kills, corrupts and fuzzes the real command line, a thousand times, and counts what goes wrong.

    python tests/torture/run.py [TRIALS] [SEED]

Every try is a process of its own, a fork of this one that has the libraries already. Killed suites are
resumed and checked: what was finished before a kill must be there after it, byte for byte. Exit code 1 where
anything was lost, a traceback shown, a process hung, or something of this machine disclosed.
"""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(HERE.parent), str(ROOT)]

import fuzz  # noqa: E402
import psutil  # noqa: E402
import warm  # noqa: E402
import yaml  # noqa: E402

USER, HOME = "mallory-q-torture", "home-of-mallory"  # must be found nowhere in what is written
MEMORY = 8 * 2**30  # bytes of addresses beyond this process's own: who asks for more has no limit
QUICK_S, RUN_S = 60, 180  # a process that takes longer on an idle machine hangs
ID = ".machine-id"  # without it the records are another machine's: damaged, it is refused, see its test
NAMES = ("first", "second", "third")
KINDS = {"fuzz": 0.62, "corrupt": 0.2, "kill": 0.18}  # shares of the trials
CONFIGURATION = {
    "reuse_gate": {"entropy_threshold": 2.0, "snr_low": 0.1},
    "quantization": {"mode": "per_head"},
}
OUTCOMES = ("lost", "traceback", "hang", "leak")


@dataclass
class Torture:
    """The place where it happens, and what was counted."""

    work: Path
    rng: random.Random
    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)
    trace: bytes = b""  # of a policy's training

    @property
    def results(self) -> Path:
        """The records."""
        return self.work / HOME / "results"

    def run(self, tries: int) -> None:
        """So many trials, a line after every twenty."""
        kinds = self.rng.choices([*KINDS], [*KINDS.values()], k=tries)
        self.resume()
        if self.examples:
            raise SystemExit(f"the suite does not run at all: {self.examples}")
        for number, kind in enumerate(kinds, 1):
            before = sum(self.counts[name] for name in OUTCOMES)
            getattr(self, kind)()
            self.counts["trials"] += 1
            self.counts[kind] += 1
            self.counts["survived"] += before == sum(self.counts[name] for name in OUTCOMES)
            if number % 20 == 0:
                self.check_leaks()
                print(self.line(), flush=True)  # noqa: T201
        self.resume()
        self.check_leaks()

    def fuzz(self) -> None:
        """One command with an invalid input."""
        rng, file = self.rng, self.work / "fuzz.yaml"
        suite = yaml.safe_load((self.work / "tiny.yaml").read_text())
        kind = rng.choice(("suite", "shipped", "config", "plan", "model", "record", "trace", "line"))
        if kind == "line":
            self.bench(*fuzz.command_line(self.work, rng))
        elif kind in ("suite", "shipped"):
            if kind == "shipped":
                shipped = sorted((ROOT / "bench" / "suites").glob("*.yaml"))
                suite = yaml.safe_load(rng.choice(shipped).read_text())
            file.write_bytes(fuzz.as_yaml(suite, rng))
            self.bench("show", file)
        elif kind == "config":
            file.write_bytes(fuzz.as_yaml(CONFIGURATION, rng))
            self.bench("generate", "--dqar", file, "--model", self.work / "nowhere")
        elif kind == "plan":
            plan = rng.choice(sorted((ROOT / "bench" / "embedded" / "plans").glob("*.json")))
            (self.work / "plan.json").write_bytes(fuzz.as_json(yaml.safe_load(plan.read_text()), rng))
            run = {"name": "a", "method": "dqar", "options": {"plan_path": str(self.work / "plan.json")}}
            file.write_text(yaml.safe_dump(suite | {"runs": [run]}))
            self.bench("show", file)
        elif kind == "trace":
            (self.work / "trace.safetensors").write_bytes(fuzz.garbled(self.trace, rng))
            self.bench("policy", "train", "--trace", "trace.safetensors", "--out", self.work / "policy")
        elif kind == "model":
            shutil.rmtree(self.work / "odd", ignore_errors=True)
            shutil.copytree(self.work / "model", self.work / "odd")
            fuzz.corrupt(rng.choice(sorted((self.work / "odd").glob("**/*.json"))), rng)
            self.bench("generate", "--model", self.work / "odd", "--classes", "no-such-class")
        else:
            shutil.rmtree(self.work / "odd-results", ignore_errors=True)
            shutil.copytree(self.results, self.work / "odd-results", ignore=shutil.ignore_patterns(".cache"))
            records = sorted((self.work / "odd-results").glob("*/*/*.json"))
            if records:
                fuzz.corrupt(rng.choice(records), rng)
            command = rng.choice(
                (["validate"], ["compare", str(self.results)], ["report", "tiny.yaml", "--results"])
            )
            self.bench(*command, self.work / "odd-results")

    def corrupt(self) -> None:
        """A damaged file among the records; the others are still read, and a resume makes it again."""
        if not self.records():  # a kill left none, as it should
            self.resume()
        files = sorted(f for f in self.results.rglob("*") if f.is_file() and f.name != ID)
        victim = self.rng.choice(files)
        good = {path: text for path, text in self.records().items() if path.stem != victim.stem}
        way = fuzz.corrupt(victim, self.rng)
        self.bench(*self.rng.choice((("validate", self.results), ("report", "tiny.yaml", *self.places()))))
        self.expect_kept(good, f"{victim.name} {way}")
        self.resume()
        self.expect_kept(good, f"{victim.name} {way}, resumed")

    def kill(self) -> None:
        """A suite that is killed at some moment while it measures again what was removed."""
        records = [*self.records()]
        for path in self.rng.sample(records, self.rng.randint(min(1, len(records)), len(records))):
            path.unlink()
        good = self.records()
        process = self.start("run", "tiny.yaml", *self.places())
        time.sleep(self.rng.uniform(0.0, 2.5))
        meanwhile = self.records()
        process.send_signal(self.rng.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)))
        self.finish(process, QUICK_S, "killed run", killed=True)
        self.expect_kept(good | meanwhile, "killed")
        if orphans := [p for p in psutil.process_iter() if self.is_worker(p)]:
            psutil.wait_procs(orphans, timeout=10)
            for orphan in filter(psutil.Process.is_running, orphans):
                self.note("hang", f"a worker outlives its parent: {orphan.pid}")
                orphan.kill()
        if self.rng.random() < 0.5:
            self.resume()
            self.expect_kept(good | meanwhile, "killed, resumed")

    def resume(self) -> None:
        """Run the suite to its end: every configuration has a valid record then."""
        code = self.bench("run", "tiny.yaml", *self.places(), limit=RUN_S)
        names = sorted(path.name.rpartition("-")[0] for path in self.records())
        if code != 0 or names != sorted(NAMES):
            self.note("lost", f"a resume ended with {code} and {names}: {self.errors()}")
        if self.bench("validate", self.results) not in (0, 1):
            self.note("lost", "validate fails")

    def records(self) -> dict[Path, bytes]:
        """The records that are there, by path."""
        files = self.results.glob("tiny/*/*.json")
        return {path: path.read_bytes() for path in files if path.is_file() and not path.is_symlink()}

    def expect_kept(self, good: dict[Path, bytes], when: str) -> None:
        """Note each record that is no longer what it was."""
        now = self.records()
        for path, content in good.items():
            if now.get(path) != content:
                self.note("lost", f"{path.name}: {when}")

    def check_leaks(self) -> None:
        """Whatever was written discloses neither the user, nor the home, nor where it happened."""
        for root in (self.results, self.work / "reports"):
            for file in root.rglob("*"):
                if file.is_file() and file.suffix in (".json", ".md", ".csv", ".png"):
                    content = file.read_bytes()
                    for private in (USER, HOME, str(self.work)):
                        if private.encode() in content:
                            self.note("leak", f"{private} in {file.name}")

    def places(self) -> tuple[object, ...]:
        """Where records and reports go."""
        return "--results", self.results, "--reports", self.work / "reports"

    def bench(self, *arguments: object, limit: int = QUICK_S) -> int | None:
        """The exit code of a command that is waited for; None where it hung."""
        return self.finish(self.start(*arguments), limit, " ".join(map(str, arguments))[:120])

    def start(self, *arguments: object) -> subprocess.Popen[bytes]:
        """A command in a process of its own."""
        command = [sys.executable, "-m", "bench", *map(str, arguments)]
        env = os.environ | {"USER": USER, "HOME": str(self.work / HOME), "OMP_NUM_THREADS": "1"}
        env |= {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
        out, err = ((self.work / name).open("wb") for name in ("out", "err"))
        with out, err:
            return subprocess.Popen(
                command, cwd=self.work, env=env, stdout=out, stderr=err, start_new_session=True
            )

    def finish(
        self, process: subprocess.Popen[bytes], limit: int, what: str, killed: bool = False
    ) -> int | None:
        """Wait for a command and judge how it ended; on a busy machine everything takes longer."""
        busy = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
        try:
            code: int | None = process.wait(limit * busy)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            code = None
            self.note("hang", what)
        errors = self.errors()
        if "Traceback" in errors or "Exception ignored" in errors:
            self.note("traceback", f"{what}: {errors[-300:]}")
        elif "out of memory" in errors or "can't allocate" in errors:
            self.note("hang", f"{what}: takes all memory: {errors[-300:]}")
        elif code is not None and (code < 0 or code not in (0, 1, 2, 130)) and not killed:
            self.note("traceback", f"{what}: exit code {code}")
        elif code == 2 and len(errors.strip().splitlines()) > 1 and not killed:
            self.note("several lines", f"{what}: {errors[:300]}")
        return code

    def errors(self) -> str:
        """What the last command wrote to stderr."""
        return (self.work / "err").read_text(errors="replace")

    def is_worker(self, process: psutil.Process) -> bool:
        """Whether it is one of a killed run's workers."""
        try:
            mine = process.cwd() == str(self.work) and process.pid != os.getpid()
            return bool(mine and process.status() != psutil.STATUS_ZOMBIE)
        except psutil.Error:
            return False

    def note(self, outcome: str, example: str) -> None:
        """Count a fault and keep some examples."""
        self.counts[outcome] += 1
        kept = self.examples.setdefault(outcome, [])
        if len(kept) < 10:
            kept.append(" ".join(example.split()))
            print(f"{outcome}: {kept[-1]}", flush=True)  # noqa: T201

    def line(self) -> str:
        """The counts in one line."""
        return " / ".join(f"{name} {self.counts[name]}" for name in ("trials", "survived", *OUTCOMES))


def prepare(work: Path) -> None:
    """A tiny model and a suite of three configurations that take a second together."""
    from conftest import build_tiny_pipeline

    (work / HOME).mkdir()
    build_tiny_pipeline().save_pretrained(work / "model")
    suite = {
        "title": "torture",
        "model": str(work / "model"),
        "num_inference_steps": 3,
        "batch_size": 1,
        "timing": {"min_pairs": 2, "max_pairs": 2, "warmup": 0},
        "quality": {"n": 2, "converged_n": 0, "extractor": None},
        "memory": False,
        "runs": [{"name": name, "method": "fewer_steps", "options": {"steps": 2}} for name in NAMES],
    }
    (work / "tiny.yaml").write_text(yaml.safe_dump(suite))


def trace() -> bytes:
    """A trace of four trajectories, as `python -m bench policy trace` writes it."""
    import torch
    from safetensors.torch import save

    rows, columns = torch.arange(64), {"features": torch.rand(64, 4), "layer": torch.arange(64) % 4}
    columns |= {"trajectory": rows // 16, "reuse_error": torch.rand(64), "final_reuse_error": torch.rand(64)}
    return save(columns, {"dqar_trace": "{}"})


def main() -> int:
    """Torture, print the counts, and exit with 1 where anything went wrong."""
    tries, seed = (int(value) for value in (*sys.argv[1:3], *("1000", "0")[len(sys.argv) - 1 :]))
    import torch

    torch.set_num_threads(1)
    warm.preload()
    subprocess.Popen = warm.WarmPopen  # type: ignore[misc]
    held = psutil.Process().memory_info().vms
    resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY, held + MEMORY))
    work = Path(tempfile.mkdtemp(prefix="torture-")).resolve()
    started = time.monotonic()
    torture = Torture(work, random.Random(seed))
    try:
        prepare(work)
        torture.trace = trace()
        torture.run(tries)
    except KeyboardInterrupt:
        print("interrupted")  # noqa: T201
    finally:
        shutil.rmtree(work, ignore_errors=True)
        report(torture, seed, time.monotonic() - started)
    return int(any(torture.counts[name] for name in OUTCOMES))


def report(torture: Torture, seed: int, seconds: float) -> None:
    """Print the counts."""
    kinds = ", ".join(f"{torture.counts[kind]} {kind}" for kind in KINDS)
    print(f"{torture.line()}\n{kinds}; seed {seed}, {seconds:.0f} s")  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
