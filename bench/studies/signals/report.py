"""The study as a page: a headline, two tables, maps over steps and layers. A function of its rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench.record import Mean
from bench.report.escape import escape
from bench.report.page import render, write_csv
from bench.report.plots.style import canvas, save, style
from bench.report.tables.columns import interval
from bench.studies.signals.analysis import Explained, Ranking, added, explained, rankings

ERRORS = {"hold": "holding the last output", "forecast": "a line through the last two, over log-SNR"}
WORTH = 0.05  # of the variance of ln(error), from which entropy earns a place in the default gate
WITHOUT_ENTROPY = ("SNR", "SNR + calibration")  # models that entropy is added to
NAMES = {"entropy": "entropy", "log_snr": "SNR", "latent_norm": "latent norm"}


def write_report(rows: pd.DataFrame, facts: Mapping[str, Any], out: Path) -> Path:
    """Write the study's page, its plot and its tables.

    Args:
        rows: as `measure.table` makes them.
        facts: what was measured on what.
        out: the directory of page, plots and tables.

    Returns:
        The page, README.md.
    """
    out.mkdir(parents=True, exist_ok=True)
    ranked = [ranking for error in ERRORS for ranking in rankings(rows, error)]
    shares = [share for error in ERRORS for share in explained(rows, error)]
    more = {error: {model: added(rows, error, model) for model in WITHOUT_ENTROPY} for error in ERRORS}
    plot(rows, out / "maps.webp")
    _csv(ranked, out / "rankings.csv")
    _csv(shares, out / "explained.csv")
    _csv([Explained(m, e, a) for e, by_model in more.items() for m, a in by_model.items()], out / "added.csv")
    content = {
        "facts": facts,
        "images": rows["image"].nunique(),
        "classes": rows["label"].nunique(),
        "steps": rows["step"].nunique(),
        "layers": rows["layer"].nunique(),
        "verdict": verdict({error: by_model["SNR"] for error, by_model in more.items()}),
        "added": more,
        "rankings": ranked,
        "explained": shares,
        "errors": ERRORS,
        "names": NAMES,
        "typical": {error: rows[error].median() for error in ERRORS},
    }
    title = f"signals: what entropy predicts, on {escape(facts['machine'])}"
    return render("signals.md.j2", title, headline(ranked, shares, more["hold"]), content).write(out)


def headline(ranked: Sequence[Ranking], shares: Sequence[Explained], more: Mapping[str, Mean]) -> str:
    """Sum the study up by what entropy adds, with intervals.

    Args:
        ranked: the rankings of both errors.
        shares: what the models explain of both errors.
        more: what entropy adds to each model for `hold`.

    Returns:
        One sentence.
    """
    entropy = next(r for r in ranked if (r.signal, r.error) == ("entropy", "hold"))
    share = {s.model: s.share for s in shares if s.error == "hold"}
    return (
        "Within a step, the rank correlation of a layer's entropy with the error of holding its output "
        f"is {interval(entropy.within_step, 2)}; entropy adds {interval(more['SNR'], 2)} to the "
        f"{share['SNR'].mean:.2f} of the variance of ln(error) that SNR explains, and "
        f"{interval(more['SNR + calibration'], 2)} to the {share['SNR + calibration'].mean:.2f} of SNR with "
        "a calibration of each layer."
    )


def verdict(more: Mapping[str, Mean]) -> str:
    """State what the study means for the default gate, which needs no calibration.

    Args:
        more: what entropy adds to SNR, for each error.

    Returns:
        One or two sentences.
    """
    shown = " and ".join(f"{interval(gain, 2)} ({error})" for error, gain in more.items())
    if max(gain.mean for gain in more.values()) >= WORTH:
        return (
            f"Neither SNR nor entropy needs a calibration, and entropy adds {shown} to what SNR explains: a "
            "gate on both is the default to choose."
        )
    return (
        f"Neither SNR nor entropy needs a calibration, but entropy adds only {shown} to what SNR explains. "
        "So the default gate is SNR with a bound on age, and the entropy gate is off until it is given a "
        "threshold; [gate](../gate/README.md) shows each of them at work."
    )


def _csv(rows: Sequence[Ranking | Explained], path: Path) -> None:
    write_csv(path, [_flat(row) for row in rows])


def _flat(row: Ranking | Explained) -> dict[str, Any]:
    return {k: _parts(v) if isinstance(v, Mean) else v for k, v in row._asdict().items()}


def _parts(value: Mean) -> dict[str, float]:
    return {"mean": value.mean, "low": value.low, "high": value.high}


def plot(rows: pd.DataFrame, path: Path) -> Path:
    """Plot entropy, hold error and forecast error over steps and layers, means over the images.

    Args:
        rows: as `measure.table` makes them.
        path: the file that the plot goes to.

    Returns:
        The file.
    """
    panels = [("entropy", "entropy (nats)"), ("hold", "error, held"), ("forecast", "error, forecast")]
    with style():
        figure = canvas(9.0, 3.0)
        for ax, (column, title) in zip(figure.subplots(1, 3), panels, strict=True):
            mean = rows.pivot_table(index="layer", columns="step", values=column)
            shown = mean if column == "entropy" else np.log10(mean)
            image = ax.imshow(shown, aspect="auto", origin="lower", cmap="cividis")
            figure.colorbar(image, ax=ax, label=title if column == "entropy" else "log10")
            ax.set_title(title)
            ax.set_xlabel("step")
            ax.set_ylabel("layer")
            ticks = np.linspace(0, mean.shape[1] - 1, 5).astype(int)
            ax.set_xticks(ticks, [str(mean.columns[i]) for i in ticks])
        return save(figure, path)
