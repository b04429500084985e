"""Made-up records for the tests of reports: every kind of run, with values that are easy to recognise."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bench import stats
from bench.record import Distance, Limits, Mean, Median, Memory, Quality, Record, Reuse, Timing, Worst
from bench.report.suite_report import SuiteReport

STEPS, LAYERS = 20, 10
COMMAND = "python -m bench run made-up"


def around(value: float, share: float) -> dict[str, float]:
    return {"low": value * (1 - share), "high": value * (1 + share)}


def timing(speed: float, contaminated: int = 0) -> Timing:
    wobble = np.linspace(0.985, 1.02, 9)
    return Timing(
        speedup=Median(median=speed, **around(speed, 0.012)),
        baseline_s=Median(median=2.0, **around(2.0, 0.01)),
        candidate_s=Median(median=2.0 / speed, **around(2.0 / speed, 0.01)),
        pairs=[(2.0 * float(w), 2.0 / speed) for w in wobble],
        contaminated=list(range(contaminated)),
        contaminated_why=["load"] * contaminated,
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
        "image": f"{name}.png",
        "missing": {},
    }
    return Quality(**fields | changes)


def reuse(ratio: float) -> Reuse:
    eligible = (np.arange(STEPS)[:, None] - 4) / STEPS * ratio * 2.5 * LAYERS
    table = (np.arange(LAYERS)[None] < eligible).astype(int) if ratio else np.zeros((STEPS, LAYERS), int)
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


def paired(
    name: str, drift: float, added: float, scatter: float = 0.002, n: int = 24, own: float = 0.05
) -> Quality:
    """Quality with drifts from converged image by image: the baseline's scatter widely around `own`, and the
    candidate's lie `added` above them, give or take `scatter`."""
    rng = np.random.default_rng(len(name))
    baseline = own * np.exp(rng.normal(0, 0.5, n))
    candidate = baseline + added + rng.normal(0, scatter, n)
    return quality(
        name, drift, own, n=n, n_converged=n,
        drift_converged_per_image=candidate.tolist(),
        baseline_drift_converged_per_image=baseline.tolist(),
        drift_converged=stats.mean_interval(candidate),
        baseline_drift_converged=stats.mean_interval(baseline),
    )  # fmt: skip


def every_kind() -> list[Record]:
    """Every kind of run: finished, twin, idle, without quality or memory, failed."""
    partial = quality("dqar-33", 0.05, missing={"psnr_db": "2 of 64 images are identical"})
    blind = distance(2.4, precision=None, kid=None, missing={"precision": "few", "kid": "no images"})
    lacking = quality("fora-2", 0.3, lpips=None, to_reference=blind, missing={"lpips": "no weights"})
    twin = {"quality": quality("twin", 0.21, latents_sha256="digest of dqar-66")}
    bare: dict[str, Any] = {"quality": None, "memory": None, "timing": timing(1.03, contaminated=2)}
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
    image = np.full((2 * side, tiles * side, 3), 255, np.uint8)
    for row in range(2):
        for i in range(tiles):
            disc = np.hypot(x - side / 2 - 3 * row, y - side / 2) < side / 3
            block = image[row * side : (row + 1) * side, i * side : (i + 1) * side]
            block[disc] = (250 - 20 * row, 200 - 30 * i, 60 + 10 * i)
    Image.fromarray(image).save(path)


def stored(records: Sequence[Record], directory: Path) -> Path:
    """The directory, with the records and their images in it."""
    directory.mkdir(parents=True)
    for record in records:
        (directory / f"{record.name}-{record.key}.json").write_text(record.model_dump_json())
        if record.quality:
            mosaic(directory / str(record.quality.image))
    return directory


def written(records: Sequence[Record], results: Path, out: Path, question: str = "", **more: Any) -> Path:
    """The page of a report on the records."""
    return SuiteReport(records, results, COMMAND, question, **more).write(out)
