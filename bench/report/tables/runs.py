"""The tables of a report, each a list of columns over the records."""

# ruff: noqa: RUF001 - the signs ×, – and − are meant

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace

import pandas as pd

from bench.record import CLIP, Distance, Mean, Record
from bench.report.escape import escape
from bench.report.setup import solver
from bench.report.tables.columns import Column, Table, ends, fixed, lookup, significant, table, whole

UNBIASED_FROM = 10_000  # images below which a Fréchet distance is biased upwards noticeably
MB = 1e-6

MFU = Column("baseline MFU (%)", "mfu_percent", "limits.mfu", fixed(1), 100)
NAME = [Column("configuration", "name", "name"), Column("method", "method", "method")]
SOLVER = Column("solver", "solver", "environment", of=solver)
SPEED = [
    Column("speedup ↑ (×)", "speedup", "timing.speedup", fixed(3)),
    Column("verdict", "verdict", "timing.verdict"),
    Column("over", "over", "timing.baseline"),
    Column("batch", "batch_size", "timing.batch_size", whole),
    MFU,
    Column("s / generation ↓", "seconds", "timing.candidate_s", significant(4)),
]
REUSE = [
    Column("reuse ratio (%)", "reuse_percent", "reuse.ratio", fixed(2), 100),
    Column("limit (×)", "limit", "limits.speedup_limit", fixed(3)),
    Column("limit realised (%)", "realised_percent", "limits.realised", fixed(0), 100),
]
LOSS = [
    Column("drift ↓", "drift", "quality.drift", significant(3), interval="±"),
    Column(
        "drift from converged ↓",
        "drift_converged",
        "quality.drift_converged",
        significant(3),
        interval="±",
    ),
    Column("PSNR ↑ (dB)", "psnr_db", "quality.psnr_db", fixed(1), interval="±"),
    Column("SSIM ↑", "ssim", "quality.ssim", fixed(4), interval="±"),
    Column("LPIPS ↓", "lpips", "quality.lpips", fixed(4), interval="±"),
]
# Of suites on prompts; see `text_columns`.
TEXT = [
    Column("text score ↑", "text_score", "quality.text_score", fixed(3), interval="±"),
    Column("text score − baseline's", "text_score_change", "quality.text_score_change", fixed(4)),
    Column("own prompt wins (%)", "own_prompt_wins", "quality.own_prompt_wins", fixed(1), 100),
]
PEAKS = [
    Column("cache (MB)", "cache_mb", "memory.cache_bytes", fixed(1), MB),
    Column("peak RSS (MB)", "rss_peak_mb", "memory.rss_peak", fixed(0), MB),
    Column(
        "peak GPU, torch (MB)",
        "torch_allocated_peak_mb",
        "memory.torch_allocated_peak",
        fixed(0),
        MB,
    ),
]


def main_columns(records: Sequence[Record]) -> list[Column]:
    """Choose the columns of the full table.

    Args:
        records: the suite's; the Fréchet distance is named after their extractor.

    Returns:
        The columns; the solver is shown where it differs, text scores where prompts were given.
    """
    distances = [
        Column(fd_title(records), "fd", "quality.to_reference.fd", significant(3)),
        Column("KID ↓", "kid", "quality.to_reference.kid", significant(2)),
    ]
    text = text_columns(records) if any(record.config.get("prompts") for record in records) else []
    several = len({solver(record) for record in records} - {None}) > 1
    return [*NAME, *[SOLVER] * several, *SPEED, *REUSE, *LOSS, *text, *distances, *PEAKS]


def text_columns(records: Sequence[Record]) -> list[Column]:
    """Choose the columns of text scores.

    Args:
        records: the suite's records.

    Returns:
        The columns, called CLIP scores where CLIP alone was the scorer.
    """
    scorers = {lookup(record, "quality.text_scorer") for record in records} - {None}
    if not scorers or not all(scorer.startswith(CLIP) for scorer in scorers):
        return TEXT
    return [replace(column, title=column.title.replace("text score", "CLIP score")) for column in TEXT]


def main_table(records: Sequence[Record]) -> Table:
    """Tabulate every headline metric.

    Args:
        records: the suite's records.

    Returns:
        A row a configuration; the verdict of a failed run is FAILED.
    """
    built = table("configurations", main_columns(records), records)
    distances = [lookup(record, "quality.to_reference") for record in records]
    built.frame["fd_name"] = [fd_name(distance) if distance else None for distance in distances]
    built.frame["verdict"] = built.frame["verdict"].astype(object)
    for row, record in enumerate(records):
        if record.status == "failed":
            built.frame.loc[row, "verdict"] = "FAILED"
    return built


def fd_name(distance: Distance) -> str:
    """Name a Fréchet distance.

    Args:
        distance: from a record.

    Returns:
        FID only with Inception features; otherwise FD, always with its extractor, n and bias.
    """
    name = "FID" if "inception" in distance.extractor.lower() else "FD"
    bias = ", biased" if distance.n < UNBIASED_FROM else ""
    return f"{name} ({distance.extractor}, n = {distance.n:,}{bias})"


def fd_title(records: Sequence[Record]) -> str:
    """Name the column of Fréchet distances.

    Args:
        records: the suite's records.

    Returns:
        Every name that occurs in it.
    """
    distances = [lookup(record, "quality.to_reference") for record in records]
    names = dict.fromkeys(escape(fd_name(distance)) for distance in distances if distance)
    return " / ".join(f"{name} ↓" for name in names) or "FD ↓"


def distance_table(records: Sequence[Record]) -> Table:
    """Tabulate distances between sets of images.

    Args:
        records: the suite's records.

    Returns:
        A row a configuration and comparison.
    """
    rows = [
        {"name": r.name, "method": r.method, **_distance_row(lookup(r, f"quality.{field}"))}
        for r in records
        for field in ("to_reference", "to_baseline")
        if lookup(r, f"quality.{field}")
    ]
    return Table("distances", DISTANCES, pd.DataFrame(rows))


DISTANCES = [
    *NAME,
    Column("against", "against", ""),
    Column("distance", "distance", ""),
    Column("value ↓", "fd", "", significant(4)),
    Column("without bias ↓", "fd_unbiased", "", significant(4)),
    Column("less the baseline's", "fd_change", "", significant(3)),
    Column("KID ↓", "kid", "", significant(2)),
    Column("KID less the baseline's", "kid_change", "", significant(2)),
    Column("precision ↑", "precision", "", fixed(3)),
    Column("recall ↑", "recall", "", fixed(3)),
    Column("images there", "n_reference", "", fixed(0)),
]


# What the table of distances has beyond the main table: for the list of missing values.
DISTANCE_DETAILS = [
    Column(f"{title} {against}", f"{key}_{field}", f"quality.{field}.{key}")
    for field, against in (("to_reference", "to the reference"), ("to_baseline", "to the baseline"))
    for title, key in (("precision ↑", "precision"), ("recall ↑", "recall"))
]


_RESAMPLED = ("fd_unbiased", "fd_change", "kid", "kid_change")


def _known(name: str, value: Mean | None) -> Iterable[tuple[str, float | None]]:
    return ends(name, value).items() if value else ()


def _distance_row(distance: Distance) -> dict[str, object]:
    return {
        "against": distance.reference,
        "distance": fd_name(distance),
        "fd": distance.fd,
        **{key: value for name in _RESAMPLED for key, value in _known(name, getattr(distance, name))},
        **{"precision": distance.precision, "recall": distance.recall},
        **{"n": distance.n, "n_reference": distance.n_reference},
    }


def memory_table(records: Sequence[Record]) -> Table:
    """Tabulate the peaks of memory, their idle values, and the bytes that the cache holds.

    Args:
        records: the suite's records.

    Returns:
        A row a configuration, in MB.
    """
    fields = [
        ("cache", "cache_bytes"),
        ("RSS peak", "rss_peak"),
        ("RSS idle", "rss_idle"),
        ("torch allocated peak", "torch_allocated_peak"),
        ("torch reserved peak", "torch_reserved_peak"),
        ("NVML device peak", "nvml_device_peak"),
        ("NVML device idle", "nvml_device_idle"),
        ("NVML process peak", "nvml_process_peak"),
    ]
    peaks = [Column(f"{t} (MB)", f"{f}_mb", f"memory.{f}", fixed(1), MB) for t, f in fields]
    sampler = Column("sampler (% of a core)", "sampler_percent", "memory.sampler_cpu_share", fixed(1), 100)
    energy = Column("energy (J)", "energy_j", "memory.energy_j", significant(3))
    return table("memory", [*NAME, *peaks, sampler, energy], [r for r in records if r.memory])


def limits_table(records: Sequence[Record]) -> Table:
    """Tabulate what counted FLOPs allow, what was measured, and the utilisation of the baseline.

    Args:
        records: the suite's records.

    Returns:
        A row a configuration.
    """
    columns = [
        *NAME,
        Column("speedup ↑ (×)", "speedup", "timing.speedup", fixed(3)),
        Column("limit (×)", "limit", "limits.speedup_limit", fixed(3)),
        Column("realised (%)", "realised_percent", "limits.realised", fixed(0), 100),
        Column("reused (%)", "reuse_percent", "reuse.ratio", fixed(2), 100),
        Column("plan allows (%)", "plan_percent", "reuse.plan_ratio", fixed(2), 100),
        Column("attention / FLOPs (%)", "attention_percent", "limits.attention_share", fixed(1), 100),
        Column("GFLOP / generation", "gflop", "limits.flops_generation", significant(4), 1e-9),
        Column("baseline GFLOP/s", "gflops", "limits.flops_per_second", significant(4), 1e-9),
        Column("peak GFLOP/s", "peak_gflops", "limits.peak", significant(4), 1e-9),
        Column("peak from", "peak_source", "limits.peak_source"),
    ]
    return table("limits", columns, [r for r in records if r.limits])


def reasons_table(records: Sequence[Record]) -> Table:
    """Tabulate why attention calls were computed or reused.

    Args:
        records: the suite's records.

    Returns:
        A row a configuration that counted them, a column a reason: calls of a generation.
    """
    counts = [(r, r.reuse.reasons) for r in records if r.reuse and r.reuse.reasons]
    reasons = sorted({reason for _, count in counts for reason in count})
    rows = [
        {"name": r.name, "method": r.method, **{k: count.get(k, 0) for k in reasons}} for r, count in counts
    ]
    columns = [*NAME, *[Column(escape(k), k, "", fixed(0)) for k in reasons]]
    return Table("reasons", columns, pd.DataFrame(rows))


def options_table(records: Sequence[Record]) -> Table:
    """Tabulate the options of each configuration's method, as the suite gave them or as measured.

    Args:
        records: the suite's records.

    Returns:
        A row a configuration.
    """
    rows = [{"name": r.name, "method": r.method, "options": _options(_all_options(r))} for r in records]
    return Table("options", [*NAME, Column("options", "options", "")], pd.DataFrame(rows))


def _all_options(record: Record) -> dict[str, object]:
    resolved = record.reuse.resolved if record.reuse else {}
    return (record.config.get("options") or {}) | {name: round(value, 4) for name, value in resolved.items()}


def _options(options: dict[str, object]) -> str:
    return ", ".join(f"{key} = {json.dumps(options[key])}" for key in sorted(options)) or "none"
