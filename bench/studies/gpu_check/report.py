"""The page of a check: the goals first, then each step's values."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.record import Median
from bench.report.escape import escape
from bench.report.page import render
from bench.studies.gpu_check.step import StepResult, Value, Verdict

FEW = 4  # values in one line
UNMEASURED: Verdict = "not measured"
WORST_FIRST: tuple[Verdict, ...] = ("missed", "unclear", UNMEASURED, "met")


def write_report(results: Sequence[StepResult], machine: str, out: Path) -> Path:
    """Write the check's page.

    Args:
        results: what the steps left.
        machine: the machine, as its directory is named.
        out: the directory of the plot or page.

    Returns:
        The page, README.md.

    Raises:
        ValueError: no step has left a result.
    """
    if not results:
        raise ValueError("gpu-check: no step has left a result")
    out.mkdir(parents=True, exist_ok=True)
    title = f"gpu-check on {escape(machine)}"
    return render("gpu-check.md.j2", title, headline(results), _content(results)).write(out)


def headline(results: Sequence[StepResult]) -> str:
    """Sum the check up, what was missed before what was met.

    Args:
        results: what the steps left.

    Returns:
        One sentence.
    """
    verdicts = [verdict for result in results for verdict in result.goals.values()]
    failed = [result.step for result in results if result.status != "ok"]
    parts = [f"{verdicts.count(kind)} {kind}" for kind in WORST_FIRST]
    ended = f"; without a result: {', '.join(failed)}" if failed else ""
    return f"of {len(verdicts)} goals {', '.join(parts)}{ended}."


def summary(result: StepResult) -> str:
    """Report a step's result.

    Args:
        result: what the step left.

    Returns:
        One line: each goal with the value measured and the verdict; without goals, the first values.
    """
    if result.status != "ok":
        return f"  {result.step}: {result.status}: {result.reason}"
    goals = [f"{goal}: {shown(_value_of(result, goal))}, {verdict}" for goal, verdict in result.goals.items()]
    values = [f"{name}: {shown(value)}" for name, value in result.values.items()]
    return f"  {result.step}: {result.seconds:.0f} s: {'; '.join(goals or values[:FEW])}"


def closing(results: Sequence[StepResult]) -> str:
    """Sum the check up for whoever reads only the end of what it prints.

    Args:
        results: what the steps left, in the check's order.

    Returns:
        One line a step, then the headline.
    """
    return "\n".join(["summary:", *map(summary, results), headline(results)])


def _content(results: Sequence[StepResult]) -> dict[str, Any]:
    environment: dict[str, Any] = next((r.environment for r in results if r.environment), {})
    return {
        "toy": any(result.toy for result in results),
        "packages": environment.get("packages", {}),
        "gpu": environment.get("gpu") or {},
        "cuda": environment.get("cuda"),
        "goals": [
            (result.step, goal, shown(_value_of(result, goal)), verdict)
            for result in results
            for goal, verdict in result.goals.items()
        ],
        "steps": [
            {"result": r, "rows": [(name, shown(value)) for name, value in r.values.items()]} for r in results
        ],
    }


def _value_of(result: StepResult, goal: str) -> Value:
    return next((v for name, v in result.values.items() if goal.startswith(name + " at ")), None)


def shown(value: Value) -> str:
    """Show a value to three or four digits, an interval with its ends.

    Args:
        value: a step's; None: not measured.

    Returns:
        The text.
    """
    if value is None:
        return UNMEASURED
    if isinstance(value, Median):
        return f"{value.median:.3g} [{value.low:.3g}, {value.high:.3g}]"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
