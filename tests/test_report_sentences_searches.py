"""Every sentence and cell of the tuning study's and the scaling study's pages, calculated again from what was
measured."""

# ruff: noqa: RUF001 - the sign × is meant

from __future__ import annotations

import csv
import io
import json
import lzma
import re
from statistics import fmean, geometric_mean, median
from typing import Any, NamedTuple

import pytest
from page_checks import REPORTS, RESULTS, N, cells, equal, explain, sentences
from sentence_checks import same


class Trial(NamedTuple):
    """A trial that was judged."""

    evaluations: float
    drifts: tuple[float, ...]
    speedup: float

    @property
    def score(self) -> float:
        """The geometric mean of the drifts."""
        return geometric_mean(self.drifts)


def searches(model: str) -> dict[str, list[Trial | None]]:
    """The trials of each search, in the order of the file; None for one that failed."""
    path = next((RESULTS / "tune").glob(f"*/{model}/trials.csv.xz"))
    rows = csv.DictReader(io.StringIO(lzma.decompress(path.read_bytes()).decode()))
    found: dict[str, list[Trial | None]] = {}
    for row in rows:
        drifts = tuple(float(row[key]) for key in row if key.startswith("drift_") and row[key])
        judged = Trial(float(row["evaluations"]), drifts, float(row["speedup"])) if drifts else None
        found.setdefault(row["search"], []).append(judged)
    return found


def front(trials: list[Trial | None]) -> list[Trial]:
    """Those that no other equals at fewer evaluations and less drift, the cheapest first."""
    judged = {(trial.evaluations, trial.score): trial for trial in trials if trial}.values()
    return sorted(
        one for one in judged
        if not any(
            (other.evaluations, other.score) != (one.evaluations, one.score)
            and other.evaluations <= one.evaluations and other.score <= one.score
            for other in judged
        )
    )  # fmt: skip


def cost(trials: list[Trial], level: float) -> float | None:
    return min((trial.evaluations for trial in trials if trial.score <= level), default=None)


@pytest.mark.parametrize("model", ["embedded", "embedded-t2i"])
def test_the_tuning_study(model: str) -> None:
    """Each search's failures, front and fewest evaluations follow from its trials' drifts; the headline names
    the cheapest at each level; the settings' numbers are their trials'."""
    page = REPORTS / "tune" / model / "README.md"
    tried, text = searches(model), sentences(page)
    fronts = {name: front(trials) for name, trials in tried.items()}
    header = next(line for line in page.read_text().split("\n") if line.startswith("| search | trials |"))
    levels = [float(level) for level in re.findall(rf"drift ≤ {N}", header)]
    for name, trials, failed, on_front, *costs in cells(page, "search"):
        counts = (len(tried[name]), tried[name].count(None), len(fronts[name]))
        equal(*counts)(trials, failed, on_front)
        for shown, level in zip(costs, levels, strict=True):
            least = cost(fronts[name], level)
            if least is None:
                assert shown == "–"
            else:
                same(shown, least)
    best: dict[float, tuple[float, str]] = {
        level: min((least, name) for name in fronts if (least := cost(fronts[name], level)) is not None)
        for level in levels
    }
    headline = text.split("**Summary:**")[1].split("\n")[0]
    named = re.findall(rf"{N}: ([\w+.]+) at {N}", headline)
    assert [float(level) for level, _, _ in named] == levels
    for level, name, shown in named:
        same(shown, best[float(level)][0])
        least = cost(fronts[name], float(level))
        assert least == best[float(level)][0]
    points = [trial for trials in fronts.values() for trial in trials]
    for row, trial in zip(cells(page, "search | options"), points, strict=True):
        share = fmean(drift > 0.2 for drift in trial.drifts)
        numbers = (trial.evaluations, trial.speedup, trial.score, fmean(trial.drifts), median(trial.drifts))
        for shown, value in zip(row[2:], (*numbers, share), strict=True):
            same(shown, value)
    facts = json.loads(next((RESULTS / "tune").glob(f"*/{model}/facts.json")).read_text())
    known = facts.get("converged")  # studies before it lack it
    assert not explain(text.replace(headline, "").replace(model, ""), {
        rf"{N} steps, guidance {N}": equal(facts["steps"], f"{facts['guidance']:g}"),
        rf"# tune: every method's options on model , {N} steps": equal(facts["steps"]),
        rf"on the same {N} images": equal(facts["images"]),
        **({rf"solved by [\w+]+ at {N} steps": equal(*re.findall(r"\d+", known))} if known else {}),
    })  # fmt: skip


def measured_scaling() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(next((RESULTS / "scaling").glob("*/measured.json")).read_text())
    return content


def test_what_the_cluster_costs() -> None:
    """The time of a task, the workers' rates and their ratio, and the harness's share are those measured."""
    content, page = measured_scaling(), REPORTS / "scaling" / "README.md"
    empty, (one, two) = content["empty"], content["rates"]
    each = empty["seconds"] / empty["tasks"]
    text = page.read_text(encoding="utf-8")
    table = text.split("## Measured")[1].split("## On paper")[0].replace(content["machine"], "")
    forms = {
        rf"with {N} workers:": equal(empty["workers"]),
        rf"{N} in {N} s": equal(empty["tasks"], empty["seconds"]),
        rf"{N} ms": equal(1000 * each),
        rf"task of a minute \| {N} %": equal(100 * each / 60),
        rf"{N} / {N} MiB": equal(*(grown / 2**20 for grown in empty["grown"])),
        rf"{N} workers make shards at {N} times the rate of {N}": equal(
            two["workers"], two["images"] / two["seconds"] / (one["images"] / one["seconds"]), one["workers"]
        ),
    }  # fmt: skip
    for rate in (one, two):
        overhead = 100 * (rate["seconds"] / rate["within"] - 1)
        forms[
            rf"by {rate['workers']} workers? of one thread \| {N} images a second, both arms;"
            rf" the harness adds {N} % to a shard of {N} s; {N} s to start"
        ] = equal(
            2 * rate["images"] / rate["seconds"], overhead, rate["within"] / rate["tasks"], rate["start"]
        )
    assert not explain(table, forms)


def test_the_plan_on_paper() -> None:
    """The table is the plan's file; one GPU takes the images of eleven runs; efficiency is against that, and
    the headline repeats the table."""
    page = REPORTS / "scaling" / "README.md"
    with (page.parent / "plan.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for shown, row in zip(cells(page, "device"), rows, strict=True):
        assert shown[:2] == [row["device"], row["gpus"]]
        hours, again = float(row["hours"]), float(row["hours_with_failures"])
        image = {"original": 2.74, "modern": 0.1}[row["device"]]
        alone = 11 * 50_000 * image / 3600
        assert float(row["efficiency"]) == pytest.approx(alone / hours / int(row["gpus"]), rel=0.01)
        values = (hours, 100 * alone / hours / int(row["gpus"]), float(row["gigabytes"]))
        for cell, value in zip(shown[2:5], values, strict=True):
            assert float(re.findall(N, cell)[0]) == pytest.approx(value, rel=0.01, abs=0.06)
        equal(row["failures"], row["made_again"])(*shown[5:7])
        same(shown[7], again)
        same(re.findall(N, shown[8])[0], 100 * (again / hours - 1))
    headline = sentences(page).split("**Summary:**")[1].split("\n")[0]
    original = [row for row in rows if row["device"] == "original"]
    first, last = original[0], original[-1]
    assert "FID on 50,000 images of ten configurations" in headline
    assert f"{float(first['hours']):.0f} h on one GPU" in headline
    assert f"{float(last['hours']):.1f} h on {last['gpus']}" in headline
    assert f"at {100 * float(last['efficiency']):.0f}% efficiency" in headline
