"""The comparison as a page: a headline, a table, a plot. A function of its measurements alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.record import Mean
from bench.report.escape import code, escape
from bench.report.page import Page, write_csv
from bench.report.plots.style import MethodStyle, canvas, error_bar, save, style
from bench.report.tables.columns import DASH, grid, interval, significant
from bench.studies.policy.comparison import POLICY

Row = Mapping[str, Any]

STYLES = {
    POLICY: MethodStyle("#0072B2", "o", "-"),
    "SNR + entropy": MethodStyle("#D55E00", "s", "--"),
    "schedule alone": MethodStyle("#009E73", "^", "-."),
    "random mask": MethodStyle("#8a8a8a", "v", ":"),
}
PLOT = "drift.webp"
TABLE = "methods.csv"
DODGE = 0.2  # percentage points: equal reuse would draw intervals over one another
VERBS = {"better": "drifts less than", "worse": "drifts more than", "same": "does not differ from"}


def write_report(comparison: Mapping[str, Any], out: Path) -> Path:
    """Write the comparison's page, its plot and its table.

    Args:
        comparison: the comparison.
        out: the directory of page, plots and tables.

    Returns:
        The page, README.md.
    """
    out.mkdir(parents=True, exist_ok=True)
    plot(comparison["rows"], out / PLOT)
    write_csv(out / TABLE, list(comparison["rows"]))
    return page(comparison).write(out)


def page(comparison: Mapping[str, Any]) -> Page:
    """Show a comparison.

    Args:
        comparison: the comparison, of today's names.

    Returns:
        The page, not yet written.
    """
    text = headline(comparison["rows"])
    parts = [
        f"**Summary:** {text}",
        _setup(comparison),
        table(comparison["rows"]),
        f"[{TABLE}]({TABLE})",
        f"![Drift against reuse ratio for each method]({PLOT})",
        _training(comparison["policy"]),
        _reading(comparison),
    ]
    return Page("The learned policy, at equal reuse", text, "\n\n".join(parts))


def headline(rows: Sequence[Row]) -> str:
    """Report where the policy drifts less, more, or the same, at the cache's full precision.

    Args:
        rows: the comparison's rows.

    Returns:
        One or more clauses, joined to a sentence.
    """
    verdicts: dict[str, dict[str, list[str]]] = {}
    for row in rows:
        if row["over_policy"] and row["bits"] == 16:
            competitors = verdicts.setdefault(verdict(row), {})
            competitors.setdefault(row["method"], []).append(f"{row['target']:.0%}")
    parts = [
        f"{VERBS[kind]} "
        + ", ".join(f"the {_name(who)} ({' and '.join(at)})" for who, at in competitors.items())
        for kind, competitors in sorted(verdicts.items(), reverse=True)
    ]
    return (
        f"At equal measured reuse the learned policy {'; it '.join(parts) or 'was compared with no method'}."
    )


def verdict(row: Row) -> str:
    """Judge whether the policy is better than a row's method.

    Args:
        row: a row of the comparison, its `over_policy` not null.

    Returns:
        `better` or `worse` where the paired interval excludes 0, else `same`.
    """
    over = row["over_policy"]
    return "better" if over["low"] > 0 else "worse" if over["high"] < 0 else "same"


def table(rows: Sequence[Row]) -> str:
    """Tabulate the comparison.

    Args:
        rows: the comparison's rows.

    Returns:
        A Markdown table, a line a method, target and quantisation.
    """
    titles = [
        "target",
        "cache bits",
        "method",
        "option",
        "measured reuse",
        "drift",
        "drift less the policy's",
    ]
    return grid(titles, [_cells(row) for row in rows])


def plot(rows: Sequence[Row], path: Path) -> Path:
    """Plot drift against measured reuse, a line a method; hollow where the cache is int8.

    Args:
        rows: the comparison's rows.
        path: the file that the plot goes to.

    Returns:
        The file.
    """
    with style():
        figure = canvas(6.4, 4.2)
        ax = figure.subplots()
        for i, name in enumerate(STYLES):
            _line(ax, [row for row in rows if row["method"] == name], name, DODGE * (i - 1.5))
        ax.margins(x=0.1)
        ax.set(
            xlabel=f"measured reuse ratio (%), methods set {DODGE:g} apart to be seen",
            ylabel="relative L2 of the final latent, lower is better",
        )
        ax.set_title("Drift at equal reuse: mean and 95 % interval over images; hollow: 8 bit cache")
        ax.set_ylim(bottom=0)
        ax.grid(True)
        ax.legend(loc="upper left")
        return save(figure, path)


def _line(ax: Any, rows: Sequence[Row], name: str, shift: float) -> None:
    full, coarse = (sorted((r for r in rows if r["bits"] == bits), key=_ratio) for bits in (16, 8))
    error = np.hstack([error_bar(Mean(**row["drift"])) for row in full])
    colour, marker, line = STYLES[name]
    drawn = {"marker": marker, "color": colour, "label": name, "ls": line, "capsize": 2}
    ax.errorbar(*_points(full, shift), yerr=error, **drawn)
    ax.plot(*_points(coarse, shift), marker, mec=colour, mfc="white", ms=4, zorder=4)


def _ratio(row: Row) -> float:
    return float(row["ratio"])


def _points(rows: Sequence[Row], shift: float) -> tuple[list[float], list[float]]:
    return [100 * _ratio(row) + shift for row in rows], [row["drift"]["mean"] for row in rows]


def _cells(row: Row) -> list[str]:
    option, value = next(iter(row["option"].items()))
    reuse = f"{row['ratio']:.2%}" + ("" if row["equal"] else " (not the target)")
    drift = interval(Mean(**row["drift"]), 4)
    over = interval(Mean(**row["over_policy"]), 4) if row["over_policy"] else DASH
    start = [f"{row['target']:.0%}", str(row["bits"]), row["method"]]
    return [*start, f"{code(option)} = {significant(3)(value)}", reuse, drift, over]


def _setup(study: Mapping[str, Any]) -> str:
    images, model = study["images"], study["model"]
    return (
        f"Model {code(model['name'])}, {study['steps']} steps, guidance {study['guidance']}, on "
        f"{escape(study['environment']['machine'])}. {images['n']} images, one at a time, of seeds "
        f"{images['seeds'][0]} to {images['seeds'][1] - 1} and of {len(images['numbers'])} {images['of']} "
        f"that no trace contains. An entry is reused for at most {study['max_age']} steps, for every method. "
        "The option of each is searched until the measured share of reused attention calls is the target, "
        "with the cache at full precision, and kept for the 8 bit cache."
    )


def _training(policy: Mapping[str, Any]) -> str:
    f = policy["metrics"]
    trace, final = f["trace"], f["final_reuse_error"]
    return (
        f"## The policy\n\nA {code(policy['kind'])}, trained on {trace['rows']} measured reuses of "
        f"{trace['seeds'][1] - trace['seeds'][0]} trajectories. On the held-out ones its ROC-AUC is "
        f"{f['roc_auc']:.3f}, and at its own threshold it reuses {f['reuse_ratio']:.1%} of them at a mean "
        f"reuse error of {f['reuse_error']:.5f} (budget {f['budget']:.5f}; knowing every error would allow "
        f"{f['best_ratio']:.1%}). The reuse error that labels a row is of the {f['reuse_error_of']}.\n\n"
        "One layer's reuse changes the step's guided noise prediction by a relative L2 whose rank "
        f"correlation with the change of the final latent is {final['spearman']:.2f} (Spearman, "
        f"{final['rows']} single reuses followed to the end); that of the label is "
        f"{final['label_spearman']:.2f} on the {final['label_rows']} of held-out trajectories alone."
    )


def _reading(comparison: Mapping[str, Any]) -> str:
    return (
        "## How to read it\n\n"
        "Drift is ||x - x_0|| / ||x_0|| of the final latents, x_0 the untouched pipeline's of the same seed "
        "and class or prompt. Intervals are of the mean, by bootstrap over images, 95 %. The last column is "
        "paired: where its interval lies above 0 the policy is better, below 0 the other. A run that "
        f"measures all and reuses nothing drifts by {comparison['control_drift']:g}."
    )


def _name(method: str) -> str:
    return {"SNR + entropy": "SNR and entropy thresholds"}.get(method, method)
