"""The study of prompt length as a page: a headline, a table of exponents, a plot. A function of its rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from bench.report.escape import escape
from bench.report.page import render, write_csv
from bench.report.plots.style import canvas, save, style
from bench.report.tables.columns import interval
from bench.studies.prompt_length.analysis import PUBLISHED, VALUES, Exponent, exponents, means


def write_report(rows: pd.DataFrame, facts: Mapping[str, Any], out: Path) -> Path:
    """Write the study's page, its plot and its tables.

    Args:
        rows: as `measure.measured` makes them.
        facts: what was measured on what.
        out: the directory of page, plots and tables.

    Returns:
        The page, README.md.
    """
    out.mkdir(parents=True, exist_ok=True)
    fits = exponents(rows)
    plot(rows, out / "lengths.webp")
    write_csv(out / "exponents.csv", [_row(each) for each in fits])
    write_csv(out / "means.csv", means(rows))
    content = {
        "facts": facts,
        "images": rows.groupby(["label", "words"]).ngroups,
        "prompts": rows["label"].nunique(),
        "lengths": sorted(rows["words"].unique().tolist()),
        "exponents": fits,
        "means": means(rows),
        "values": VALUES,
        "published": PUBLISHED,
        "consequence": consequence(fits),
    }
    title = f"prompt-length: entropy and reuse error by the length of prompts, on {escape(facts['machine'])}"
    return render("prompt_length.md.j2", title, headline(fits), content).write(out)


def headline(fits: Sequence[Exponent]) -> str:
    """Sum the study up by its exponents.

    Args:
        fits: the exponents of all values.

    Returns:
        One sentence.
    """
    by = {each.value: each for each in fits}
    parts = [
        f"{name} {interval(by[key].b, 3)}" for key, name in (("entropy", "entropy"), ("hold", "hold error"))
    ]
    return (
        f"As a power of a prompt's words {' and '.join(parts)} (published threshold: {PUBLISHED:g}): entropy"
        f" {by['entropy'].verdict}, the error of reuse {by['hold'].verdict}."
    )


def consequence(fits: Sequence[Exponent]) -> str:
    """State what follows for the threshold that grows with the square root of the prompt's length.

    Args:
        fits: the exponents of all values.

    Returns:
        One or two sentences.
    """
    entropy = next(each for each in fits if each.value == "entropy")
    if entropy.b.contains(PUBLISHED):
        return "The threshold's factor √(p/77) follows the entropies of this model."
    return (
        "The threshold's factor √(p/77) follows nothing that was measured here: over the lengths studied it"
        " changes by more than three times, entropy does not. It is a constant to fold into the threshold."
    )


def _row(each: Exponent) -> dict[str, Any]:
    parts = {"mean": each.b.mean, "low": each.b.low, "high": each.b.high}
    return {"value": each.value, "exponent": parts, "explained": each.explained, "verdict": each.verdict}


def plot(rows: pd.DataFrame, path: Path) -> Path:
    """Plot each value over the number of words, one line a prompt and the mean of all.

    Args:
        rows: as `measure.measured` makes them.
        path: the file that the plot goes to.

    Returns:
        The file.
    """
    with style():
        figure = canvas(9.0, 3.0)
        for ax, (value, title) in zip(figure.subplots(1, len(VALUES)), VALUES.items(), strict=True):
            each = rows.pivot_table(index="words", columns="label", values=value)
            ax.plot(each.index, each, color="#bbbbbb", linewidth=0.6)
            ax.plot(each.index, each.mean(axis=1), "o-", color="#0b3c5d", label="mean of the prompts")
            ax.set_xscale("log", base=2)
            ax.set_xticks(list(each.index), [str(words) for words in each.index])
            ax.set_ylim(bottom=0)
            ax.set_xlabel("words of the prompt")
            ax.set_title(title)
        figure.axes[0].legend(loc="lower right")
        return save(figure, path)
