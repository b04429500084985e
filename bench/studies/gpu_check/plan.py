"""The steps of the check, in order of importance: what matters most is known first, and within one call."""

from __future__ import annotations

import re
import subprocess
import sys

from bench.machine.provenance import ROOT
from bench.studies.gpu_check import embedded, identity, shapes, speed, whole
from bench.studies.gpu_check.rig import Rig
from bench.studies.gpu_check.step import Goal, Step, Value

CALL_S = 360  # of one call to a device
TOY_S = 3600  # of a trial on a CPU, which is no device's time


def tests(rig: Rig) -> dict[str, Value]:
    """Run `pytest -m cuda`, in a process of its own.

    Args:
        rig: not used: every step is given one.

    Returns:
        How many passed and failed, and the names of the failed.

    Raises:
        RuntimeError: pytest did not run the tests; with the last line that it printed.
    """
    command = [sys.executable, "-m", "pytest", "-q", "-m", "cuda", "tests/test_cuda.py"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):  # 1: tests failed
        lines = (done.stderr + done.stdout).strip().splitlines() or ["nothing printed"]
        raise RuntimeError(f"pytest ended with {done.returncode}: {lines[-1]}")
    last = (done.stdout.strip().splitlines() or ["nothing printed"])[-1]
    counts = {word: int(n) for n, word in re.findall(r"(\d+) (passed|failed|errors?|skipped)", last)}
    failed = re.findall(r"^FAILED \S*::(\S+)", done.stdout, re.MULTILINE)
    named: dict[str, Value] = {"names of the failed": ", ".join(failed)} if failed else {}
    return {"passed": counts.get("passed", 0), "failed": counts.get("failed", 0), **named} | {
        "skipped": counts.get("skipped", 0),
        "errors": counts.get("error", 0) + counts.get("errors", 0),
    }


# The limits of those up to FIRST fill one call, the start of their process included; the others take what is
# left of it.
FIRST = "int8"
STEPS: tuple[Step, ...] = (
    Step("identity", "reuse that is off or removed changes no bit, in bf16", 55, identity.identical, (
        Goal("off is identical", at_least=1), Goal("removed is identical", at_least=1),
    )),
    Step("syncs", "plans run where a host that waits is an error; how often gates wait", 25, identity.syncs, (
        Goal("plans run without a wait", at_least=1), Goal("gates, most", at_most=1),
    )),
    Step("compiled", "13 of 50 steps over the compiled baseline, batch 32", 105, speed.compiled, (
        Goal("speedup", at_least=2.5), Goal("share of that", at_least=0.95),
        Goal("MFU of the baseline", at_least=0.4),
    )),
    Step("graphs", "the same in CUDA graphs, batch 1", 85, speed.graphs, (
        Goal("share of that", at_least=0.8),
    )),
    Step("gate", "gate and entropy on, nothing reused, batch 32", 30, speed.gate, (
        Goal("speed", at_least=0.99),
    )),
    Step("int8", "the int8 cache: bytes, peaks, time", 60, speed.int8, (
        Goal("cache, 8 over 16 bits", at_most=0.51),
    )),
    Step("drift", "the class-conditional model: drift on the device over that on a CPU", 30, embedded.drift, (
        Goal("device over CPU", at_least=0.95), Goal("device over CPU", at_most=1.05),
    )),
    Step("drift-t2i", "the same of the text-to-image model", 30, embedded.text_drift, (
        Goal("device over CPU", at_least=0.95), Goal("device over CPU", at_most=1.05),
    )),
    Step("distance", "the class-conditional model: distance to real images", 40, embedded.distance),
    Step("competitors", "other caches and fewer steps, eager seconds, batch 32", 100, speed.competitors),
    Step("shapes", "SD3- and Flux-shaped transformers at 1024 x 1024", 90, shapes.shapes),
    Step("energy", "joules an image", 40, speed.energy),
    Step("whole", "13 of 50 steps, each generation one CUDA graph, batch 1", 60, whole.whole, (
        Goal("identical", at_least=1), Goal("share of that", at_least=0.8),
    )),
    Step("tests", "pytest -m cuda", 150, tests, (Goal("failed", at_most=0), Goal("errors", at_most=0))),
    Step("regional", "13 of 50 steps, each repeated block compiled once, batch 32", 200, speed.regional, (
        Goal("share of that", at_least=0.9),
    )),
    Step("max-autotune", "the same under max-autotune, batch 32", 240, speed.autotuned, (
        Goal("share of that", at_least=0.95),
    )),
)  # fmt: skip


def chosen(names: list[str]) -> list[Step]:
    """Choose steps by name.

    Args:
        names: names of steps; empty: all.

    Returns:
        The steps in the check's order.

    Raises:
        KeyError: one is unknown.
    """
    known = {step.name: step for step in STEPS}
    for name in names:
        if name not in known:
            raise KeyError(name)
    return [step for step in STEPS if not names or step.name in names]
