"""Where a generation's time goes, of the baseline and of a method: where a missing speedup is lost."""

# ruff: noqa: RUF001 - the signs × and − are meant

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.machine import provenance
from bench.measure.timing import over
from bench.methods import get
from bench.pipeline.session import Session, stopwatch
from bench.report.escape import code, escape
from bench.report.page import Page
from bench.report.tables.columns import grid
from bench.spec.run_spec import RunSpec, shown_model
from dqar.evaluation.profiling import GAPS, DQARProfiler, Profile
from dqar.evaluation.ranges import WHOLE

TITLES = {
    "attention": "attention",
    "mlp": "MLP",
    "norm": "adaLN: norms, modulation, residuals",
    "embeddings": "embeddings: timestep, label, patches",
    WHOLE: "transformer, compiled as a whole",
    "gate": "gate: decisions, entropy",
    "forecast": "forecast",
    "cache": "cache: store, load, (de)quantise",
    "scheduler": "scheduler step",
    "vae": "decoder",
    "rest": "other: output layers, guidance, pipeline",
    GAPS: "launch gaps: the device waits",
}
HEADERS = ("part", "baseline ms", "share", "method ms", "share", "difference ms")
HOST = (
    "Medians of the self CPU time of each part, the host's between its operations included. The profiler's"
    " own cost is in it: {0:+.0%} over the baseline's time without it, {1:+.0%} over the method's."
)
DEVICE = (
    "Medians of the device time of the kernels that each part launched. Launch gaps are what is left of the"
    " time that a generation takes without the profiler, which slows the host down and not the kernels."
)
COMPILED = (
    "\n\nA compiled transformer has no parts to look into: it counts as a whole, with what its cache takes."
    " The eager run of the same options distinguishes them."
)


@dataclass(frozen=True)
class Arm:
    """One arm: the seconds of a generation that nothing watches, and the profiles of several."""

    wall: float
    profiles: Sequence[Profile]

    @property
    def seconds(self) -> dict[str, float]:
        """Median seconds of each part; gaps are those of a generation that no profiler slows down."""
        groups = self.profiles[0].seconds
        parts = {group: statistics.median(p.seconds[group] for p in self.profiles) for group in groups}
        if not self.on_device:
            return parts
        del parts[GAPS]
        return parts | {GAPS: max(0.0, self.wall - sum(parts.values()))}

    @property
    def on_device(self) -> bool:
        """Whether the seconds are a device's."""
        return GAPS in self.profiles[0].seconds

    @property
    def overhead(self) -> float:
        """What the profiler added, relative."""
        return statistics.median(profile.total for profile in self.profiles) / self.wall - 1


@dataclass(frozen=True)
class Comparison:
    """A configuration's two arms."""

    spec: RunSpec
    baseline: Arm
    method: Arm

    def rows(self) -> list[tuple[str, float, float]]:
        """List the parts that take any time in one arm, and the whole.

        Returns:
            Title, seconds of the baseline and seconds of the method, of one generation; the last row is of
            all.
        """
        before, after = self.baseline.seconds, self.method.seconds
        both = [(title, before.get(g, 0.0), after.get(g, 0.0)) for g, title in TITLES.items()]
        kept = [row for row in both if row[1] or row[2]]
        return [*kept, ("all", sum(before.values()), sum(after.values()))]


def compare(spec: RunSpec, out: Path, repeats: int = 3) -> Comparison:
    """Time both arms, interleaved, without a profiler, then profile as many generations, interleaved as
    well.

    Args:
        spec: the configuration; the baseline is the other arm.
        out: a directory; `trace-baseline.json.gz` and `trace.json.gz`, Chrome traces of the last ones, go to
            it.
        repeats: generations of each arm that count, at least 1.

    Returns:
        Both arms.
    """
    out.mkdir(parents=True, exist_ok=True)
    session, samples = Session.open(spec), range(spec.batch_size)
    timed = [(session.baseline(samples), session.candidate(samples)) for _ in range(1 + repeats)][1:]
    walls = [statistics.median(generation.seconds for generation in arm) for arm in zip(*timed, strict=True)]
    options = spec.options | session.resolved
    seen = [
        (
            profiled(session, "baseline", {}, out / "trace-baseline.json.gz"),
            profiled(session, spec.method, options, out / "trace.json.gz"),
        )
        for _ in range(repeats)
    ]
    baseline, method = (Arm(*arm) for arm in zip(walls, zip(*seen, strict=True), strict=True))
    return Comparison(spec, baseline, method)


def profiled(session: Session, method: str, options: dict[str, Any], trace: Path) -> Profile:
    """Profile one generation of a batch under a method.

    Args:
        session: the loaded model with the batch to profile.
        method: the method's name.
        options: the method's options, resolved.
        trace: the file that the Chrome trace goes to.

    Returns:
        Seconds by part.
    """
    pipe, arguments = session.pipe, session.arguments(range(session.spec.batch_size))
    # Nothing reads the stopwatch: it keeps the garbage collector out of the profile.
    with get(method).apply(pipe, options) as arm, stopwatch(), DQARProfiler(pipe, trace) as profiler:
        pipe(**arguments | arm.call)
    assert profiler.result is not None
    return profiler.result


def page(comparison: Comparison) -> Page:
    """Show a comparison.

    Args:
        comparison: both arms of the profile.

    Returns:
        The page, not yet written.
    """
    spec, (*_, (_, before, after)) = comparison.spec, comparison.rows()
    cells = [_cells(row, before, after) for row in comparison.rows()]
    body = "\n\n".join(
        (
            _setup(spec),
            f"**Summary:** {headline(comparison)}",
            grid(HEADERS, cells),
            _how(comparison),
            "Chrome traces: [trace-baseline.json.gz](trace-baseline.json.gz), [trace.json.gz](trace.json.gz)"
            " (open in ui.perfetto.dev).",
        )
    )
    return Page(f"Profile of {code(spec.name)} of suite {code(spec.suite)}", headline(comparison), body)


def headline(comparison: Comparison) -> str:
    """Report the ratio of the arms, and where most is gained and most is lost.

    Args:
        comparison: both arms of the profile.

    Returns:
        One sentence.
    """
    before, after = comparison.baseline.wall, comparison.method.wall
    changes = {title: (m - b) * 1e3 for title, b, m in comparison.rows()[:-1]}
    gain, loss = min(changes, key=changes.__getitem__), max(changes, key=changes.__getitem__)
    return (
        f"without the profiler a generation takes {before * 1e3:.1f} ms, by the method {after * 1e3:.1f} ms"
        f" ({before / after:.3f}×); most is gained in {_bare(gain)} ({changes[gain]:+.1f} ms),"
        f" most lost in {_bare(loss)} ({changes[loss]:+.1f} ms)."
    )


def _cells(row: tuple[str, float, float], before: float, after: float) -> tuple[str, ...]:
    title, base, method = row
    return (
        title,
        f"{base * 1e3:.2f}",
        f"{base / before:.1%}",
        f"{method * 1e3:.2f}",
        f"{method / after:.1%}",
        f"{(method - base) * 1e3:+.2f}",
    )


def _bare(title: str) -> str:
    return title.split(":")[0]


def _setup(spec: RunSpec) -> str:
    """What was run on what, and the method's options."""
    model = shown_model(spec.model) + (" with random weights" if spec.weights == "random" else "")
    options = ", ".join(f"{key}={value}" for key, value in spec.options.items()) or "no options"
    return (
        f"Model {escape(model)}, {spec.num_inference_steps} steps, guidance {spec.guidance_scale:g}, batch"
        f" {spec.batch_size}, {spec.dtype}, {over(spec)}, on {provenance.machine()}; method"
        f" {code(spec.method)} ({escape(options)})."
    )


def _how(comparison: Comparison) -> str:
    """What the values are."""
    device = comparison.baseline.on_device
    how = DEVICE if device else HOST.format(comparison.baseline.overhead, comparison.method.overhead)
    return how + (COMPILED if comparison.spec.compile else "")
