"""What a reader asks first, answered above the figures: what was run, what to use, what is lost, how sure."""

# ruff: noqa: RUF001 - the sign × is meant

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from bench.record import Mean, Record
from bench.report import selection
from bench.report.tables.columns import figures, interval, lookup

_short = figures(3)


class Choice(NamedTuple):
    """A configuration, why it and no other, and whether that is sure."""

    record: Record | None
    why: str


def answers(records: Sequence[Record]) -> list[tuple[str, str]]:
    """Question and answer, in the order in which they are asked; none where nothing finished."""
    if not selection.ok(records):
        return []
    chosen = choice(records)
    return [
        ("What was run", _run(records)),
        ("Which to use", chosen.why),
        ("What you lose by it", _lost(chosen.record)),
        *_held(records, chosen.record),
        ("How sure that is", _sure(records, chosen.record)),
    ]


def choice(records: Sequence[Record]) -> Choice:
    """The fastest that loses nothing measurable; else what comes nearest to that, said to be so."""
    quick = selection.faster(records)
    free = [record for record in quick if selection.lost_nothing(record)]
    if free:
        return Choice(free[0], f"{_speed(free[0])}: the fastest of those that lose nothing measurable.")
    harmless = max(_harmless(records), key=_limit, default=None)
    if harmless:
        return Choice(
            harmless,
            "None is surely faster without a measurable loss. The likeliest is "
            f"{_speed(harmless)}, where counted FLOPs allow {_limit(harmless):.2f}×.",
        )
    if quick and not any(record.quality for record in quick):
        return Choice(quick[0], f"By speed alone, for loss was not measured: {_speed(quick[0])}.")
    if quick:
        mild = min(quick, key=_loss)
        known = mild.quality and mild.quality.drift_converged
        said = "None is faster without a measurable loss" if known else "What loss is too much is unknown"
        return Choice(mild, f"{said}. Of those that are faster the mildest is {_speed(mild)}.")
    return Choice(None, "The untouched baseline: nothing here is surely faster.")


def _loss(record: Record) -> tuple[float, float]:
    """By what the mildest is chosen: the distance from the converged trajectory, else from the baseline."""
    drift = lookup(record, "quality.drift")
    return selection.loss(record), drift.mean if drift else float("inf")


def _harmless(records: Sequence[Record]) -> list[Record]:
    """Configurations that lose nothing measurable, and leave something out."""
    return [r for r in selection.ok(records) if selection.lost_nothing(r) and _limit(r) > 1.005]


def _limit(record: Record) -> float:
    return record.limits.speedup_limit if record.limits else 1.0


def _speed(record: Record) -> str:
    ratio = interval(record.timing.speedup, 2) if record.timing else "not timed"
    return f"`{record.name}` at {ratio} times the baseline's speed"


def _run(records: Sequence[Record]) -> str:
    pairs = [len(r.timing.pairs) for r in selection.ok(records) if r.timing]
    pictures = [r.quality.n for r in selection.ok(records) if r.quality]
    beside = max((len(r.timing.beside) for r in selection.ok(records) if r.timing), default=0)
    alone = "each in a process of its own"
    process = f"up to {beside + 1} to a process, where each baseline's seconds serve all" if beside else alone
    parts = [f"{len(records)} configuration{'s' * (len(records) != 1)}, {process}"]
    if pairs:
        parts.append(f"{_range(pairs)} timed pairs of generations, the untouched baseline and it in turn")
    if pictures:
        parts.append(f"{_range(pictures)} pictures compared with the baseline's of the same noise")
    return "; ".join(parts) + "."


def _range(numbers: Sequence[int]) -> str:
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low} to {high}"


def _lost(record: Record | None) -> str:
    if record is None:
        return "Nothing."
    quality = record.quality
    if quality is None:
        return "Not measured in this suite."
    said = f"The final latent moves by {_mean(quality.drift)} of its length (drift; 0: the same picture)"
    if quality.psnr_db:
        said += f", pictures agree to {quality.psnr_db.mean:.1f} dB PSNR"
    if quality.worst:
        said += f"; of the {quality.n} the worst moves by {_short(quality.worst[0].drift)}"
    own = quality.baseline_drift_converged
    if quality.drift_converged is None or own is None:
        return f"{said}."
    return (
        f"{said}. From the converged trajectory it ends {_mean(quality.drift_converged)} away, "
        f"the baseline {_mean(own)}."
    )


def _held(records: Sequence[Record], chosen: Record | None) -> list[tuple[str, str]]:
    """What caches hold, where memory was measured."""
    held = {r.name: r.memory.cache_bytes / 1e6 for r in selection.ok(records) if r.memory}
    if not held:
        return []
    most = max(held, key=lambda name: held[name])
    own = f"`{chosen.name}` {held[chosen.name]:.1f} MB; " if chosen and chosen.name in held else ""
    return [("What its cache holds", f"{own}of all configurations `{most}` holds most, {held[most]:.1f} MB.")]


def _mean(value: Mean) -> str:
    return f"{_short(value.mean)} [{_short(value.low)}, {_short(value.high)}]"


def _sure(records: Sequence[Record], chosen: Record | None) -> str:
    """What the control says of the timing, how many verdicts there are, and whether the loss is sure."""
    said = "Brackets are 95 % intervals."
    control = next((r.timing for r in selection.baselines(records) if r.timing), None)
    if control:
        said += (
            f" The baseline against itself came out at {interval(control.speedup, 2)}: "
            "a speedup within that tells nothing."
        )
    tried = [r for r in selection.ok(records) if r.method != "baseline"]
    found = Counter(str(lookup(r, "timing.verdict")) for r in tried if r.timing)
    counted = ", ".join(f"{count} {verdict}" for verdict, count in sorted(found.items()))
    said += f" Verdicts on speed: {counted}." if counted else ""
    return said + _steady(records, chosen)


def _steady(records: Sequence[Record], chosen: Record | None) -> str:
    """Where the chosen one's loss may lie above the baseline's own: the fastest whose surely does not."""
    lost_nothing = selection.lost_nothing
    if chosen is None or not lost_nothing(chosen) or lost_nothing(chosen, surely=True):
        return ""
    said = f" That `{chosen.name}` loses nothing holds for its mean, not for its whole interval;"
    calm = next((r for r in selection.faster(records) if lost_nothing(r, surely=True)), None)
    return f"{said} {f'for the whole: {_speed(calm)}' if calm else 'for the whole it does for none'}."
