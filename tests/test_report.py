"""The report is a function of the records: it repeats them faithfully and hides nothing."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from report_records import COMMAND, every_kind, failed, made, memory, stored, timing, written

from bench.pipeline.models import fingerprint_of
from bench.record import Record
from bench.report.earlier_weights import earlier_pages
from bench.report.page import Page, write_index
from bench.report.plots.memory import lines as lines_over_batch
from bench.report.selection import Selection
from bench.report.tables import runs
from bench.report.tables.columns import DASH, Table
from bench.report.text import checks
from bench.report.text.provenance import command, mixed
from bench.spec.suite_file import Goal


@pytest.fixture(scope="module")
def records() -> list[Record]:
    return every_kind()


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, records: list[Record]) -> Path:
    return stored(records, tmp_path_factory.mktemp("run") / "results" / "made-up" / "machine")


@pytest.fixture(scope="module")
def report(records: list[Record], results: Path) -> Path:
    return written(records, results, results.parents[2] / "reports" / "made-up")


def rows_after(report: Path, first_header: str) -> list[list[str]]:
    """The cells of the first Markdown table whose header row contains the words given."""
    text = report.read_text().splitlines()
    start = next(i for i, line in enumerate(text) if line.startswith("|") and first_header in line)
    body = text[start : text.index("", start)]
    return [[c.strip() for c in re.split(r"(?<!\\)\|", line)[1:-1]] for line in body]


def section(report: Path, heading: str) -> str:
    """The text below a heading, up to the next one of its level or above."""
    after = report.read_text().split(f"\n## {heading}\n", 1)[1]
    return after.split("\n## ", 1)[0]


@pytest.mark.slow
def test_same_records_same_bytes(records: list[Record], results: Path, report: Path) -> None:
    """Rendering the same records again gives the same Markdown, tables and plots."""
    again = written(records, results, results.parents[2] / "reports" / "again").parent
    first = {path.name: path.read_bytes() for path in report.parent.iterdir()}
    assert first == {path.name: path.read_bytes() for path in again.iterdir()}


def test_every_link_leads_somewhere(report: Path) -> None:
    """Every image and file that the Markdown names exists, and none by an absolute path."""
    links = re.findall(r"\]\(([^)]+)\)", report.read_text())
    assert len(links) > 20
    assert not [link for link in links if link.startswith("/")]
    files = [link for link in links if not link.startswith("#")]
    assert not [link for link in files if not (report.parent / link).exists()]


def test_plots_are_small(report: Path) -> None:
    """No plot is too large to be kept in a repository."""
    assert max(path.stat().st_size for path in report.parent.glob("*.webp")) < 200_000


def test_warnings_stand_before_the_summary(report: Path) -> None:
    """Idle configurations and twins are named above the first number that a reader meets."""
    head = report.read_text().split("**Summary:**")[0]
    warnings = [re.findall("`(.+?)`", line) for line in head.splitlines() if "**WARNING**" in line]
    assert ["dqar-66", "dqar-66-twin"] in warnings and ["idle"] in warnings


def test_failures_are_listed(report: Path) -> None:
    """A failed run is named with its reason, and stands in the table as FAILED."""
    assert r"- `too-big` (fora): out of memory \| 3 GB asked" in section(report, "Failures").splitlines()
    row = next(row for row in rows_after(report, "verdict") if row[0] == "too-big")
    assert row[3] == "FAILED" and set(row[4:]) == {DASH}


def test_csv_is_the_table(records: list[Record], report: Path) -> None:
    """The CSV read back and rounded is the Markdown table, cell for cell."""
    frame = pd.read_csv(report.parent / "configurations.csv")
    read = Table("configurations", runs.main_columns(records), frame)
    assert read.rows() == rows_after(report, "verdict")[2:]


@pytest.mark.parametrize(
    ("title", "reason", "names"),
    [
        ("peak GPU, torch (MB)", "no CUDA device", None),
        ("PSNR (dB)", "2 of 64 images are identical", ["dqar-33"]),
        ("PSNR (dB)", "infinite: every image is identical to the baseline's", ["baseline", "idle"]),
        ("precision to the reference", "few", ["fora-2"]),
        ("KID", "no images", ["fora-2"]),
        ("LPIPS", "no weights", ["fora-2"]),
    ],
)
def test_missing_values_have_their_reason(
    report: Path, title: str, reason: str, names: list[str] | None
) -> None:
    """A dash in a table, or a missing column, is listed with the record's reason and the configurations."""
    lines = [line for line in section(report, "All metrics").splitlines() if line.startswith("- ")]
    (line,) = [line for line in lines if title in line.split(": ")[0] and f": {reason} (" in line]
    assert names is None or re.findall("`(.+?)`", line) == names


def test_distances_are_shown_with_their_bias(report: Path) -> None:
    """Each distance stands with its extractor, n and bias, in the Markdown and in both CSVs, next to
    precision and recall."""
    name = "FD (emoji-96, n = 300, biased)"
    header, _, *rows = rows_after(report, "| against")
    assert {"precision ↑", "recall ↑", "KID ↓"} <= set(header)
    assert all(name in row and "0.622" in row for row in rows)
    whole = pd.read_csv(report.parent / "configurations.csv")
    assert set(whole.fd_name.dropna()) == set(pd.read_csv(report.parent / "distances.csv").distance) == {name}
    assert whole.fd_name.notna().equals(whole.fd.notna())


def test_contaminated_pairs_are_counted(records: list[Record]) -> None:
    """Pairs that were measured but excluded are counted and attributed; where fewer than two would remain,
    all count, and the run is named."""
    line = checks.controls(Selection(records))[-1]
    assert re.findall(r"\d+|`.+?`", line) == ["2", "108", "`bare`", "2"]
    noisy = made("noisy", "dqar", 1.1, 0.1, 0.2, timing=timing(1.1, contaminated=8))
    excluded, used = checks.controls(Selection([noisy]))
    assert re.findall(r"\d+", excluded) == ["0", "9"] and "`noisy`" in used


def test_provenance_shows_differences(report: Path) -> None:
    """The command and environment are shown, and what differs between records is a warning and a table."""
    head, provenance = report.read_text().split("**Summary:**")[0], section(report, "Provenance")
    assert f"    {COMMAND}" in provenance and "inputs.sources" in provenance.split("**Differs")[1]
    assert any("**WARNING**" in line and "inputs.sources" in line for line in head.splitlines())


def test_a_configurations_own_files_are_no_difference(records: list[Record]) -> None:
    """A plan, a policy or searched timesteps are one configuration's; other weights of the model warn."""
    own, other = (record.model_copy(deep=True) for record in records[:2])
    for name in ("plan", "policy", "timesteps"):
        own.environment["inputs"][name], other.environment["inputs"][name] = "a", "b"
    assert not [
        line for line in mixed([own, other]) if any(n in line for n in ("plan", "policy", "timesteps"))
    ]
    own.environment["inputs"]["model"], other.environment["inputs"]["model"] = "c", "d"
    assert any("inputs.model" in line for line in mixed([own, other]))


def test_earlier_weights_are_stated(tmp_path: Path, undrawn: None) -> None:
    """Records of a shipped model as it was before say so on their page and in the index; those of its
    weights of today, and of models that do not ship, do not."""
    results = tmp_path / "results"
    of = {"then": ("embedded", "a"), "now": ("embedded", fingerprint_of("embedded")), "other": ("org/x", "a")}
    said = {}
    for suite, (model, weights) in of.items():
        record = made("run", "dqar", 1.1, 0.02, 0.2, suite=suite, config={"model": model},
                      environment={"inputs": {"model": weights}})  # fmt: skip
        path = results / suite / "m" / "run.json"
        path.parent.mkdir(parents=True)
        path.write_text(record.model_dump_json())
        said[suite] = (
            "earlier weights of `embedded`" in written([record], tmp_path, tmp_path / suite).read_text()
        )
    assert said == {"then": True, "now": False, "other": False}
    for place, facts in {
        "signals/m/facts.json": {"model": "embedded", "fingerprint": "a"},
        "policy/m/comparison.json": {"model": {"name": "embedded", "fingerprint": "a"}},
        "tune/m/embedded/facts.json": {"model": "embedded", "fingerprint": "a"},
        "tune/m/now/facts.json": {"model": "embedded", "fingerprint": fingerprint_of("embedded")},
        "generality/m/embedded.json": {"facts": {"model": "embedded", "fingerprint": "a"}},
    }.items():
        (results / place).parent.mkdir(parents=True, exist_ok=True)
        (results / place).write_text(json.dumps(facts))
    earlier = earlier_pages(results)
    assert earlier == ["generality", "policy", "signals", "then", "tune/embedded"]
    text = write_index(tmp_path, earlier).read_text()
    assert "[then](then/README.md)**°." in text and "[now](now/README.md)**." in text


def test_the_head_has_title_command_and_commit(tmp_path: Path, undrawn: None) -> None:
    """The question is the title, also in the index; above the summary stand the exact command, commit,
    machine, versions and seed."""
    facts = {
        "git": {"commit": "0123456789", "dirty": False},
        "machine": "m",
        "packages": {"torch": "2"},
        "seed": 0,
    }
    good = made("good", "dqar", 1.1, 0.02, 0.2, environment=facts)
    text = written([good], tmp_path, tmp_path / "out", "Does it help?").read_text()
    head = text.split("**Summary:**")[0]
    assert text.splitlines()[0] == "# Does it help?"
    assert f"`{COMMAND}`: commit 0123456, machine m, torch 2, seed 0 (" in head
    assert "*Does it help?*" in write_index(tmp_path).read_text()


def test_goals_are_judged_by_whole_intervals(tmp_path: Path, undrawn: None) -> None:
    """A goal is met or missed by a whole interval and unclear else, of a metric or of a ratio to another
    metric or to another run; what was not measured is not judged."""
    fast, slow = (made(n, "dqar", speed, 0.1, ratio=0.5) for n, speed in (("fast", 1.2), ("slow", 1.0)))
    slow = slow.model_copy(update={"memory": memory().model_copy(update={"cache_bytes": 4 * 2_654_321})})
    speedup, cache, energy = "timing.speedup", "memory.cache_bytes", "memory.energy_j"
    limit = "limits.speedup_limit"
    asked: list[tuple[dict[str, Any], list[str]]] = [
        ({"run": "fast", "metric": speedup, "at_least": 1.18}, ["≥ 1.18", "1.20 [1.19, 1.21]", "met"]),
        ({"run": "fast", "metric": speedup, "at_least": 1.2}, ["≥ 1.2", "1.20 [1.19, 1.21]", "unclear"]),
        ({"run": "fast", "metric": speedup, "at_least": 1.3}, ["≥ 1.3", "1.20 [1.19, 1.21]", "missed"]),
        ({"run": "fast", "metric": speedup, "at_most": 1.3}, ["≤ 1.3", "1.20 [1.19, 1.21]", "met"]),
        ({"run": "fast", "metric": speedup, "of": limit, "at_least": 0.9}, ["≥ 0.9", "0.960 [0.948, 0.972]", "met"]),  # noqa: E501
        ({"run": "fast", "metric": speedup, "over": "slow", "at_least": 1.18}, ["≥ 1.18", "1.20 [1.17, 1.23]", "unclear"]),  # noqa: E501
        ({"run": "fast", "metric": cache, "over": "slow", "at_most": 0.25}, ["≤ 0.25", "0.250", "met"]),
        ({"run": "fast", "metric": energy, "at_most": 1}, ["≤ 1", DASH, "not measured"]),
        ({"run": "gone", "metric": speedup, "at_most": 1}, ["≤ 1", DASH, "not measured"]),
    ]  # fmt: skip
    goals = [Goal(description="it", **goal) for goal, _ in asked]
    page = written([fast, slow], tmp_path, tmp_path / "out", goals=goals)
    assert [row[2:] for row in rows_after(page, "| goal |")[2:]] == [expected for _, expected in asked]
    assert "## Goals" not in written([fast], tmp_path, tmp_path / "none").read_text()


def at_batch(size: int, options: dict[str, Any], **changes: Any) -> Record:
    name = f"run-{size}-bits={options['bits']}"
    config = {"model": "embedded", "batch_size": size, "options": options, "method": "dqar"}
    return made(name, "dqar", 1.1, 0.1, config=config, **changes)


def test_peaks_are_drawn_over_the_batch_size(tmp_path: Path, undrawn: None) -> None:
    """A line is what differs in its batch size alone, in order, with what did not fit; a value that is null
    or zero is no point, and a report of one batch size has no such plot."""
    held = memory().model_copy(update={"torch_allocated_peak": 3 * 10**9, "cache_bytes": 0})
    full = {"status": "failed", "reason": "out of memory: 1 GB", "memory": None, "timing": None}
    found = [
        at_batch(4, {"bits": 8}),
        at_batch(1, {"bits": 8}, memory=held),
        at_batch(16, {"bits": 8}, **full),
        at_batch(4, {"bits": 16}),
    ]
    (line,) = lines_over_batch(found)
    assert (line.name, line.exceeded) == ("run-bits=8", [16])
    assert line.points("memory.rss_peak") == [(1, 0.812345678), (4, 0.812345678)]
    assert line.points("memory.torch_allocated_peak") == [(1, 3.0)]
    assert line.points("memory.cache_bytes") == [(4, 0.002654321)]
    text = written(found, tmp_path, tmp_path / "out").read_text()
    assert "](memory.webp)" in text and (tmp_path / "out" / "memory.webp").is_file()
    assert "memory.webp" not in written(found[3:], tmp_path, tmp_path / "one").read_text()


def test_the_command_has_the_options_that_were_given() -> None:
    """The command is that of the suite's name, and the options that differ from its file."""
    asked = {"a": {"model": "embedded", "seed": 0, "quality": {"n": 20, "reference": None}}}
    record = made(
        "a", "dqar", 1.1, 0.1, config={"model": "xl", "seed": 0, "quality": {"n": 50, "reference": None}}
    )
    assert command("mine", asked, [record]) == "python -m bench run mine --model xl --images 50"
    same = record.model_copy(update={"config": asked["a"]})
    assert command("mine", asked, [same]) == "python -m bench run mine"


def test_random_weights_are_stated_first(tmp_path: Path, undrawn: None) -> None:
    """A suite on random weights states in its first line that it measures time and memory only."""
    config = {"model": "facebook/DiT-XL-2-256", "weights": "random", "batch_size": 1}
    bare = made("quick", "dqar", 1.2, 0.1, 0.3, quality=None, config=config)
    text = written([bare], tmp_path, tmp_path / "out").read_text()
    first = next(line for line in text.splitlines()[1:] if line)
    assert first.startswith("**Random weights")


def test_only_failures_still_make_a_report(tmp_path: Path, undrawn: None) -> None:
    """A suite of which nothing finished has a report that names what failed, and recommends nothing."""
    page = written([failed()], tmp_path, tmp_path / "out")
    assert "`too-big`" in section(page, "Failures") and "| question |" not in page.read_text()


def test_the_index_has_every_page_with_its_headline(report: Path) -> None:
    """The index has every page's title and headline, those of a study that has several too, and no file
    that is no page."""
    reports = report.parents[1]
    nested = Page("study: one", "this --> <b>too</b>.", "**Summary:** this.").write(reports / "study" / "one")
    other = reports / "other" / "README.md"
    other.parent.mkdir()
    other.write_text("# A stranger's\n\n**Summary:** no page of ours.\n")
    text = write_index(reports).read_text()
    page = Page.read(report)
    assert page is not None and page.title in text and page.headline[1:] in text
    assert "[study/one](study/one/README.md)" in text and "This --> <b>too</b>." in text
    assert Page.read(nested) == Page("study: one", "this --> <b>too</b>.", "**Summary:** this.")
    assert "other/README.md" not in text and "](README.md)" not in text
