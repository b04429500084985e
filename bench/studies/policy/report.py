"""The comparison as a page: one sentence, a table, a plot. A function of its figures alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.machine.files import write_atomic
from bench.report.page import write_csv
from bench.report.plots.style import Look, canvas, ends, save, style
from bench.report.tables.columns import DASH, figures, grid
from bench.studies.policy.comparison import POLICY

Row = Mapping[str, Any]

LOOKS = {
    POLICY: Look("#0072B2", "o", "-"),
    "SNR + entropy": Look("#D55E00", "s", "--"),
    "schedule alone": Look("#009E73", "^", "-."),
    "random mask": Look("#8a8a8a", "v", ":"),
}
PLOT = "drift.png"
TABLE = "methods.csv"
DODGE = 0.2  # percentage points: equal reuse would draw intervals over one another
VERBS = {"better": "drifts less than", "worse": "loses to", "same": "cannot be told from"}


def write_report(found: Mapping[str, Any], folder: Path) -> Path:
    """Write README.md and its plot to `folder`; the path of the page."""
    folder.mkdir(parents=True, exist_ok=True)
    plot(found["rows"], folder / PLOT)
    write_csv(folder / TABLE, list(found["rows"]))
    write_atomic(folder / "README.md", page(found).encode())
    return folder / "README.md"


def page(found: Mapping[str, Any]) -> str:
    """The Markdown."""
    return (
        "\n\n".join(
            [
                "# The learned policy, at equal reuse",
                f"**In one sentence:** {sentence(found['rows'])}",
                _setting(found),
                table(found["rows"]),
                f"[{TABLE}]({TABLE})",
                f"![Drift against reuse ratio for each method]({PLOT})",
                _training(found["policy"]),
                _reading(found),
            ]
        )
        + "\n"
    )


def sentence(rows: Sequence[Row]) -> str:
    """Where the policy wins, loses, and cannot be told apart, at the cache's full precision."""
    verdicts: dict[str, dict[str, list[str]]] = {}
    for row in rows:
        if row["over_policy"] and row["bits"] == 16:
            rivals = verdicts.setdefault(verdict(row), {})
            rivals.setdefault(row["method"], []).append(f"{row['target']:.0%}")
    parts = [
        f"{VERBS[kind]} " + ", ".join(f"the {_name(who)} ({' and '.join(at)})" for who, at in rivals.items())
        for kind, rivals in sorted(verdicts.items(), reverse=True)
    ]
    return f"At equal measured reuse the learned policy {'; it '.join(parts) or 'met no rival'}."


def verdict(row: Row) -> str:
    """Whether the policy is better than the row's method: the paired interval leaves 0 out, or not."""
    over = row["over_policy"]
    return "better" if over["low"] > 0 else "worse" if over["high"] < 0 else "same"


def table(rows: Sequence[Row]) -> str:
    """A line a method, target and quantisation."""
    titles = ["target", "cache bits", "method", "knob", "measured reuse", "drift", "drift less the policy's"]
    return grid(titles, [_cells(row) for row in rows])


def plot(rows: Sequence[Row], path: Path) -> Path:
    """Drift against measured reuse, a line a method; hollow where the cache is int8."""
    with style():
        figure = canvas(6.4, 4.2)
        ax = figure.subplots()
        for i, name in enumerate(LOOKS):
            _line(ax, [row for row in rows if row["method"] == name], name, DODGE * (i - 1.5))
        ax.margins(x=0.1)
        ax.set(
            xlabel=f"measured reuse ratio (%), methods set {DODGE:g} apart to be seen",
            ylabel="relative L2 of the final latent, lower is better",
        )
        ax.set_title("Drift at equal reuse: mean and 95 % interval over pictures; hollow: 8 bit cache")
        ax.set_ylim(bottom=0)
        ax.grid(True)
        ax.legend(loc="upper left")
        return save(figure, path)


def _line(ax: Any, rows: Sequence[Row], name: str, shift: float) -> None:
    full, coarse = (sorted((r for r in rows if r["bits"] == bits), key=_ratio) for bits in (16, 8))
    error = np.hstack([ends(d["mean"], d["low"], d["high"]) for d in (row["drift"] for row in full)])
    colour, marker, line = LOOKS[name]
    drawn = {"marker": marker, "color": colour, "label": name, "ls": line, "capsize": 2}
    ax.errorbar(*_points(full, shift), yerr=error, **drawn)
    ax.plot(*_points(coarse, shift), marker, mec=colour, mfc="white", ms=4, zorder=4)


def _ratio(row: Row) -> float:
    return float(row["ratio"])


def _points(rows: Sequence[Row], shift: float) -> tuple[list[float], list[float]]:
    return [100 * _ratio(row) + shift for row in rows], [row["drift"]["mean"] for row in rows]


def _cells(row: Row) -> list[str]:
    knob, value = next(iter(row["knob"].items()))
    reuse = f"{row['ratio']:.2%}" + ("" if row["equal"] else " (not the target)")
    drift = _with_interval(row["drift"])
    over = _with_interval(row["over_policy"]) if row["over_policy"] else DASH
    start = [f"{row['target']:.0%}", str(row["bits"]), row["method"]]
    return [*start, f"`{knob}` = {figures(3)(value)}", reuse, drift, over]


def _with_interval(mean: Mapping[str, float]) -> str:
    return "{} [{}, {}]".format(*(f"{mean[name]:.4f}" for name in ("mean", "low", "high")))


def _setting(found: Mapping[str, Any]) -> str:
    pictures, model = found["pictures"], found["model"]
    return (
        f"Model `{model['name']}`, {found['steps']} steps, guidance {found['guidance']}, on "
        f"{found['environment']['machine']}. {pictures['n']} pictures, one at a time, of seeds "
        f"{pictures['seeds'][0]} to {pictures['seeds'][1] - 1} and of {len(pictures['classes'])} classes "
        f"that no trace holds. An entry serves at most {found['max_age']} steps, for every method. The "
        "knob of each is searched until the measured share of reused attention calls is the target, with "
        "the cache at full precision, and kept for the 8 bit cache."
    )


def _training(policy: Mapping[str, Any]) -> str:
    f = policy["figures"]
    trace, final = f["trace"], f["final_damage"]
    return (
        f"## The policy\n\nA `{policy['kind']}`, trained on {trace['rows']} measured reuses of "
        f"{trace['seeds'][1] - trace['seeds'][0]} trajectories. On the held-out ones its ROC-AUC is "
        f"{f['roc_auc']:.3f}, and at its own threshold it reuses {f['reuse_ratio']:.1%} of them at a mean "
        f"damage of {f['damage']:.5f} (budget {f['budget']:.5f}; knowing every damage would allow "
        f"{f['best_ratio']:.1%}). The damage that labels a row is of the {f['damage_of']}.\n\n"
        "One layer's reuse changes the step's guided noise prediction by a relative L2 whose rank "
        f"correlation with the change of the final latent is {final['spearman']:.2f} (Spearman, "
        f"{final['rows']} single reuses followed to the end); that of the label is "
        f"{final['label_spearman']:.2f} on the {final['label_rows']} of held-out trajectories alone."
    )


def _reading(found: Mapping[str, Any]) -> str:
    return (
        "## How to read it\n\n"
        "Drift is ||x - x_0|| / ||x_0|| of the final latents, x_0 the untouched pipeline's of the same seed "
        "and class. Intervals are of the mean, by bootstrap over pictures, 95 %. The last column is paired: "
        "where its interval lies above 0 the policy is better, below 0 the other. A run that measures all "
        f"and reuses nothing drifts by {found['control_drift']:g}."
    )


def _name(method: str) -> str:
    return {"SNR + entropy": "SNR and entropy thresholds"}.get(method, method)
