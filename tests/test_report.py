"""The report is a function of the records: it repeats them faithfully and hides nothing."""

# ruff: noqa: RUF001 - the sign × is meant

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from bench.record import Distance, Limits, Mean, Median, Memory, Quality, Record, Reuse, Timing, Worst
from bench.report.page import write_index, write_report
from bench.report.plots.memory import lines as lines_over_batch
from bench.report.selection import controls, sentence
from bench.report.tables import runs
from bench.report.tables.columns import DASH
from bench.report.text.provenance import command
from bench.report.text.recommendation import answers
from bench.spec.suite_file import Goal

STEPS, LAYERS = 20, 10
COMMAND = "python -m bench run made-up"


def around(value: float, share: float) -> dict[str, float]:
    return {"low": value * (1 - share), "high": value * (1 + share)}


def timing(speed: float, disturbed: int = 0) -> Timing:
    wobble = np.linspace(0.985, 1.02, 9)
    return Timing(
        speedup=Median(median=speed, **around(speed, 0.012)),
        baseline_s=Median(median=2.0, **around(2.0, 0.01)),
        candidate_s=Median(median=2.0 / speed, **around(2.0 / speed, 0.01)),
        pairs=[(2.0 * float(w), 2.0 / speed) for w in wobble],
        disturbed=list(range(disturbed)),
        disturbed_why=["load"] * disturbed,
        baseline="eager",
        batch_size=16,
        stopped="target",
        verdict="FASTER" if speed > 1.02 else "SAME" if speed > 0.98 else "SLOWER",
        verdict_why="made up",
    )


def memory() -> Memory:
    return Memory(
        rss_peak=812_345_678,
        rss_idle=401_000_000,
        torch_allocated_peak=None,
        torch_reserved_peak=None,
        nvml_device_peak=None,
        nvml_device_idle=None,
        nvml_process_peak=None,
        sampler_samples=None,
        sampler_cpu_share=None,
        cache_bytes=2_654_321,
        energy_j=None,
        missing={"torch_allocated_peak": "no CUDA device", "energy_j": "no counter"},
    )


def distance(fd: float, extractor: str = "emoji-96", n: int = 300, **changes: Any) -> Distance:
    fields: dict[str, Any] = {
        "fd": fd,
        "kid": Mean(mean=fd / 1000, low=fd / 1500, high=fd / 700),
        "precision": 0.731,
        "recall": 0.622,
        "extractor": extractor,
        "reference": "held-out images",
        "n": n,
        "n_reference": 602,
    }
    return Distance(**fields | changes)


def quality(name: str, drift: float, own: float = 0.12, **changes: Any) -> Quality:
    converged = float(np.hypot(drift, own))
    spread = [drift * f for f in (1.4, 1.2, 1.1, 1.0, 0.8, 0.5)]
    worst = [
        Worst(index=i, seed=7 + i, label=f"face smiling {i}", drift=d, psnr_db=27.5 - i if d else None)
        for i, d in enumerate(spread[:4])
    ]
    fields: dict[str, Any] = {
        "n": 64,
        "drift": Mean(mean=drift, **around(drift, 0.09)),
        "drift_per_image": spread,
        "psnr_db": Mean(mean=31.0 - 20 * drift, **around(31.0 - 20 * drift, 0.02)) if drift else None,
        "ssim": Mean(mean=1 - drift / 3, low=0.9 - drift / 3, high=1.0),
        "lpips": Mean(mean=drift / 4, low=drift / 5, high=drift / 3),
        "drift_converged": Mean(mean=converged, **around(converged, 0.1)),
        "baseline_drift_converged": Mean(mean=own, **around(own, 0.1)),
        "n_converged": 16,
        "to_reference": distance(2.1 + drift),
        "to_baseline": distance(0.3 + drift),
        "identical": drift == 0,
        "latents_sha256": f"digest of {name}",
        "worst": worst,
        "picture": f"{name}.png",
        "missing": {},
    }
    return Quality(**fields | changes)


def reuse(ratio: float) -> Reuse:
    freed = (np.arange(STEPS)[:, None] - 4) / STEPS * ratio * 2.5 * LAYERS
    table = (np.arange(LAYERS)[None] < freed).astype(int) if ratio else np.zeros((STEPS, LAYERS), int)
    noise = np.random.default_rng(0).normal(0, 0.15, (STEPS, LAYERS))
    entropy = 3.2 + noise + 0.8 * np.sin(np.arange(LAYERS) / 2)[None]
    known = [[None if t else round(e, 3) for t, e in zip(*r, strict=True)] for r in zip(table.tolist(), entropy.tolist(), strict=True)]  # fmt: skip  # noqa: E501
    return Reuse(
        ratio=float(table.mean()),
        plan_ratio=float(table.mean()),
        map=table.tolist(),
        entropy=known,
        snr=np.logspace(-2, 3, STEPS).tolist(),
        reasons={"reused": int(table.sum()), "warm-up": 40, "schedule": int(160 - table.sum())},
    )


def limits(speed: float, limit: float) -> Limits:
    return Limits(
        flops_generation=3.2e11,
        attention_share=0.31,
        speedup_limit=limit,
        realised=(speed - 1) / (limit - 1) if limit != 1 else None,
        flops_per_second=1.6e11,
        mfu=0.4,
        peak=4e11,
        peak_source="made up",
    )


def made(name: str, method: str, speed: float, drift: float, ratio: float = 0, **changes: Any) -> Record:
    fields: dict[str, Any] = {
        "key": f"key{name}",
        "suite": "made-up",
        "name": name,
        "method": method,
        "config": {
            "model": "embedded",
            "weights": "trained",
            "scheduler": "ddim",
            "num_inference_steps": STEPS,
            "batch_size": 16,
            "options": {"preset": name} if method == "dqar" else {},
        },
        "status": "ok",
        "environment": {"cpu": {"model": "Test CPU", "cores": 2}, "inputs": {"sources": "a"}},
        "timing": timing(speed),
        "memory": memory(),
        "quality": quality(name, drift),
        "reuse": reuse(ratio) if method == "dqar" else None,
        "limits": limits(speed, 1 + ratio / 2),
    }
    return Record(**fields | changes)


def failed() -> Record:
    return Record(
        key="k", suite="made-up", name="too-big", method="fora", config={}, status="failed",
        reason="out of memory | 3 GB asked", environment={"inputs": {"sources": "b"}},
    )  # fmt: skip


@pytest.fixture(scope="module")
def records() -> list[Record]:
    """Every kind of run: finished, twin, idle, without quality or memory, failed."""
    partial = quality("dqar-33", 0.05, missing={"psnr_db": "2 of 64 pictures are identical"})
    blind = distance(2.4, precision=None, kid=None, missing={"precision": "few", "kid": "no pictures"})
    lacking = quality("fora-2", 0.3, lpips=None, to_reference=blind, missing={"lpips": "no weights"})
    twin = {"quality": quality("twin", 0.21, latents_sha256="digest of dqar-66")}
    bare = {"quality": None, "memory": None, "timing": timing(1.03, disturbed=2)}
    return [
        made("dqar-33", "dqar", 1.04, 0.05, 0.12, quality=partial),
        made("dqar-66", "dqar", 1.11, 0.21, 0.25),
        made("dqar-66-twin", "dqar", 1.112, 0.21, 0.25, **twin),
        made("dqar-100", "dqar", 1.18, 0.46, 0.39),
        made("idle", "dqar", 1.001, 0.0),
        made("ddim-16", "fewer_steps", 1.25, 0.26),
        made("ddim-10", "fewer_steps", 1.98, 0.55),
        made("fora-2", "fora", 1.52, 0.30, quality=lacking),
        made("pab-2", "pab", 1.22, 0.33),
        made("taylorseer-3", "taylorseer", 1.61, 0.24),
        made("bare", "first_block", 1.03, 0.1, **bare),
        failed(),
        made("baseline", "baseline", 1.002, 0.0),
    ]


def mosaic(path: Path, tiles: int = 4, side: int = 64) -> None:
    """Row 0 and row 1 of discs on white: the second row a little shifted."""
    y, x = np.mgrid[:side, :side]
    picture = np.full((2 * side, tiles * side, 3), 255, np.uint8)
    for row in range(2):
        for i in range(tiles):
            disc = np.hypot(x - side / 2 - 3 * row, y - side / 2) < side / 3
            block = picture[row * side : (row + 1) * side, i * side : (i + 1) * side]
            block[disc] = (250 - 20 * row, 200 - 30 * i, 60 + 10 * i)
    Image.fromarray(picture).save(path)


def stored(records: list[Record], folder: Path) -> Path:
    """The folder, with the records and their pictures in it."""
    folder.mkdir(parents=True)
    for record in records:
        (folder / f"{record.name}-{record.key}.json").write_text(record.model_dump_json())
        if record.quality:
            mosaic(folder / str(record.quality.picture))
    return folder


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, records: list[Record]) -> Path:
    return stored(records, tmp_path_factory.mktemp("results") / "made-up" / "machine")


@pytest.fixture(scope="module")
def report(records: list[Record], results: Path) -> Path:
    return write_report(records, results, results.parents[2] / "reports" / "made-up", COMMAND)


def lines(report: Path) -> list[str]:
    return report.read_text().splitlines()


def rows_after(report: Path, first_header: str) -> list[list[str]]:
    """The cells of the first Markdown table whose header row contains the words given."""
    text = lines(report)
    start = next(i for i, line in enumerate(text) if line.startswith("|") and first_header in line)
    body = text[start : text.index("", start)]
    return [[c.strip() for c in re.split(r"(?<!\\)\|", line)[1:-1]] for line in body]


def test_same_records_same_bytes(records: list[Record], results: Path, report: Path) -> None:
    """Rendering the same records again gives the same Markdown, tables and pictures."""
    again = write_report(records, results, results.parents[2] / "reports" / "again", COMMAND).parent
    first = {path.name: path.read_bytes() for path in report.parent.iterdir()}
    assert first == {path.name: path.read_bytes() for path in again.iterdir()}


def test_every_link_leads_somewhere(report: Path) -> None:
    """Every picture and file that the Markdown names exists, and none by an absolute path."""
    links = re.findall(r"\]\(([^)]+)\)", report.read_text())
    assert len(links) > 20
    assert not [link for link in links if link.startswith("/")]
    files = [link for link in links if not link.startswith("#")]
    assert not [link for link in files if not (report.parent / link).exists()]


def test_pictures_are_small(report: Path) -> None:
    """No picture is too heavy to be kept in a repository."""
    assert max(path.stat().st_size for path in report.parent.glob("*.png")) < 200_000


def test_warnings_stand_before_the_sentence(report: Path) -> None:
    """Idle configurations and twins are flagged above the first figure that a reader meets."""
    head = report.read_text().split("**In one sentence:**")[0]
    assert "`dqar-66` and `dqar-66-twin` gave identical pictures" in head
    assert "`idle` reused nothing and gave pictures identical to the baseline's" in head


def test_failures_are_told(report: Path) -> None:
    """A failed run is named with its reason, and stands in the table as FAILED."""
    assert r"- `too-big` (fora): out of memory \| 3 GB asked" in lines(report)
    row = next(row for row in rows_after(report, "verdict") if row[0] == "too-big")
    assert row[3] == "FAILED" and set(row[4:]) == {DASH}


def test_table_shows_the_records(records: list[Record], report: Path) -> None:
    """Every headline figure of the main table is the record's, rounded only."""
    cells = {row[0]: row for row in rows_after(report, "verdict")[2:]}
    assert next(iter(cells)) == "baseline" and len(cells) == len(records)
    for record in records:
        for column, cell in zip(shown(records), cells[record.name], strict=True):
            assert numbers(cell) == pytest.approx(expected(record, column), rel=0.03, abs=0.51)


def shown(records: list[Record]) -> list[runs.Column]:
    return runs.main_table(records).shown()


def expected(record: Record, column: runs.Column) -> list[float]:
    """The figures of a cell, straight from the record and not by the code under test."""
    part, *rest = column.path.split(".")
    found: Any = getattr(record, part)
    for name in rest:
        found = getattr(found, name, None) if found is not None else None
    if found is None or isinstance(found, str):
        return []
    if isinstance(found, int | float):
        return [found * column.scale]
    middle = found.median if isinstance(found, Median) else found.mean
    both = [(found.high - found.low) / 2] if column.interval == "±" else [found.low, found.high]
    return [middle, *both]


def numbers(cell: str) -> list[float]:
    if not re.match(r"^[\d.-]+(e-\d+)?( |$)", cell):
        return []
    return [float(text) for text in re.findall(r"-?\d+\.?\d*(?:e-\d+)?", cell)]


def test_csv_is_the_table(records: list[Record], report: Path) -> None:
    """The CSV read back and rounded is the Markdown table, cell for cell."""
    frame = pd.read_csv(report.parent / "configurations.csv")
    read = runs.Table("configurations", runs.main_columns(records), frame)
    assert read.rows() == rows_after(report, "verdict")[2:]


def test_missing_figures_say_why(report: Path) -> None:
    """A dash in the table, and a column left out, have their reason in the list below."""
    text = report.read_text()
    assert "peak GPU, torch (MB): no CUDA device (" in text
    assert "quality was not measured (`bare`)" in text
    assert "PSNR (dB): 2 of 64 pictures are identical (`dqar-33`)" in text
    assert "infinite: every picture is identical to the baseline's (`baseline`, `idle`)" in text


def test_what_a_distance_lacks_says_why(report: Path) -> None:
    """A null within a distance has its reason listed, and so has LPIPS without its weights."""
    text = report.read_text()
    assert "precision to the reference: few (`fora-2`)" in text
    assert "KID: no pictures (`fora-2`)" in text
    assert "LPIPS: no weights (`fora-2`)" in text


def test_distances_are_shown_with_their_bias(records: list[Record], report: Path) -> None:
    """Each distance stands with its extractor, n and bias, in the Markdown and in both CSVs, beside
    precision and recall."""
    name = "FD (emoji-96, n = 300, biased)"
    header, _, *rows = rows_after(report, "| against")
    assert {"precision ↑", "recall ↑", "KID ↓"} <= set(header)
    assert all(name in row and "0.622" in row for row in rows)
    whole = pd.read_csv(report.parent / "configurations.csv")
    assert set(whole.fd_name.dropna()) == set(pd.read_csv(report.parent / "distances.csv").distance) == {name}
    assert whole.fd_name.notna().equals(whole.fd.notna())


def test_disturbed_pairs_are_counted(report: Path) -> None:
    """Pairs that were measured but left out are counted and attributed."""
    assert "Disturbed pairs left out of the figures: 2 of 108 (`bare` 2)." in report.read_text()


def test_pairs_that_were_all_disturbed_count_as_used() -> None:
    """Where hardly a calm pair remains the figures use all of them, and the report says so."""
    noisy = made("noisy", "dqar", 1.1, 0.1, 0.2, timing=timing(1.1, disturbed=8))
    said = " ".join(controls([noisy]))
    assert "left out of the figures: 0 of 9 (none)" in said and "all were used: `noisy`" in said


def test_provenance_flags_differences(report: Path) -> None:
    """The command and environment are shown, and what differs between records stands apart."""
    text = report.read_text()
    assert f"    {COMMAND}" in text and "**Differs between records:**" in text
    assert "**WARNING** The records differ in `inputs.sources`" in text


@pytest.mark.parametrize(
    ("extractor", "n", "name"),
    [
        ("emoji-96", 300, "FD (emoji-96, n = 300, biased)"),
        ("inception-v3-compat", 9_999, "FID (inception-v3-compat, n = 9,999, biased)"),
        ("inception-v3-compat", 10_000, "FID (inception-v3-compat, n = 10,000)"),
    ],
)
def test_fd_is_named_after_its_extractor(extractor: str, n: int, name: str) -> None:
    """FID means Inception features; fewer than 10,000 pictures are called biased."""
    assert runs.fd_name(distance(1.0, extractor, n)) == name


BASELINE = made("baseline", "baseline", 1.0, 0.0)


def test_sentence_admits_that_nothing_was_gained() -> None:
    """Where no configuration is both faster and harmless, the sentence says exactly that."""
    lossy = made("lossy", "dqar", 1.2, 0.5, 0.3)
    assert "no configuration is both faster and without a measurable loss" in sentence(
        [BASELINE, lossy], "a test"
    )
    slow = made("slow", "dqar", 0.9, 0.01, 0.3)
    assert "no configuration is surely faster" in sentence([BASELINE, slow], "a test")


def test_sentence_names_the_best_with_its_interval() -> None:
    """The fastest configuration that loses nothing is named with interval and loss."""
    good, lossy = made("good", "dqar", 1.1, 0.02, 0.2), made("lossy", "dqar", 1.4, 0.5, 0.3)
    text = sentence([BASELINE, lossy, good], "a test")
    assert "`good` runs at 1.10× [1.09, 1.11]" in text and "loses nothing measurable" in text


def answered(*records: Record) -> dict[str, str]:
    return dict(answers([BASELINE, *records]))


def test_a_reader_is_told_what_to_use() -> None:
    """To use is the fastest that loses nothing measurable, with its loss, its interval and the control."""
    good, lossy = made("good", "dqar", 1.1, 0.02, 0.2), made("lossy", "dqar", 1.4, 0.5, 0.3)
    said = answered(lossy, good)
    assert said["Which to use"].startswith("`good` at 1.10 [1.09, 1.11] times")
    assert "0.0200 [0.0182, 0.0218]" in said["What you lose by it"]
    assert "64 pictures" in said["What was run"] and "9 timed pairs" in said["What was run"]
    assert "`good` 2.7 MB" in said["What its cache holds"]
    assert "itself came out at 1.00" in said["How sure that is"]
    assert "2 FASTER" in said["How sure that is"]


def test_a_reader_is_told_who_shared_a_process() -> None:
    """Alone in theirs, or as many at most as the fullest process had."""
    alone = made("good", "dqar", 1.1, 0.02, 0.2)
    assert "each in a process of its own" in answered(alone)["What was run"]
    assert alone.timing
    beside = alone.timing.model_copy(update={"beside": ["baseline", "other"]})
    shared = alone.model_copy(update={"timing": beside})
    assert "up to 3 to a process" in answered(shared)["What was run"]


def test_a_reader_is_told_what_is_not_sure() -> None:
    """Where nothing is surely faster and harmless, the likeliest is named as such, or the mildest."""
    slow, lossy = made("slow", "dqar", 1.01, 0.02, 0.2), made("lossy", "dqar", 1.4, 0.5, 0.3)
    likeliest = answered(slow, lossy)["Which to use"]
    assert (
        "None is surely faster" in likeliest and "`slow` at 1.01" in likeliest and "allow 1.10×" in likeliest
    )
    assert "the mildest is `lossy`" in answered(lossy)["Which to use"]
    blind = made("blind", "dqar", 1.4, 0.5, 0.3, quality=None)
    assert "loss was not measured: `blind`" in answered(blind)["Which to use"]
    assert answered()["Which to use"].startswith("The untouched baseline")
    assert answers([failed()]) == []


def test_the_head_has_question_command_and_commit(tmp_path: Path) -> None:
    """Above the first figure stand what was asked, the exact command, commit, machine, versions and seed."""
    facts = {
        "git": {"commit": "0123456789", "dirty": False},
        "machine": "m",
        "packages": {"torch": "2"},
        "seed": 0,
    }
    found = made("good", "dqar", 1.1, 0.02, 0.2, environment=facts)
    text = write_report([found], tmp_path, tmp_path / "out", COMMAND, "Does it help?").read_text()
    head = text.split("**In one sentence:**")[0]
    assert "*Does it help?*" in head and f"`{COMMAND}`: commit 0123456, machine m, torch 2, seed 0 (" in head
    assert "*Does it help?*" in write_index(tmp_path).read_text()


def judged(report: Path) -> list[list[str]]:
    """Wanted, reached and verdict of each row of the goals' table."""
    return [row[2:] for row in rows_after(report, "| goal |")[2:]]


def test_goals_stand_beside_what_was_reached(tmp_path: Path) -> None:
    """A goal is met or missed by a whole interval and unclear else, of a figure or of a ratio to another
    figure or to another run; what was not measured is not judged."""
    fast, slow = (made(n, "dqar", speed, 0.1, ratio=0.5) for n, speed in (("fast", 1.2), ("slow", 1.0)))
    slow = slow.model_copy(update={"memory": memory().model_copy(update={"cache_bytes": 4 * 2_654_321})})
    asked: list[dict[str, Any]] = [
        {"run": "fast", "metric": "timing.speedup", "at_least": 1.18},
        {"run": "fast", "metric": "timing.speedup", "at_least": 1.2},
        {"run": "fast", "metric": "timing.speedup", "at_least": 1.3},
        {"run": "fast", "metric": "timing.speedup", "at_most": 1.3},
        {"run": "fast", "metric": "timing.speedup", "of": "limits.speedup_limit", "at_least": 0.9},
        {"run": "fast", "metric": "timing.speedup", "over": "slow", "at_least": 1.18},
        {"run": "fast", "metric": "memory.cache_bytes", "over": "slow", "at_most": 0.25},
        {"run": "fast", "metric": "memory.energy_j", "at_most": 1},
        {"run": "gone", "metric": "timing.speedup", "at_most": 1},
    ]
    goals = [Goal(description="it", **goal) for goal in asked]
    page = write_report([fast, slow], tmp_path, tmp_path / "out", COMMAND, goals=goals)
    assert judged(page) == [
        ["≥ 1.18", "1.20 [1.19, 1.21]", "met"],
        ["≥ 1.2", "1.20 [1.19, 1.21]", "unclear"],
        ["≥ 1.3", "1.20 [1.19, 1.21]", "missed"],
        ["≤ 1.3", "1.20 [1.19, 1.21]", "met"],
        ["≥ 0.9", "0.960 [0.948, 0.972]", "met"],
        ["≥ 1.18", "1.20 [1.17, 1.23]", "unclear"],
        ["≤ 0.25", "0.250", "met"],
        ["≤ 1", DASH, "not measured"],
        ["≤ 1", DASH, "not measured"],
    ]
    assert "## Goals" not in write_report([fast], tmp_path, tmp_path / "none", COMMAND).read_text()


def at_batch(size: int, options: dict[str, Any], **changes: Any) -> Record:
    name = f"run-{size}-bits={options['bits']}"
    config = {"model": "embedded", "batch_size": size, "options": options, "method": "dqar"}
    return made(name, "dqar", 1.1, 0.1, config=config, **changes)


def test_peaks_are_drawn_over_the_batch_size(tmp_path: Path) -> None:
    """A line is what differs in its batch size alone, in order, with what did not fit; a figure that is null
    or nothing is no point, and a report of one batch size has no such plot."""
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
    text = write_report(found, tmp_path, tmp_path / "out", COMMAND).read_text()
    assert "](memory.png)" in text and (tmp_path / "out" / "memory.png").is_file()
    assert "memory.png" not in write_report(found[3:], tmp_path, tmp_path / "one", COMMAND).read_text()


def test_the_command_holds_what_was_given() -> None:
    """The command is that of the suite's name, and the options that differ from its file."""
    asked = {"a": {"model": "embedded", "seed": 0, "quality": {"n": 20, "reference": None}}}
    record = made(
        "a", "dqar", 1.1, 0.1, config={"model": "xl", "seed": 0, "quality": {"n": 50, "reference": None}}
    )
    assert command("mine", asked, [record]) == "python -m bench run mine --model xl --images 50"
    same = record.model_copy(update={"config": asked["a"]})
    assert command("mine", asked, [same]) == "python -m bench run mine"


def test_random_weights_are_said_first(tmp_path: Path) -> None:
    """A suite on random weights says in its first line that it measures time and memory only."""
    config = {"model": "facebook/DiT-XL-2-256", "weights": "random", "batch_size": 1}
    bare = made("quick", "dqar", 1.2, 0.1, 0.3, quality=None, config=config)
    text = write_report([bare], tmp_path, tmp_path / "out", COMMAND).read_text()
    first = next(line for line in text.splitlines()[1:] if line)
    assert first.startswith("**Random weights: time and memory only.**")


def test_only_failures_still_make_a_report(tmp_path: Path) -> None:
    """A suite of which nothing finished has a report that says so."""
    text = write_report([failed()], tmp_path, tmp_path / "out", COMMAND).read_text()
    assert "too-big" in text and "no configuration finished" in text


def test_index_lists_every_report(report: Path) -> None:
    """The index has every report with its own one sentence, those of a study that has several too."""
    nested = report.parents[1] / "study" / "one" / "README.md"
    nested.parent.mkdir(parents=True)
    nested.write_text("# study: one\n\n**In one sentence:** this too.\n")
    text = write_index(report.parents[1]).read_text()
    assert "[made-up](made-up/README.md)" in text and headline_of(report) in text
    assert "[study/one](study/one/README.md)" in text and "This too." in text


def headline_of(report: Path) -> str:
    return report.read_text().split("**In one sentence:** ")[1].splitlines()[0]
