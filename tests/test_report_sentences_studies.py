"""Every sentence of the studies' pages that holds a number: the number calculated again from measurements."""

# ruff: noqa: RUF001 - the sign × is meant

from __future__ import annotations

import csv
import json
import lzma
import re
from collections import Counter
from collections.abc import Callable
from statistics import fmean, median
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from page_checks import INTERVAL, REPORTS, RESULTS, ROOT, Forms, N, cells, equal, explain, interval, sentences
from scipy.stats import rankdata
from sentence_checks import same

from bench.report.page import Page

PLANS = ROOT / "bench" / "embedded" / "plans"
Array = NDArray[np.float64]

CALIBRATED = sorted(path.name for path in (REPORTS / "calibrate").iterdir() if path.is_dir())


@pytest.mark.parametrize("name", CALIBRATED)
def test_calibrated_plans(name: str) -> None:
    """Each number of a calibration's page follows from the plans' own files: steps counted branch by branch,
    the speedup from their cost."""
    page = REPORTS / "calibrate" / name / "README.md"
    rows = cells(page, "plan")
    plans = [json.loads((PLANS / row[0]).read_text()) for row in rows]
    facts = [plan["facts"] for plan in plans]
    (common,) = {
        (f["steps"], len(p["branches"]), f["images"], f["guidance"])
        for f, p in zip(facts, plans, strict=True)
    }
    steps, plan_steps, images, guidance = common
    ends = [x for f in (facts[0], facts[-1]) for x in (1 / f["cost"], f["held_out"]["mean"])]
    text = sentences(page).replace("95 % interval over images", "").replace("dpm_solver++", "")
    solved = re.findall(r"at (\d+) steps", facts[0].get("converged", ""))
    left = explain(text.replace("L2", ""), {
        rf"{N} steps, guidance {N}": equal(plan_steps, f"{guidance:g}"),
        rf"at {N} steps go from": equal(plan_steps),
        rf"{N}× by FLOPs at a drift of {N} to {N}× at {N} from": equal(*ends),
        rf"whole generations of {N} images": equal(images),
        rf"DDIM at {N} steps": equal(steps),
        **({rf"\*converged\*: by +at {N} steps": equal(*solved)} if solved else {}),
        rf"`num_inference_steps={N}`": equal(plan_steps),
    })  # fmt: skip
    assert not left
    for row, plan, fact in zip(rows, plans, facts, strict=True):
        counts, layers = Counter(plan["branches"]), sum("1" in step for step in plan["reuse"])
        equal(1 / fact["cost"], counts["2"], counts["1"], counts["0"], layers, fact["drift"])(*row[1:7])
        assert fact.get("plan_steps", steps) == plan_steps == sum(counts.values())
        for shown, key in zip(row[7:], ("held_out", "other_guidance", "baseline"), strict=True):
            interval(shown, fact[key])


def test_the_policys_comparison() -> None:
    """Means and paired differences are those of single images; the headline's verdicts follow from where
    their intervals lie; the training's numbers are those that the policy was saved with."""
    content = json.loads(next(RESULTS.glob("policy/*/comparison.json")).read_text())
    rows, page = content["rows"], REPORTS / "policy" / "README.md"
    policy = {(r["target"], r["bits"]): r for r in rows if r["method"] == "learned policy"}
    for row, shown in zip(rows, cells(page, "target"), strict=True):
        policy_drift = policy[row["target"], row["bits"]]["drift_per_image"]
        gaps = [a - b for a, b in zip(row["drift_per_image"], policy_drift, strict=True)]
        equal(f"{row['target']:.0%}", row["bits"], row["method"])(*shown[:3])
        same(shown[4].rstrip("%"), 100 * fmean(row["ratio_per_image"]))
        interval(shown[5], row["drift"] | {"mean": fmean(row["drift_per_image"])})
        if row["method"] != "learned policy":
            interval(shown[6], row["over_policy"] | {"mean": fmean(gaps)})
    kinds = {"does not differ from": "same", "drifts less than": "better", "drifts more than": "worse"}
    text = sentences(page)
    headline = text.split("**Summary:**")[1].split("\n")[0]
    for verb, names in re.findall(rf"({'|'.join(kinds)}) ([^;.]*)", headline):
        for name, targets in re.findall(r"the ([\w ]+) \(([^)]*)\)", names):
            method = "SNR + entropy" if name == "SNR and entropy thresholds" else name
            for target in re.findall(N, targets):
                row = next(
                    r for r in rows
                    if (r["method"], r["bits"], round(100 * r["target"])) == (method, 16, int(target))
                )  # fmt: skip
                low, high = row["over_policy"]["low"], row["over_policy"]["high"]
                assert kinds[verb] == ("better" if low > 0 else "worse" if high < 0 else "same")
    assert not explain(
        text.replace(headline, "")
        .replace("L2", "")
        .replace("x_0", "x")
        .replace("above 0", "")
        .replace("below 0", ""),
        _policy_forms(content),
    )


def _policy_forms(found: dict[str, Any]) -> Forms:
    trained, images = found["policy"]["metrics"], found["images"]
    trace, final = trained["trace"], trained["final_reuse_error"]
    seeds = range(*trace["seeds"])
    return {
        re.escape(found["environment"]["machine"]): equal(),
        rf"{N} steps, guidance {N}": equal(found["steps"], found["guidance"]),
        rf"{N} images, one at a time, of seeds {N} to {N} and of {N} classes": equal(
            images["n"], images["seeds"][0], images["seeds"][0] + images["n"] - 1,
            len(set(range(22)) - set(trace["numbers"])),
        ),
        rf"for at most {N} steps": equal(found["max_age"]),
        rf"{N} bit cache": equal(min(row["bits"] for row in found["rows"])),
        rf"{N} measured reuses of {N} trajectories": equal(trace["rows"], len(seeds)),
        rf"ROC-AUC is {N}": equal(trained["roc_auc"]),
        rf"reuses {N}% of them at a mean reuse error of {N} \(budget {N}": equal(
            100 * trained["reuse_ratio"], trained["reuse_error"], trained["budget"]
        ),
        rf"would allow {N}%": equal(100 * trained["best_ratio"]),
        rf"is {N} \(Spearman, {N} single": equal(final["spearman"], final["rows"]),
        rf"is {N} on the {N} of held-out": equal(final["label_spearman"], final["label_rows"]),
        rf"bootstrap over images, {N} %": equal(95),
        rf"drifts by {N}": equal(f"{found['control_drift']:g}"),
    }  # fmt: skip


def signal_rows() -> dict[str, Array]:
    """The published study's columns, each [images, steps, layers]."""
    file = next(RESULTS.glob("signals/*/columns.csv.xz"))
    with lzma.open(file, "rt") as stream:
        columns = {key: values for key, *values in csv.reader(stream)}
    shape = [len(set(columns[key])) for key in ("image", "step", "layer")]
    return {key: np.array(values, dtype=float).reshape(shape) for key, values in columns.items()}


def within_step(signal: Array, error: Array) -> Array:
    """Spearman's correlation over the layers, a mean over the steps for each image."""
    ranks = [rankdata(values, axis=2) for values in (signal, error)]
    a, b = (rank - rank.mean(2, keepdims=True) for rank in ranks)
    return np.asarray(((a * b).sum(2) / np.sqrt((a**2).sum(2) * (b**2).sum(2))).mean(1))


def unexplained(rows: dict[str, Array], error: str, entropy: bool, calibrated: bool) -> Array:
    """Squared residuals of ln(error), [images]: the normal equations of one half solved for the other."""
    images, _, layers = rows["entropy"].shape
    columns = [np.ones_like(rows["step"]), rows["log_snr"], rows["log_snr"] ** 2]
    columns += [rows["entropy"]] * entropy
    columns += [(rows["layer"] == layer).astype(float) for layer in range(1, layers)] * calibrated
    design, target = (
        np.stack(columns, -1).reshape(images, -1, len(columns)),
        np.log(rows[error]).reshape(images, -1),
    )
    left = np.empty(images)
    for half in (0, 1):
        x, y = design[1 - half :: 2].reshape(-1, len(columns)), target[1 - half :: 2].reshape(-1)
        weights = np.linalg.solve(x.T @ x, x.T @ y)
        left[half::2] = ((target[half::2] - design[half::2] @ weights) ** 2).sum(1)
    return left


def test_the_signals_study() -> None:
    """Correlations and shares of variance come out again from the rows, by ranks and normal equations; the
    bootstrap's intervals agree with the normal approximation over images."""
    rows, page = signal_rows(), REPORTS / "signals" / "README.md"
    facts = json.loads(next(RESULTS.glob("signals/*/facts.json")).read_text())
    images, steps, layers = rows["entropy"].shape
    each = within_step(rows["entropy"], rows["hold"])
    half = 1.96 * float(each.std()) / images**0.5
    share, more = _shares(rows)

    def ranked(mean: str, low: str, high: str) -> None:
        same(mean, float(each.mean()))
        assert abs(float(low) - each.mean() + half) < 0.011 and abs(float(high) - each.mean() - half) < 0.011

    def adds(error: str, calibrated: bool) -> Callable[[str, str, str], None]:
        def check(mean: str, low: str, high: str) -> None:
            same(mean, more[error, calibrated])
            assert float(low) <= float(mean) <= float(high)

        return check

    left = explain(sentences(page).replace("(95 %)", ""), {
        re.escape(facts["machine"]): equal(),
        rf"holding its output is {INTERVAL}": ranked,
        rf"entropy adds {INTERVAL}": adds("hold", False),
        rf"to the {N} of the variance of ln": equal(share["hold", False]),
        rf", and {INTERVAL}": adds("hold", True),
        rf"to the {N} of SNR with a calibration": equal(share["hold", True]),
        rf"adds only {INTERVAL} \(hold\)": adds("hold", False),
        rf"{INTERVAL} \(forecast\)": adds("forecast", False),
        rf"{N} images of {N} classes": equal(images, len(np.unique(rows["label"]))),
        rf"{N} steps, guidance {N}": equal(facts["steps"], facts["guidance"]),
        rf"each of {N} steps and {N} layers": equal(steps, layers),
        rf"last output; median error {N}": equal(median(rows["hold"].ravel().tolist())),
        rf"log-SNR; median error {N}": equal(median(rows["forecast"].ravel().tolist())),
    })  # fmt: skip
    assert not left


def _shares(rows: dict[str, Array]) -> tuple[dict[Any, float], dict[Any, float]]:
    """What SNR explains of the variance of ln(error), and what entropy adds, with and without calibration."""
    share, more = {}, {}
    for error in ("hold", "forecast"):
        target = np.log(rows[error])
        whole = float(((target - target.mean()) ** 2).sum())
        for calibrated in (False, True):
            less, with_entropy = (
                float(unexplained(rows, error, entropy, calibrated).sum()) for entropy in (False, True)
            )
            share[error, calibrated] = 1 - less / whole
            more[error, calibrated] = (less - with_entropy) / whole
    return share, more


def test_the_regression_gates_check() -> None:
    """Alarms are counted again from the verdicts, which are those of the ratio of seconds; what was planted
    is what the seconds show, as far as one run shows."""
    file = next(RESULTS.glob("asv-check/*/verdicts.csv"))
    with file.open() as stream:
        rows = [row for row in csv.DictReader(stream) if "feed_forward" not in row["name"]]
    planted = [row for row in rows if row["run"] == "planted"]
    others = [row for row in rows if row["run"] != "planted"]
    assert {row["verdict"] for row in others} <= {"SAME", "AMBIGUOUS"}
    assert all(
        abs(float(r["before"]) / float(r["after"]) - 1) < 0.1 for r in others if r["verdict"] == "SAME"
    )

    def caught(percent: str, count: str, of: str) -> None:
        slower = [row for row in planted if row["verdict"] == "SLOWER"]
        assert (int(count), int(of)) == (len(slower), len(planted))
        for row in slower:
            assert abs(float(row["after"]) / float(row["before"]) / (1 + int(percent) / 100) - 1) < 0.05

    left = explain(sentences(REPORTS / "asv-check" / "README.md"), {
        re.escape(file.parent.name): equal(),
        rf"{N} unchanged repetitions of {N} benchmarks raised no alarm": equal(
            len({row["run"] for row in others}), len({row["name"] for row in rows})
        ),
        rf"slowdown of {N}% was caught in {N} of {N}": caught,
    })  # fmt: skip
    assert not left


def test_every_study_with_a_page_is_checked() -> None:
    """A page that comes to be is one of those above, or of the suites' that other files check."""
    below = {path.parent.relative_to(REPORTS).parts[0] for path in REPORTS.glob("*/**/README.md")}
    here = {"calibrate", "policy", "signals", "asv-check", "families", "prompt-length"}
    suites = {path.stem for path in (ROOT / "bench" / "suites").glob("*.yaml")}
    assert here <= below and below - here - suites <= {"local", "generality", "tune", "scaling"}


def test_the_index_repeats_the_headlines() -> None:
    """Its entries are the pages' own summaries, so that no number in it is another than on its page."""
    index = re.sub(r"\s+", " ", (REPORTS / "README.md").read_text(encoding="utf-8"))
    for name in ("policy", "signals", "asv-check", "families", *(f"calibrate/{each}" for each in CALIBRATED)):
        page = Page.read(REPORTS / name / "README.md")
        assert page is not None
        for number in re.findall(r"\d+\.\d+", page.headline.split(": ")[0]):
            assert number in index, (name, number)
