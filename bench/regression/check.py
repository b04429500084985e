"""Is the gate right? Repetitions of one commit must raise no alarm, a planted slowdown must raise one.

Everything runs as `make asv` runs it, into a directory of its own: each repetition is stored under a
commit of its own, for asv keeps results by commit, though the code is the same.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from bench.errors import BadInput
from bench.machine import provenance
from bench.regression import config, gate
from bench.report.compare import Row
from bench.report.page import render
from bench.store.git import commits

BENCH = r"denoising\.Made\.time_generation\('(baseline|recommended)'\)|kernels\.Reference"
SLOWDOWN = "DQAR_ASV_SLOWDOWN"  # read by the benchmarks: a generation takes so many times as long
PLANTED = "planted"


def check(
    run: Callable[[Path, str, dict[str, str]], None], given: Path, repetitions: int, slowdown: float
) -> pd.DataFrame:
    """Run the base, `repetitions` more and a slowed one.

    Args:
        run: `run(config, commit, environment)` runs the benchmarks and stores them under that commit.
        given: asv's configuration, of which a copy with a directory of results of its own is used.
        repetitions: how often the same code is run after the base, at least 1.
        slowdown: how many times as long the last run takes, above 1 to be an alarm.

    Returns:
        A row for each benchmark of each run against the base, `run` being `1`, `2`, … or `planted`.

    Raises:
        BadInput: the history has fewer than `repetitions` + 2 commits to store results under.
    """
    known = commits(repetitions + 2)
    if len(known) < repetitions + 2:
        raise BadInput(
            f"asv check: repetitions: {repetitions} needs as many commits and two; found {len(known)}"
        )
    base, *others, planted = known
    with tempfile.TemporaryDirectory() as temporary:
        results, machine = Path(temporary) / "results", provenance.machine()
        path = config.written(Path(temporary), given, results_dir=results)
        for commit in (base, *others):
            run(path, commit, dict(os.environ))
        run(path, planted, os.environ | {SLOWDOWN: str(slowdown)})
        named = [*((str(i), commit) for i, commit in enumerate(others, 1)), (PLANTED, planted)]
        return table({name: gate.compared(results, machine, base, commit) for name, commit in named})


def table(compared: dict[str, Sequence[Row]]) -> pd.DataFrame:
    """Collect the rows of all runs.

    Args:
        compared: the rows of each run against the base, by the run's name.

    Returns:
        A row each: `run` and the fields of `Row`.
    """
    return pd.DataFrame([{"run": name, **asdict(row)} for name, rows in compared.items() for row in rows])


def holds(rows: pd.DataFrame) -> bool:
    """Whether every planted slowdown is caught and nothing else raises an alarm.

    Args:
        rows: as `check` returns them.

    Returns:
        Whether the check is passed.
    """
    unchanged, planted = _apart(rows)
    return bool((planted["verdict"] == "SLOWER").all() and not unchanged["verdict"].isin(gate.ALARMS).any())


def headline(rows: pd.DataFrame, slowdown: float) -> str:
    """Sum the check up for its page.

    Args:
        rows: as `check` returns them.
        slowdown: the factor that was planted.

    Returns:
        One sentence.
    """
    unchanged, planted = _apart(rows)
    alarms, caught = unchanged["verdict"].isin(gate.ALARMS).sum(), (planted["verdict"] == "SLOWER").sum()
    return (
        f"{unchanged['run'].nunique()} unchanged repetitions of {len(planted)} benchmarks raised "
        f"{alarms or 'no'} alarm{'s' if alarms > 1 else ''}, and a planted slowdown of {slowdown - 1:.0%} "
        f"was caught in {caught} of {len(planted)}."
    )


def _apart(rows: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The unchanged repetitions and the planted one, without its reference benchmark, which is not slowed."""
    planted = rows["run"] == PLANTED
    return rows[~planted], rows[planted & (rows["name"] != gate.REFERENCE)]


def write_report(rows: pd.DataFrame, slowdown: float, machine: str, out: Path) -> Path:
    """Write the check's page.

    Args:
        rows: as `check` returns them.
        slowdown: the factor that was planted.
        machine: the machine that it ran on.
        out: the directory of the page; it is made where it is missing.

    Returns:
        The file, README.md.
    """
    out.mkdir(parents=True, exist_ok=True)
    title, content = f"asv-check: the regression gate on {machine}", {"rows": rows.to_dict("records")}
    return render("asv-check.md.j2", title, headline(rows, slowdown), content).write(out)
