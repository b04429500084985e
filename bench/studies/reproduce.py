"""Published and measured: the original specification's tables again, and its two claims that did not hold.

A reuse ratio follows from the plan alone and must agree to the digit. A published speedup is compared with
what counted FLOPs allow on the same model, and with what was measured here on the current model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from diffusers import AutoencoderKL, DDIMScheduler, DiTPipeline, DiTTransformer2DModel

import dqar
from bench.measure import flops
from bench.pipeline import models
from bench.pipeline.session import Session
from bench.record import Mean, Record
from bench.report.page import render, write_csv
from bench.report.setup import setup
from bench.report.tables.columns import ends, interval
from bench.spec.run_spec import RunSpec
from bench.studies import published_results

SUITE = "reproduce"


class Line(NamedTuple):
    """One published row, and its counterpart here."""

    published: published_results.Row
    ratio: float  # percent, of the plan for the published model, two digits
    limit: float  # what FLOPs allow on the published model at that ratio
    record: Record | None

    @property
    def agrees(self) -> bool:
        """Whether the plan gives the published reuse ratio to the digit."""
        return self.ratio == self.published.ratio

    @property
    def beyond(self) -> Literal["yes", "within rounding", "no"] | None:
        """Whether the published speedup exceeds what FLOPs allow, by more than its two decimals round."""
        if self.published.speedup is None:
            return None
        excess = self.published.speedup - self.limit
        return "yes" if excess > published_results.ROUNDING else "within rounding" if excess > 0 else "no"

    @property
    def seconds(self) -> float | None:
        """Seconds an image here; None where not timed."""
        timing = self.record.timing if self.record else None
        return timing.candidate_s.median / timing.batch_size if timing else None


def lines(table: published_results.Table, records: Mapping[str, Record]) -> list[Line]:
    """Hold the rows of a published table against their plans and measurements.

    Args:
        table: the published table.
        records: what was measured, by the run's name; none need be there.

    Returns:
        A line a row.
    """
    return [_line(row, records.get(row.run)) for row in table.rows]


def agree() -> bool:
    """Whether every published reuse ratio follows from its plan.

    Returns:
        True where all do, to the last published digit; nothing is measured.
    """
    return all(line.agrees for table in published_results.TABLES for line in lines(table, {}))


def _line(row: published_results.Row, record: Record | None) -> Line:
    config = dqar.DQARConfig.preset("conservative", **row.options)
    ratio = float(
        dqar.plan(config, published_scheduler(), published_results.STEPS, published_results.LAYERS).mean()
    )
    return Line(row, round(100 * ratio, 2), 1 / (1 - ratio * attention_share()), record)


def published_scheduler() -> DDIMScheduler:
    """Make the scheduler of the published runs.

    Returns:
        DDIM with its noise schedule.
    """
    return DDIMScheduler(beta_start=1e-4, beta_end=0.02, beta_schedule="linear", timestep_spacing="leading")


@cache
def attention_share() -> float:
    """Compute attention's share of the FLOPs of a published generation, decoder included; no tensor is
    computed.

    Returns:
        The share, in [0, 1].
    """
    with torch.device("meta"):
        transformer, vae = DiTTransformer2DModel(**models.DIT_XL), AutoencoderKL(**models.VAE)
    pipe: Any = DiTPipeline(transformer, vae, published_scheduler())
    pipe.transformer.eval()  # in training, labels are dropped at random
    spec = RunSpec(suite=SUITE, name="share", method="baseline", model="facebook/DiT-XL-2-256", batch_size=1)
    cost = flops.count(Session(pipe, spec, labels=[0]))
    return published_results.STEPS * cost.attention / cost.generation(published_results.STEPS)


def cache_bytes() -> int:
    """Count the bytes of the attention outputs of every layer and both branches, on the published model.

    Returns:
        Bytes in float32.
    """
    p = published_results
    return 4 * p.LAYERS * p.TOKENS * p.WIDTH * p.BRANCHES


def write_report(records: Sequence[Record], out: Path) -> Path:
    """Write the page of the published tables and what is measured here.

    Args:
        records: those of the suite, as far as they exist.
        out: the directory of the plot or page.

    Returns:
        The page, README.md.
    """
    finished = {record.name: record for record in records if record.status == "ok"}
    tables = [(table, lines(table, finished)) for table in published_results.TABLES]
    every = [line for _, rows in tables for line in rows]
    control = finished["baseline"].timing if "baseline" in finished else None
    where = setup(list(finished.values())) if finished else "nothing measured yet"
    out.mkdir(parents=True, exist_ok=True)
    content = {
        "tables": tables,
        "share": attention_share(),
        "setup": where,
        "claims": list(claims(finished)),
        "control": control,
        "timed": [line for line in every if line.published.seconds],
        "published": published_results,
        "baseline_s": control.baseline_s.median / control.batch_size if control else None,
        "cache_bytes": cache_bytes(),
        "held": max((r.memory.cache_bytes for r in finished.values() if r.memory), default=None),
        "failed": [record for record in records if record.status == "failed"],
    }
    rows = [_row(table, line) for table, found_lines in tables for line in found_lines]
    write_csv(out / "published.csv", rows)
    title = f"reproduce: published and measured, {where}"
    return render("reproduce.md.j2", title, headline(every), content).write(out)


def _row(table: published_results.Table, line: Line) -> dict[str, object]:
    """A line of the page's tables with its values in full."""
    record = line.record
    timing, quality = (record.timing, record.quality) if record else (None, None)
    return {
        "table": table.title,
        "row": line.published.shown,
        "published_reuse_percent": line.published.ratio,
        "plan_reuse_percent": line.ratio,
        "published_speedup": line.published.speedup,
        "limit": line.limit,
        "beyond_limit": line.beyond,
        "published_s_per_image": line.published.seconds,
        "here_reuse": record.reuse.ratio if record and record.reuse else None,
        "here_limit": record.limits.speedup_limit if record and record.limits else None,
        **ends("here_speedup", timing.speedup if timing else None),
        "here_verdict": timing.verdict if timing else None,
        "here_s_per_image": line.seconds,
        **ends("here_drift", quality.drift if quality else None),
    }


def headline(every: Sequence[Line]) -> str:
    """Sum the comparison up.

    Args:
        every: the lines of all tables.

    Returns:
        One sentence.
    """
    agreeing = sum(line.agrees for line in every)
    timings = [line.record.timing for line in every if line.record and line.record.timing]
    faster = sum(timing.verdict == "FASTER" for timing in timings)
    measured = f"{faster} of {len(timings)} timed here are faster than the baseline" if timings else ""
    given = [line for line in every if line.published.speedup]
    beyond = sum(line.beyond == "yes" for line in given)
    near = sum(line.beyond == "within rounding" for line in given)
    return (
        f"{agreeing} of {len(every)} published reuse ratios follow from the plan to the digit; "
        f"{beyond} of {len(given)} published speedups exceed what FLOPs allow, {near} more by less than "
        f"their rounding; {measured or 'none is timed yet'}."
    )


class Claim(NamedTuple):
    """A published claim, and what was measured of it."""

    published: str
    measured: str


def claims(finished: Mapping[str, Record]) -> Iterator[Claim]:
    """Hold claims about options that had no effect in the published runs against their effect here.

    Args:
        finished: finished records by name.

    Yields:
        The claims whose runs were measured.
    """
    for fraction in ("0.33", "1.0"):
        pair = [_drift(finished.get(f"{name}-layer_fraction={fraction}")) for name in ("layers", "reverse")]
        if pair[0] and pair[1]:
            yield Claim(
                f"`linear` and `linear_reverse` score the same ({float(fraction):.0%} of the layers)",
                f"drift {interval(pair[0], 3)} shallow first, {interval(pair[1], 3)} deep first",
            )
    open_gate = finished.get("layers-layer_fraction=1.0")
    for quantile in ("0.25", "0.75"):
        gated = finished.get(f"entropy-entropy_quantile={quantile}")
        if gated and open_gate and gated.reuse and open_gate.reuse:
            yield Claim(
                f"the entropy threshold has no effect (at the model's {float(quantile):.0%} quantile, "
                f"{gated.reuse.resolved['entropy_threshold']:.2f} nats)",
                f"reuse {gated.reuse.ratio:.1%} instead of {open_gate.reuse.ratio:.1%}, "
                f"drift {interval(_drift(gated), 3)} instead of {interval(_drift(open_gate), 3)}",
            )


def _drift(record: Record | None) -> Mean | None:
    return record.quality.drift if record and record.quality else None
