"""`python -m bench.studies.gpu_check.worker`: runs steps one after another; each leaves its result.

The parent (`supervisor`) names them on the command line and kills this process where one takes too long.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import traceback
from pathlib import Path

from bench.machine import provenance
from bench.machine.files import write_atomic
from bench.machine.process import die_with
from bench.machine.scrub import scrub
from bench.studies.gpu_check.plan import chosen
from bench.studies.gpu_check.rig import FULL, TOY, Rig
from bench.studies.gpu_check.step import Step, StepResult


def run(step: Step, rig: Rig, toy: bool, environment: dict[str, object]) -> StepResult:
    """Measure one step; what it raises is its failure and no other step's.

    Args:
        step: the step that is asked about.
        rig: the loaded model and the scale of the check.
        toy: whether the scale is a CPU's.
        environment: versions and state of the machine, kept with the result.

    Returns:
        The result.
    """
    start = time.perf_counter()
    result = StepResult(
        step=step.name, title=step.title, status="ok", toy=toy, seconds=0.0, environment=environment
    )
    try:
        result.values = step.measure(rig)
    except Exception as error:
        result.status, line = "failed", f"{type(error).__name__}: {error}"
        result.reason = scrub(" ".join(line.split()))[:500]
        traceback.clear_frames(error.__traceback__)
        sys.stderr.write(scrub(traceback.format_exc()))
    result.seconds = time.perf_counter() - start
    result.goals = {str(goal): goal.verdict(result.values.get(goal.value)) for goal in step.goals}
    return result


def main() -> None:
    """Run the named steps and write `<out>/<step>.json` for each."""
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("steps", nargs="+")
    parser.add_argument("--toy", action="store_true")
    given = parser.parse_args()
    die_with(os.getppid())
    rig, environment = Rig(TOY if given.toy else FULL), provenance.provenance(0)
    for step in chosen(given.steps):
        sys.stdout.write(step.name + "\n")
        sys.stdout.flush()
        result = run(step, rig, given.toy, environment)
        write_atomic(given.out / f"{step.name}.json", (result.model_dump_json(indent=1) + "\n").encode())
        sys.stdout.write(f"done {step.name}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
