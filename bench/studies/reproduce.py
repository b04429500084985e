"""Published beside measured: the seed's tables again, and its two claims that did not hold.

A reuse ratio follows from the plan alone and must agree to the digit. A published speedup stands beside
what counted FLOPs allow on the same model, and beside what was measured here on the model at hand.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from diffusers import AutoencoderKL, DDIMScheduler, DiTPipeline, DiTTransformer2DModel

import dqar
from bench.measure import flops
from bench.pipeline import models
from bench.pipeline.session import Session
from bench.record import Mean, Median, Record
from bench.report.page import write_csv, write_page
from bench.report.setup import setting
from bench.report.tables.columns import interval, middle
from bench.spec.run_spec import RunSpec
from bench.studies import published_results

SUITE = "reproduce"


class Line(NamedTuple):
    """One published row, and what became of it here."""

    published: published_results.Row
    ratio: float  # percent, of the plan for the published model, two digits
    limit: float  # what FLOPs allow on the published model at that ratio
    record: Record | None

    @property
    def agrees(self) -> bool:
        """Whether the plan gives the published reuse ratio to the digit."""
        return self.ratio == self.published.ratio


def lines(table: published_results.Table, records: Mapping[str, Record]) -> list[Line]:
    """The rows of a published table with their plans and measurements."""
    return [_line(row, records.get(row.run)) for row in table.rows]


def agree() -> bool:
    """Whether every published reuse ratio follows from its plan."""
    return all(line.agrees for table in published_results.TABLES for line in lines(table, {}))


def _line(row: published_results.Row, record: Record | None) -> Line:
    config = dqar.DQARConfig.preset("conservative", **row.options)
    ratio = float(
        dqar.plan(config, published_scheduler(), published_results.STEPS, published_results.LAYERS).mean()
    )
    return Line(row, round(100 * ratio, 2), 1 / (1 - ratio * attention_share()), record)


def published_scheduler() -> DDIMScheduler:
    """The noise schedule of the published runs."""
    return DDIMScheduler(beta_start=1e-4, beta_end=0.02, beta_schedule="linear", timestep_spacing="leading")


@cache
def attention_share() -> float:
    """Attention's share of the FLOPs of a published generation, decoder included; nothing is computed."""
    with torch.device("meta"):
        transformer, vae = DiTTransformer2DModel(**models.DIT_XL), AutoencoderKL(**models.VAE)
    pipe: Any = DiTPipeline(transformer, vae, published_scheduler())
    pipe.transformer.eval()  # in training, labels are dropped at random
    spec = RunSpec(suite=SUITE, name="share", method="baseline", model="facebook/DiT-XL-2-256", batch_size=1)
    cost = flops.count(Session(pipe, spec))
    return published_results.STEPS * cost.attention / cost.generation(published_results.STEPS)


def write_report(records: Sequence[Record], out: Path) -> Path:
    """Write README.md to `out`; its path. `records` are those of the suite, as far as they exist."""
    found = {record.name: record for record in records if record.status == "ok"}
    tables = [(table, lines(table, found)) for table in published_results.TABLES]
    every = [line for _, rows in tables for line in rows]
    out.mkdir(parents=True, exist_ok=True)
    content = {
        "sentence": sentence(every),
        "tables": tables,
        "share": attention_share(),
        "setting": setting(list(found.values())) if found else "nothing measured yet",
        "claims": list(claims(found)),
        "control": found["baseline"].timing if "baseline" in found else None,
        "failed": [record for record in records if record.status == "failed"],
    }
    rows = [_row(table, line) for table, found_lines in tables for line in found_lines]
    write_csv(out / "published.csv", rows)
    return write_page(out / "README.md", "reproduce.md.j2", content)


def _row(table: published_results.Table, line: Line) -> dict[str, object]:
    """A line of the page's tables with its figures in full."""
    record = line.record
    timing, quality = (record.timing, record.quality) if record else (None, None)
    return {
        "table": table.title,
        "row": line.published.shown,
        "published_reuse_percent": line.published.ratio,
        "plan_reuse_percent": line.ratio,
        "published_speedup": line.published.speedup,
        "limit": line.limit,
        "here_reuse": record.reuse.ratio if record and record.reuse else None,
        "here_limit": record.limits.speedup_limit if record and record.limits else None,
        **_ends("here_speedup", timing.speedup if timing else None),
        "here_verdict": timing.verdict if timing else None,
        **_ends("here_drift", quality.drift if quality else None),
    }


def _ends(name: str, value: Mean | Median | None) -> dict[str, float | None]:
    found, low, high = (middle(value), value.low, value.high) if value else (None, None, None)
    return {name: found, f"{name}_low": low, f"{name}_high": high}


def sentence(every: Sequence[Line]) -> str:
    """The comparison in one sentence."""
    agree = sum(line.agrees for line in every)
    timed = [line for line in every if line.record and line.record.timing]
    faster = sum(
        line.record.timing.verdict == "FASTER" for line in timed if line.record and line.record.timing
    )
    measured = f"{faster} of {len(timed)} timed here are surely faster than the baseline" if timed else ""
    beyond = sum((line.published.speedup or 0) > line.limit + 0.005 for line in every)
    return (
        f"{agree} of {len(every)} published reuse ratios follow from the plan to the digit; "
        f"{beyond} published speedups lie beyond what FLOPs allow; {measured or 'none is timed yet'}."
    )


class Claim(NamedTuple):
    """Something that was published, and what was measured of it."""

    said: str
    found: str


def claims(found: Mapping[str, Record]) -> Iterator[Claim]:
    """The claims that were about knobs that reached nothing, with what the knobs do here."""
    for fraction in ("0.33", "1.0"):
        pair = [_drift(found.get(f"{name}-layer_fraction={fraction}")) for name in ("layers", "reverse")]
        if pair[0] and pair[1]:
            yield Claim(
                f"`linear` and `linear_reverse` score the same ({float(fraction):.0%} of the layers)",
                f"drift {interval(pair[0], 3)} shallow first, {interval(pair[1], 3)} deep first",
            )
    open_gate = found.get("layers-layer_fraction=1.0")
    for quantile in ("0.25", "0.75"):
        gated = found.get(f"entropy-entropy_quantile={quantile}")
        if gated and open_gate and gated.reuse and open_gate.reuse:
            yield Claim(
                f"the entropy threshold has no effect (at the model's {float(quantile):.0%} quantile, "
                f"{gated.reuse.resolved['entropy_threshold']:.2f} nats)",
                f"reuse {gated.reuse.ratio:.1%} instead of {open_gate.reuse.ratio:.1%}, "
                f"drift {interval(_drift(gated), 3)} instead of {interval(_drift(open_gate), 3)}",
            )


def _drift(record: Record | None) -> Mean | None:
    return record.quality.drift if record and record.quality else None
