"""Two sets of records, compared configuration by configuration, with a verdict and its reason."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import stats
from bench.errors import BadInput
from bench.record import Estimate, Interval, Record, field_kinds
from bench.spec.settings import FILES
from bench.store import record_files, validation

HIGHER_IS_BETTER = (
    "timing.speedup",
    "quality.psnr_db",
    "quality.ssim",
    "quality.to_reference.precision",
    "quality.to_reference.recall",
    "quality.to_baseline.precision",
    "quality.to_baseline.recall",
    "reuse.ratio",
    "reuse.plan_ratio",
    "limits.speedup_limit",
    "limits.realised",
    "limits.mfu",
    "limits.flops_per_second",
)
WORSE = ("SLOWER", "WORSE", "FAILED")
UNKNOWN = ("AMBIGUOUS", "NOT COMPARED")


RecordOrError = Record | str  # a valid record, or the validation error of the one that is there


@dataclass(frozen=True)
class Row:
    """One configuration's comparison."""

    name: str
    before: str
    after: str
    verdict: str  # SAME, FASTER, SLOWER, BETTER, WORSE, AMBIGUOUS, FAILED or NOT COMPARED
    why: str

    def cells(self) -> tuple[str, ...]:
        """List the row's cells.

        Returns:
            Name, both values, the verdict and its reason, as text.
        """
        return self.name, self.before, self.after, self.verdict, self.why


def exit_code(rows: Sequence[Row]) -> int:
    """Choose the exit code of a comparison.

    Args:
        rows: as `compared` returns them.

    Returns:
        1 where something regressed, else 2 where something could not be compared, else 0.
    """
    if any(row.verdict in WORSE for row in rows):
        return 1
    return 2 if any(row.verdict in UNKNOWN for row in rows) else 0


def compared(a: Path, b: Path, metric: str, threshold: float, cross_machine: bool) -> list[Row]:
    """Compare two directories of records, configuration by configuration.

    Args:
        a: the directory of the records before.
        b: the directory of the records after.
        metric: a field of the record with its part, such as `timing.speedup`.
        threshold: the smallest relative change that counts, above 0 and below 1.
        cross_machine: whether to compare records of different machines.

    Returns:
        A row for each configuration that either directory has.

    Raises:
        BadInput: the metric or the threshold is not allowed, or a directory has no records.
    """
    if not 0 < threshold < 1:
        raise BadInput(f"compare: --threshold: {threshold} is not allowed; allowed: between 0 and 1")
    _check_metric(metric)
    before, after = _records(a), _records(b)
    return [
        _row(name, x, y, metric, threshold, cross_machine)
        for run in dict.fromkeys([*before, *after])
        for name, x, y in _pairs(run, before.get(run, {}), after.get(run, {}))
    ]


def _records(directory: Path) -> dict[str, dict[str, RecordOrError]]:
    """By suite/name, then by machine: the record, or why there is none."""
    by_run: dict[str, dict[str, RecordOrError]] = {}
    for path in validation.files(directory):
        record, (suite, machine) = validation.checked(path), path.resolve().parts[-3:-1]
        of_run = by_run.setdefault(f"{suite}/{record_files.stem(path).rpartition('-')[0]}", {})
        if isinstance(record, Record):
            of_run[machine] = record
        else:
            of_run.setdefault(machine, record)
    if not by_run:
        raise BadInput(f"compare: {directory}: no records in it; needed: a directory of records")
    return by_run


def _pairs(
    run: str, a: Mapping[str, RecordOrError], b: Mapping[str, RecordOrError]
) -> Iterator[tuple[str, RecordOrError | None, RecordOrError | None]]:
    """What is compared with what: each machine with itself, two machines only if each side has one."""
    if len(a) == len(b) == 1:
        yield run, next(iter(a.values())), next(iter(b.values()))
        return
    machines = dict.fromkeys([*a, *b])
    for machine in machines:
        yield f"{run} ({machine})" if len(machines) > 1 else run, a.get(machine), b.get(machine)


def _check_metric(metric: str) -> None:
    try:
        field_kinds(metric)
    except ValueError as error:
        raise BadInput(f"compare: --metric: {error}") from error


def _row(
    name: str, a: RecordOrError | None, b: RecordOrError | None, metric: str, threshold: float, cross: bool
) -> Row:
    if not (isinstance(a, Record) and isinstance(b, Record)):
        return Row(name, "", "", "NOT COMPARED", _lacking(a, b))
    if why := _incomparable(a, b, metric, cross):
        return Row(name, "", "", "NOT COMPARED", why)
    if b.status == "failed":
        verdict = "NOT COMPARED" if a.status == "failed" else "FAILED"
        return Row(name, a.status, b.status, verdict, b.reason or "")
    x, y = _value(a, metric), _value(b, metric)
    if x is None or y is None:
        return Row(name, _shown(x), _shown(y), "NOT COMPARED", f"{metric} is missing in a record")
    verdict, why = _judge(x, y, metric, threshold)
    return Row(name, _shown(x), _shown(y), verdict, why + _named(b, metric))


def _named(record: Record, metric: str) -> str:
    """A Fréchet distance is always shown with its extractor, n and bias."""
    if not metric.endswith(".fd"):
        return ""
    from bench.report.tables.columns import lookup
    from bench.report.tables.runs import fd_name

    return f"; {fd_name(lookup(record, metric.removesuffix('.fd')))}"


def _lacking(a: RecordOrError | None, b: RecordOrError | None) -> str:
    if a is None or b is None:
        return f"only in {'B' if a is None else 'A'}"
    errors = [f"{side}: {error}" for side, error in (("A", a), ("B", b)) if isinstance(error, str)]
    return f"could not compare: {'; '.join(errors)}"


def _incomparable(a: Record, b: Record, metric: str, cross_machine: bool) -> str | None:
    here, there = a.environment.get("machine"), b.environment.get("machine")
    if here != there and not cross_machine:
        return f"machines differ: {here}, {there} (--cross-machine allows that)"
    ids = {record.environment["inputs"].get("machine_id") for record in (a, b)} - {None}
    if len(ids) > 1 and not cross_machine:
        return f"two machines of the kind {here} (--cross-machine allows that)"
    for name in ("model", *(FILES if metric.startswith("quality.") else ())):
        if a.environment["inputs"].get(name) != b.environment["inputs"].get(name):
            return f"the contents of {name} differ"
    differing = [key for key in a.config if a.config[key] != b.config.get(key)]
    return f"configurations differ in {', '.join(differing)}" if differing else None


def _value(record: Record, metric: str) -> Interval | None:
    """The value as an interval, which has no width where none was measured."""
    part: Any = record
    for name in metric.split("."):
        part = getattr(part, name, None)
    if part is None or isinstance(part, Interval):
        return part
    if not isinstance(part, (int, float)):
        raise BadInput(f"compare: --metric: {metric!r} is no single value; allowed: a number")
    return Estimate.exact(part)


def _judge(a: Interval, b: Interval, metric: str, threshold: float) -> tuple[str, str]:
    """The verdict on the ratio that is better higher, after over before or before over after; its
    interval takes both at their worst, so that it errs towards AMBIGUOUS."""
    if a == b:
        return "SAME", "equal"
    if min(a.low, b.low) <= 0:
        return _judge_signed(a, b, metric)
    verdict, why = stats.verdict(b.over(a) if metric in HIGHER_IS_BETTER else a.over(b), threshold)
    if metric.startswith("timing."):
        return verdict, why
    return {"FASTER": "BETTER", "SLOWER": "WORSE"}.get(verdict, verdict), why


def _judge_signed(a: Interval, b: Interval, metric: str) -> tuple[str, str]:
    """Where a value may be zero or negative a ratio means nothing: do the intervals overlap?"""
    if a.low <= b.high and b.low <= a.high:
        return "AMBIGUOUS", "the intervals overlap around zero"
    better = (b.value > a.value) == (metric in HIGHER_IS_BETTER)
    return "BETTER" if better else "WORSE", "the intervals do not overlap"


def _shown(value: Interval | None) -> str:
    if value is None:
        return ""
    if math.isclose(value.low, value.high):
        return f"{value.value:.4g}"
    return f"{value.value:.4g} [{value.low:.4g}, {value.high:.4g}]"
