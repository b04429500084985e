"""Every sentence of a report that holds a number, over all published suites: the number calculated again."""

# ruff: noqa: RUF001 - the sign × is meant

from __future__ import annotations

import functools
import json
import re
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

import pytest
from sentence_checks import Sentence, same

from bench.record import Record
from bench.report.suite_report import SuiteReport
from bench.report.text.provenance import command
from bench.spec.suite import Suite, available
from bench.store.validation import valid_records

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results" / "published"
RESULTS = RESULTS if RESULTS.is_dir() else ROOT / "results"
NO_PLOTS: dict[str, Any] = dict.fromkeys(("pareto", "ratios", "speedups", "maps", "peaks"))
NO_PLOTS |= {"front_plots": [], "samples": []}


def published() -> list[str]:
    """The suites with a report of their own kind and committed records."""
    found = [name for name in available() if (RESULTS / name).is_dir()]
    return [name for name in found if Suite.load(name).command is None]


@functools.cache
def loaded(name: str) -> tuple[SuiteReport, list[Record]]:
    """The report of a suite on its committed records, for all tests of this process."""
    suite = Suite.load(name)
    read = {r.name: r for r in valid_records(RESULTS / name)}
    records = [read[run] for run in suite.names if run in read]
    asked = {spec.name: spec.public() for spec in suite.configurations}
    directory = next((RESULTS / name).iterdir())
    return (
        SuiteReport(
            records, directory, command(name, asked, records), suite.title, suite.goals,
            suite.file.no_loss_margin, suite.file.subject,
        ),
        records,
    )  # fmt: skip


@functools.cache
def markdown(name: str) -> str:
    """The text of the report of a suite."""
    report, _ = loaded(name)
    return report.page(NO_PLOTS, report.results).markdown


def sentences(markdown: str) -> list[str]:
    """The text of a page: its paragraphs and list entries, and the answers; no other table, no provenance,
    no missing values, which are the records' own words."""
    body = markdown.split("\n## Provenance")[0]
    body = re.sub(r"<details>.*?</details>", "", body, flags=re.S)
    body = re.sub(r"\nMissing values.*?\n\n(?=\S)(?:- .*\n)+", "\n", body)
    lines = body.split("\n")[1:]  # the title is the suite's
    answers = [line.split(" | ", 1)[1] for line in lines if line.startswith("| **")]
    text = [line for line in lines if not line.startswith(("|", "#", "![", "["))]
    # The lines about fronts: tests/test_report_sentences_fronts.py has them.
    paragraphs = "\n".join(text).replace("\n  ", " ").split("\n")
    fronts = ("- **(", "- **On front", "- **Seconds against", "- **DQAR over")
    kept = [p for p in paragraphs if not p.startswith(fronts)]
    return [" ".join(answers), *_joined(kept)]  # the answers are about one configuration


def _joined(lines: list[str]) -> list[str]:
    """Wrapped lines as paragraphs."""
    found: list[str] = [""]
    for line in lines:
        if not line or line.startswith(("- ", ">")):
            found.append(line)
        else:
            found[-1] = f"{found[-1]} {line}".strip()
    return [line for line in found if line]


@pytest.mark.parametrize("name", published())
def test_every_number_of_every_sentence_is_the_records(name: str) -> None:
    """Each number in a sentence has a form that is known, and is what the records give when it is
    calculated again from raw samples; what has no known form fails."""
    report, records = loaded(name)
    known = json.dumps([record.environment for record in records]) + report.command
    unexplained = []
    for text in sentences(markdown(name)):
        made_by = re.search(r"Made by .*", text)
        if made_by:
            _provenance(made_by.group(0), known)
            text = text[: made_by.start()]
        if text.startswith(">"):
            _provenance(text, known + " ".join(record.name for record in records))
            continue
        rest = Sentence(text, records, report.margin).explain()
        unexplained += [rest] if rest else []
    assert not unexplained


def _provenance(text: str, known: str) -> None:
    """Hashes, versions and numbers that a line of provenance shows are in the records' environments."""
    for token in re.findall(r"[\w.]*\d[\w.]*", re.sub(r"\d+ configurations|`[^`]*`", "", text)):
        assert token.strip(".") in known, token


def test_a_wrong_number_is_noticed() -> None:
    """The check itself can fail: one digit changed in a sentence is no longer what the records give."""
    report, records = loaded(published()[0])
    text = next(s for s in sentences(markdown(published()[0])) if "the baseline's speed" in s)
    Sentence(text, records, report.margin).explain()
    wrong = re.sub(r"at (\d)\.(\d)", lambda m: f"at {m[1]}.{(int(m[2]) + 1) % 10}", text, count=1)
    with pytest.raises(AssertionError):
        Sentence(wrong, records, report.margin).explain()


def test_a_number_of_no_known_form_is_noticed() -> None:
    """A sentence with a number that is not calculated again is unexplained."""
    _, records = loaded(published()[0])
    assert Sentence("It is 7 times better.", records, 0.05).explain()


def test_the_readme_leads_with_what_was_measured() -> None:
    """Its first lines of code enable a configuration of the embedded report, and the numbers in the paragraph
    below are those of its record, of a faster one, of what the report recommends and of the published
    preset."""
    report, records = loaded("embedded")
    chosen = next(record for record in records if record.name == "spread-20")
    other = next(record for record in records if record.name == "spread-16")
    recommended = report.selection.recommended.record
    assert recommended is not None
    text = (ROOT / "README.md").read_text().split("## Use it")[1]
    lead, paragraph = text.split("```")[1], text.split("```")[2].split("\n\n")[1]
    options = chosen.config["options"]
    assert f'preset("{options["preset"]}"' in lead
    assert f"`{chosen.name}`" in paragraph and f"recommends is `{recommended.name}`" in paragraph
    fields = ("layer_fraction", "model_steps", "log_snr_share")
    assert ", ".join(f"{field}={options[field]}" for field in fields) in lead
    assert f"num_inference_steps={options['steps']}" in lead
    assert "scheduler" not in options and "DDIMScheduler.from_config" in lead
    published = next(record for record in records if record.name == "recommended")
    assert published.timing is not None and published.quality is not None
    shown = re.findall(r"([\d.]+)× \[([\d.]+), ([\d.]+)\]", paragraph)
    for numbers, record in zip(shown, (chosen, other, recommended, published), strict=True):
        assert record.timing is not None
        found = record.timing.speedup
        assert [f"{x:.2f}" for x in (found.median, found.low, found.high)] == list(numbers)
    assert f"a drift of {published.quality.drift.mean:.3f}" in paragraph
    assert chosen.quality is not None
    baseline = chosen.quality.baseline_drift_converged_per_image
    gaps = [a - b for a, b in zip(chosen.quality.drift_converged_per_image, baseline, strict=True)]
    difference = re.search(r"baseline's own, is (-?[\d.]+) \[", paragraph)
    assert difference is not None
    same(difference[1], fmean(gaps))


def test_the_readmes_figures_of_a_flow_are_those_of_the_record() -> None:
    """Speed and paired difference of `fine-14` are those of the text-to-image report."""
    record = next(record for record in loaded("embedded-t2i")[1] if record.name == "fine-14")
    text = (ROOT / "README.md").read_text().split("[`fine-14`]")[1]
    shown = re.match(r".*?run at ([\d.]+)× \[([\d.]+), ([\d.]+)\] and end nearer by ([\d.]+) \[", text, re.S)
    assert shown is not None and record.timing is not None and record.quality is not None
    found = record.timing.speedup
    assert [f"{x:.2f}" for x in (found.median, found.low, found.high)] == list(shown.groups()[:3])
    drifts, baseline = (
        record.quality.drift_converged_per_image,
        record.quality.baseline_drift_converged_per_image,
    )
    same(shown[4], fmean(b - a for a, b in zip(drifts, baseline, strict=True)))


def test_the_readmes_distances_are_those_of_the_records() -> None:
    """Of 1,000 images by KID no configuration of either model is measurably further away than the baseline;
    the two FDs are those of the records, in that order."""
    for suite in ("distances", "distances-t2i"):
        found = {r.name: r.quality.to_reference for r in loaded(suite)[1] if r.quality}
        for distance in found.values():
            assert distance is not None and distance.n >= 1000
            assert distance.kid_change is not None and distance.kid_change.low <= 0
    few, baseline = (
        next(r.quality.to_reference for r in loaded("distances")[1] if r.quality and r.name == name)
        for name in ("dqar-spread-model_steps=8", "baseline")
    )
    text = " ".join((ROOT / "README.md").read_text().split())
    shown = re.search(r"either model by KID none .* 8 evaluations \(([\d.]+)\) .* 50 \(([\d.]+)\)", text)
    assert shown is not None and few is not None and baseline is not None
    assert shown.groups() == (f"{few.fd:.2f}", f"{baseline.fd:.2f}")


def test_the_readme_has_the_defaults_differences_of_the_published_records() -> None:
    """Each cell of its table is the mean over images of the drift from converged less the baseline's own,
    with an interval of the width that the scatter of the images gives; the heads have the bounds."""
    text = (ROOT / "README.md").read_text().split("without a configuration is")[1]
    rows = [line.split("|")[1:] for line in text.splitlines() if line.startswith("|")][:5]
    suites, names = ("embedded", "embedded-t2i", "gate"), ("balanced", "default", "default-held")
    for column, suite in enumerate(suites, 1):
        by_name = {record.name: record for record in loaded(suite)[1]}
        for row, name in zip(rows[2:], names, strict=True):
            if name not in by_name:
                assert row[column].strip() == "–"
                continue
            quality = by_name[name].quality
            assert quality is not None
            baseline = quality.baseline_drift_converged_per_image
            gaps = [a - b for a, b in zip(quality.drift_converged_per_image, baseline, strict=True)]
            mean, low, high = re.findall(r"-?[\d.]+", row[column])
            same(mean, fmean(gaps))
            width = 2 * 1.96 * pstdev(gaps) / len(gaps) ** 0.5
            assert float(low) < float(mean) < float(high)
            assert float(high) - float(low) == pytest.approx(width, rel=0.2)
            assert f"({0.05 * fmean(baseline):.4f})" in rows[0][column]
