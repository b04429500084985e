"""The study as a page: totals, a table of pipelines, a table of classes, and what is refused and why."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import diffusers
from tabulate import tabulate

from bench.report.page import render, write_index
from bench.studies.families.checks import CRASHED, NOT_APPLICABLE, REFUSED, RIGHT, WRONG, Outcome
from bench.studies.families.configurations import NOT_DENOISERS
from bench.studies.families.study import Examined

TITLE = "Families: every transformer class and pipeline of diffusers, right or refused"
_SHOWN = {RIGHT: "yes", REFUSED: "refused", WRONG: "**wrong**", CRASHED: "**crashed**", NOT_APPLICABLE: "-"}
_WORST = (CRASHED, WRONG, REFUSED, RIGHT, NOT_APPLICABLE)
_MODEL = re.compile(r"\b\w*(Transformer|DiT|Decoder)\w*\b")
_ATTENTION = re.compile(r"\b(its processor is )?\w*(Attention|Attn|LiteLA)\w*( with \w+)?(, which)?\b")
# A column of the page -> the demands it sums up.
CLASS_COLUMNS = {
    "off": ("off",),
    "attention": ("attention",),
    "MLP": ("mlp",),
    "forecast": ("forecast",),
    "skipped steps": ("steps", "steps as objects"),
    "two calls a step": ("two calls", "two calls, steps", "changing inputs"),
    "guidance, halves of a batch": ("guidance, halves",),
    "guidance, two calls": ("guidance, two calls",),
    "K/V": ("kv",),
    "entropy": ("entropy",),
}
PIPELINE_COLUMNS = {
    "off": ("off",),
    "attention": ("attention",),
    "MLP": ("mlp",),
    "forecast": ("forecast",),
    "skipped steps": ("steps",),
    "guidance": ("guidance",),
}


def write_report(classes: Sequence[Examined], pipelines: Sequence[Examined], out: Path) -> Path:
    """Write the study's page, and the index of all reports next to it.

    Args:
        classes: the outcomes of configurations.
        pipelines: the outcomes of pipelines.
        out: the directory that the page goes to.

    Returns:
        The page, README.md.
    """
    content = {
        "version": diffusers.__version__,
        "classes": [_row(row, CLASS_COLUMNS) for row in classes],
        "class_columns": list(CLASS_COLUMNS),
        "pipelines": [
            [*_row(row, PIPELINE_COLUMNS), _calls(row), "yes" if row.second else "-"] for row in pipelines
        ],
        "pipeline_columns": [*PIPELINE_COLUMNS, "calls a step", "second transformer"],
        "totals": [(column, *_counts(classes, demands)) for column, demands in CLASS_COLUMNS.items()],
        "pipeline_totals": [
            (column, *_counts(pipelines, demands)) for column, demands in PIPELINE_COLUMNS.items()
        ],
        "refusals": refusals([*classes, *pipelines]),
        "faults": [fault for row in (*classes, *pipelines) for fault in row.faults],
        "not_denoisers": NOT_DENOISERS,
    }
    written = render("families.md.j2", TITLE, headline(classes, pipelines), content).write(out)
    write_index(out.parent)
    return written


def outcomes_table(rows: Sequence[Examined]) -> str:
    """Tabulate outcomes for a terminal.

    Args:
        rows: outcomes of configurations, or of pipelines.

    Returns:
        The verdict of each demand, a line a row; empty where there is none.
    """
    shown = [(row.name, *[outcome.verdict for outcome in row.outcomes.values()]) for row in rows]
    return tabulate(shown, headers=("", *rows[0].outcomes)) if rows else ""


def headline(classes: Sequence[Examined], pipelines: Sequence[Examined]) -> str:
    """Sum the study up: how many came to which outcome.

    Args:
        classes: the outcomes of configurations.
        pipelines: the outcomes of pipelines.

    Returns:
        One sentence.
    """
    faults = sum(1 for row in (*classes, *pipelines) for _ in row.faults)
    attention, skipped = (_counts(classes, (demand,))[0] for demand in ("attention", "steps"))
    passed = sum(1 for row in pipelines if not any(row.faults))
    tail = "nothing is wrong and nothing crashes" if not faults else f"{faults} outcomes are wrong or crashes"
    return (
        f"Of {len(classes)} configurations of the {len({row.kind for row in classes})} denoising transformer "
        f"classes in diffusers {diffusers.__version__}, attention reuse is right on {attention} and skipping "
        f"whole steps on {skipped}; of {len(pipelines)} pipelines {passed} are right in all that they do not "
        f"refuse; {tail}."
    )


def worst(outcomes: Mapping[str, Outcome], demands: Sequence[str]) -> str:
    """Choose the worst verdict of some demands, one that does not apply left aside.

    Args:
        outcomes: the outcome of each demand, by its name.
        demands: some of them, at least one.

    Returns:
        The verdict.
    """
    return min((outcomes[demand].verdict for demand in demands), key=_WORST.index)


def refusals(rows: Sequence[Examined]) -> list[tuple[str, str]]:
    """Collect the reasons of refusals.

    Args:
        rows: outcomes of configurations and pipelines.

    Returns:
        Each reason, and the names that it is given for.
    """
    by_reason: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        for outcome in row.outcomes.values():
            if outcome.verdict == REFUSED and row.name not in by_reason[why := _general(outcome.why)]:
                by_reason[why].append(row.name)
    return [(why, ", ".join(names)) for why, names in sorted(by_reason.items())]


def _general(why: str) -> str:
    """A reason without the names of classes, in which alone most differ."""
    return _MODEL.sub("the model", _ATTENTION.sub("its attention", why))


def _row(row: Examined, columns: Mapping[str, Sequence[str]]) -> list[str]:
    return [
        row.name,
        row.label,
        row.kind,
        *[_SHOWN[worst(row.outcomes, demands)] for demands in columns.values()],
    ]


def _counts(rows: Sequence[Examined], demands: Sequence[str]) -> list[int]:
    """How many are right, refused, wrong and crashed, and for how many it does not apply."""
    verdicts = [worst(row.outcomes, demands) for row in rows]
    return [verdicts.count(verdict) for verdict in (RIGHT, REFUSED, WRONG, CRASHED, NOT_APPLICABLE)]


def _calls(row: Examined) -> str:
    return "-" if row.calls is None else f"{row.calls:.2f}".rstrip("0").rstrip(".")
