"""Two commits' stored asv results, a verdict for each benchmark: asv itself exits 0 on a regression.

A time is a ratio of medians with a bootstrap 95 % interval over the stored samples, divided by the ratio
of the reference benchmark, which runs none of this project's code: a machine that is slower today is no
regression. Everything else is a single value. Lower is better throughout.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from asv.results import Results
from asv.util import UserError

from bench import stats
from bench.errors import BadInput, one_line
from bench.record import Median
from bench.regression.environment import SERIES
from bench.report.compare import Row

REFERENCE = "kernels.Reference.time_feed_forward"
TIME_THRESHOLD = 0.10  # between two runs on a shared machine; a planted 20 % is beyond it
THRESHOLD = 0.02  # of bytes, shares and errors, which hardly scatter
ALARMS = {"SLOWER", "WORSE", "FAILED"}
Samples = Sequence[float]


class Measured(NamedTuple):
    """One benchmark at one combination of parameters."""

    value: float | None  # None or nan: it failed
    samples: Samples | None


def compared(
    results: Path | Sequence[Path], machine: str, base: str, new: str, environment: str | None = None
) -> list[Row]:
    """Compare two commits, both measured in one environment.

    Args:
        results: asv's directories of results; where two hold the same, the first counts.
        machine: the one that was measured, as asv's directory is named.
        base: full hash of a commit.
        new: full hash of the commit that is judged.
        environment: asv's name of the environment, such as here-py3.12; None: this interpreter's where both
            commits have it, else the only one that both have.

    Returns:
        A row for each benchmark of either commit.

    Raises:
        BadInput: a commit has no results, or both have none of the same environment: another Python or
            another torch is no regression of this project.
    """
    directories = [results] if isinstance(results, Path) else results
    before, after = (stored(directories, machine, commit) for commit in (base, new))
    chosen = _common(before, after, environment)
    return rows(measured(before[chosen]), measured(after[chosen]))


def stored(results: Sequence[Path], machine: str, commit: str) -> dict[str, Path]:
    """Find the files of a commit's results.

    Args:
        results: asv's directories of results; where two hold the same, the first counts.
        machine: the one that was measured.
        commit: its full hash; asv names files by the first eight digits.

    Returns:
        The files by the environment that they were measured in.

    Raises:
        BadInput: there are none.
    """
    by_root = [sorted((root / machine).glob(f"{commit[:8]}-*.json")) for root in results]
    files = [file for files in reversed(by_root) for file in files]
    if not files:
        raise BadInput(
            f"asv compare: {commit[:8]}: no results of {machine} in {' or '.join(map(str, results))}; first:"
            " make asv on that commit"
        )
    return {file.stem.removeprefix(f"{commit[:8]}-"): file for file in files}


def _common(before: Mapping[str, Path], after: Mapping[str, Path], wanted: str | None) -> str:
    """The one environment to compare in."""
    both = sorted(before.keys() & after.keys())
    if wanted is not None and wanted not in both:
        raise BadInput(
            f"asv compare: --environment: {wanted!r} has not both; allowed: {', '.join(both) or 'none'}"
        )
    if not both:
        raise BadInput(
            f"asv compare: the base is of {', '.join(before)}, the new commit of {', '.join(after)}: values"
            " of different environments do not compare; first: make asv in the same one on both"
        )
    here = wanted or SERIES
    if here not in both and len(both) > 1:
        raise BadInput(f"asv compare: --environment is needed; allowed: {', '.join(both)}")
    return here if here in both else both[0]


def rows(before: Mapping[str, Measured], after: Mapping[str, Measured]) -> list[Row]:
    """Judge what two runs measured.

    Args:
        before: the base by benchmark and parameters.
        after: the run that is judged.

    Returns:
        A row for each benchmark of either run, those of the base first.
    """
    machine_speed = _machine_speed(before, after)
    return [_row(n, before.get(n), after.get(n), machine_speed) for n in dict.fromkeys([*before, *after])]


def exit_code(compared_rows: Sequence[Row]) -> int:
    """Choose the exit code of a comparison.

    AMBIGUOUS is no alarm: the interval reaches to where nothing changed.

    Args:
        compared_rows: as `compared` returns them.

    Returns:
        1 where something regressed, else 2 where something could not be compared, else 0.
    """
    verdicts = {row.verdict for row in compared_rows}
    if verdicts & ALARMS:
        return 1
    return 2 if "NOT COMPARED" in verdicts else 0


def measured(file: Path) -> dict[str, Measured]:
    """Read a file of results.

    Args:
        file: asv's JSON.

    Returns:
        What it holds, by benchmark and parameters; what was not asked for is not in it.

    Raises:
        BadInput: asv cannot read it.
    """
    try:
        return dict(_entries(Results.load(str(file))))
    except (OSError, ValueError, TypeError, KeyError, AttributeError, UserError, RecursionError) as error:
        raise BadInput(
            f"asv compare: {file.name}: not readable as asv's results: {one_line(error)}"
        ) from error


def _entries(stored_results: Any) -> Iterator[tuple[str, Measured]]:
    for key in stored_results.get_all_result_keys():
        params = stored_results.get_result_params(key)
        values = stored_results.get_result_value(key, params) or []
        samples = stored_results.get_result_samples(key, params) or [None] * len(values)
        for names, value, each in zip(itertools.product(*params), values, samples, strict=False):
            if value is not None and np.isnan(value):
                continue  # not asked for: asv has None for what failed
            name = f"{key}({', '.join(names)})" if names else key
            yield name, Measured(value, each)


def _machine_speed(before: Mapping[str, Measured], after: Mapping[str, Measured]) -> float:
    """How many times faster the machine was before; 1 where the reference benchmark was not measured."""
    known = [run[REFERENCE].samples for run in (before, after) if REFERENCE in run]
    if len(known) < 2 or not all(known):
        return 1.0
    one, other = (float(np.median(samples)) for samples in known if samples)
    return other / one


def _row(name: str, a: Measured | None, b: Measured | None, machine_speed: float) -> Row:
    if a is None or b is None:
        return Row(name, "", "", "NOT COMPARED", f"only in {'the new' if a is None else 'the base'} commit")
    shown = _shown(a), _shown(b)
    if _failed(b):
        verdict = "NOT COMPARED" if _failed(a) else "FAILED"
        return Row(name, *shown, verdict, "it failed" + (" in both" if _failed(a) else ""))
    if _failed(a):
        return Row(name, *shown, "NOT COMPARED", "it failed in the base commit")
    if a.samples and b.samples and name != REFERENCE:
        return Row(name, *shown, *stats.verdict(speedup(a.samples, b.samples, machine_speed), TIME_THRESHOLD))
    if name == REFERENCE:
        return Row(
            name, *shown, "SAME", f"the reference benchmark: machine-speed factor {1 / machine_speed:.3f}"
        )
    return Row(name, *shown, *_judge(a.value or 0.0, b.value or 0.0))


def speedup(before: Samples, after: Samples, machine_speed: float = 1.0) -> Median:
    """Divide the medians of two runs.

    Args:
        before: seconds of the base, at least one.
        after: seconds of the run that is judged, at least one.
        machine_speed: how many times faster the machine was before.

    Returns:
        Median before / median after with its 95 % interval, times `machine_speed`; above 1 it got faster.
    """
    ratio = stats.ratio_of_medians(before, after)
    return Median(
        median=ratio.median * machine_speed, low=ratio.low * machine_speed, high=ratio.high * machine_speed
    )


def _judge(a: float, b: float) -> tuple[str, str]:
    if a == b:
        return "SAME", "equal"
    change = b / a - 1 if a else float("inf")
    if abs(change) <= THRESHOLD:
        return "SAME", f"{change:+.2%} is within {THRESHOLD:.0%}"
    return ("WORSE" if change > 0 else "BETTER"), f"{change:+.2%}; lower is better"


def _failed(benchmark: Measured) -> bool:
    return benchmark.value is None or np.isnan(benchmark.value)


def _shown(benchmark: Measured) -> str:
    return "failed" if _failed(benchmark) else f"{benchmark.value:.4g}"
