"""The A/A study: how often the baseline's interval against itself contains 1, and how narrow it is.

A correct 95 % interval covers the true value in 95 of 100 repetitions. Here the true value is known,
so the claim can be checked: `python -m bench control`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from bench import stats
from bench.pipeline import models
from bench.record import Median, Record
from bench.report.escape import escape
from bench.report.page import render, write_csv
from bench.report.plots.style import GREY, canvas, method_style, save, style
from bench.spec.run_spec import RunSpec
from bench.spec.suite import Suite

SUITE = "control"
REQUIRED = 0.90  # share of the repetitions whose interval must contain 1
APART = 10_000  # images between two repetitions' seeds: no two share noise or order


class Study(NamedTuple):
    """What the repetitions show together."""

    intervals: list[Median]  # of each repetition, in order
    covering: int
    share: Median  # of the repetitions that cover 1.0, with Wilson's 95 % interval
    half_width: float  # relative, median over the repetitions
    widest: float
    narrow: int  # repetitions that reached the suite's target within its budget
    seconds: float  # of timing, median over the repetitions
    pairs: float  # median over the repetitions
    contaminated: int  # pairs marked and excluded, in all
    centre: float  # median of the repetitions' medians

    @property
    def holds(self) -> bool:
        """Whether enough intervals contain 1."""
        return self.share.median >= REQUIRED


def specs(repetitions: int, model: str | None = None, prompts: str | None = None) -> list[RunSpec]:
    """Repeat the suite's one configuration, each time with seeds of its own.

    Args:
        repetitions: number of repetitions, at least 1.
        model: a model in place of the suite's.
        prompts: a file of prompts, or the name of one that ships, where the model takes them.

    Returns:
        The configurations, named NAME-00, NAME-01 and so on.

    Raises:
        BadInput: model or prompts cannot be had.
    """
    suite = Suite.load(SUITE, model=model, prompts=prompts)
    models.with_weights(suite.file)
    (spec,) = suite.specs()
    names = [f"{spec.name}-{i:02}" for i in range(repetitions)]
    seeds = [spec.seed + i * APART for i in range(repetitions)]
    return [spec.model_copy(update={"name": n, "seed": s}) for n, s in zip(names, seeds, strict=True)]


def study(records: Sequence[Record]) -> Study:
    """Sum up finished repetitions.

    Args:
        records: records of the repetitions; those without timing are passed over.

    Returns:
        The intervals, and how many of them contain 1.

    Raises:
        ValueError: none is finished.
    """
    timings = [record.timing for record in records if record.timing]
    if not timings:
        raise ValueError("no finished repetition")
    intervals = [timing.speedup for timing in timings]
    widths = [interval.relative_half_width for interval in intervals]
    covering = sum(interval.contains(1) for interval in intervals)
    return Study(
        intervals=intervals,
        covering=covering,
        share=stats.proportion(covering, len(intervals)),
        half_width=median(widths),
        widest=max(widths),
        narrow=sum(timing.stopped == "target" for timing in timings),
        seconds=median(sum(map(sum, timing.pairs)) for timing in timings),
        pairs=median(len(timing.pairs) for timing in timings),
        contaminated=sum(len(timing.contaminated) for timing in timings),
        centre=median(interval.median for interval in intervals),
    )


def write_report(records: Sequence[Record], out: Path) -> Path:
    """Write the study's page, its plot and its table.

    Args:
        records: records of the repetitions, at least one of them finished.
        out: the directory of page, plots and tables.

    Returns:
        The page, README.md.
    """
    result, config = study(records), records[0].config
    out.mkdir(parents=True, exist_ok=True)
    plot(result, out)
    write_csv(out / "repetitions.csv", [_row(record) for record in records])
    title = f"{SUITE}: {len(result.intervals)} repetitions on {escape(records[0].environment['machine'])}"
    content = {
        "n": len(result.intervals),
        "failed": sum(record.status == "failed" for record in records),
        "study": result,
        "config": config,
        "timing": config["timing"],
        "required": REQUIRED,
    }
    return render("control.md.j2", title, headline(result, config["batch_size"]), content).write(out)


def _row(record: Record) -> dict[str, Any]:
    """A repetition as a line of the table."""
    row: dict[str, Any] = {"name": record.name, "status": record.status}
    if (timing := record.timing) is None:
        return row
    speedup = {"median": timing.speedup.median, "low": timing.speedup.low, "high": timing.speedup.high}
    counts = {"pairs": len(timing.pairs), "contaminated": len(timing.contaminated)}
    return row | speedup | counts | {"stopped": timing.stopped}


def headline(result: Study, batch: int) -> str:
    """Sum the study up.

    Args:
        result: the study.
        batch: images of one generation.

    Returns:
        One sentence.
    """
    verdict = "as required" if result.holds else f"fewer than the {REQUIRED:.0%} required"
    return (
        f"the baseline's 95 % interval against itself contains 1 in {result.covering} of "
        f"{len(result.intervals)} repetitions, {verdict}; half its width is {result.half_width:.1%} "
        f"(median) after {result.seconds:.0f} s of timing at batch {batch}."
    )


def plot(result: Study, out: Path) -> Path:
    """Plot every repetition's interval, lowest median first; those that miss 1 in the alarm's colour.

    Args:
        result: the study.
        out: the directory of the plot or page.

    Returns:
        The file.
    """
    ordered = sorted(result.intervals, key=lambda interval: interval.median)
    with style():
        figure = canvas(5.6, 0.6 + 0.1 * len(ordered))
        ax = figure.subplots()
        ax.axvline(1.0, color=GREY, linewidth=0.8)
        for i, interval in enumerate(ordered):
            holds = interval.contains(1)
            colour = method_style("dqar" if holds else "fewer_steps").colour
            ax.plot([interval.low, interval.high], [i, i], color=colour, linewidth=1.2)
            ax.plot(interval.median, i, "o" if holds else "s", color=colour, markersize=2.5)
        ax.set_xlabel("baseline / baseline, median with 95 % interval")
        ax.set_yticks([])
        ax.set_title(f"{result.covering} of {len(ordered)} intervals contain 1 (squares do not)")
        return save(figure, out / "control.webp")
