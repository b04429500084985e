"""What the records say in words: the one sentence, the warnings and the controls."""

# ruff: noqa: RUF001 - the signs × and – are meant

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from bench.record import Mean, Record, Timing
from bench.report.tables.columns import figures, fixed, lookup

_short, _ratio = figures(3), fixed(2)


def ok(records: Sequence[Record]) -> list[Record]:
    """The runs that finished."""
    return [record for record in records if record.status == "ok"]


def baselines(records: Sequence[Record]) -> list[Record]:
    """The controls that finished: the baseline measured against itself."""
    return [record for record in ok(records) if record.method == "baseline"]


def yardstick(records: Sequence[Record]) -> Mean | None:
    """The baseline's own drift from the converged trajectory, over the most pictures measured."""
    measured = [r.quality for r in ok(records) if r.quality and r.quality.baseline_drift_converged]
    best = max(measured, key=lambda quality: quality.n_converged, default=None)
    return best.baseline_drift_converged if best else None


def lost_nothing(record: Record, surely: bool = False) -> bool:
    """Whether it lies no further from the converged trajectory than the baseline may: on average, or surely,
    with its whole interval."""
    drift = lookup(record, "quality.drift_converged")
    own = lookup(record, "quality.baseline_drift_converged")
    return bool(drift and own and (drift.high if surely else drift.mean) <= own.high)


def faster(records: Sequence[Record]) -> list[Record]:
    """Candidates whose verdict is FASTER, the fastest first."""
    found = [
        (r.timing.speedup.median, r)
        for r in ok(records)
        if r.method != "baseline" and r.timing and r.timing.verdict == "FASTER"
    ]
    return [record for _, record in sorted(found, key=lambda pair: -pair[0])]


def sentence(records: Sequence[Record], setting: str) -> str:
    """The report in one sentence, with an interval, and honest when nothing is gained."""
    quick = faster(records)
    if not ok(records):
        return f"On {setting}, no configuration finished: see the failures below."
    if not quick:
        return f"On {setting}, no configuration is surely faster than the baseline{_nearest(records)}."
    if not any(record.quality for record in quick):
        return f"On {setting}, {_gain(quick[0])}; what it loses was not measured."
    free = [record for record in quick if lost_nothing(record)]
    if free:
        return f"On {setting}, {_gain(free[0])} and loses nothing measurable" + (
            f" ({_drifted(free[0])}{_judged(free[0])}){_best_dqar(free, quick)}."
        )
    return f"On {setting}, {_none_free(quick, yardstick(records))}."


def _judged(record: Record) -> str:
    """By what it lost nothing, though it drifts."""
    quality = record.quality
    assert quality and quality.drift_converged and quality.baseline_drift_converged  # else it is not known to
    own = quality.baseline_drift_converged
    return (
        f"; from the converged trajectory {_short(quality.drift_converged.mean)}, the baseline {_mean(own)}"
    )


def _none_free(quick: Sequence[Record], own: Mean | None) -> str:
    gain = f"{_gain(quick[0])} at {_drifted(quick[0])}"
    if own is None:
        return f"{gain}; whether that is much is unknown, the converged trajectory was not measured"
    mild = min(quick, key=loss)
    milder = f"; the mildest: {_gain(mild)} at {_drifted(mild)}" if mild is not quick[0] else ""
    return f"no configuration is both faster and without a measurable loss; the fastest: {gain}{milder}"


def loss(record: Record) -> float:
    """How far it ends from the converged trajectory, to rank by; infinite where not measured."""
    drift = lookup(record, "quality.drift_converged")
    return float(drift.mean) if drift else float("inf")


def _best_dqar(free: Sequence[Record], quick: Sequence[Record]) -> str:
    """What DQAR reaches, where something else came out best."""
    if free[0].method == "dqar":
        return ""
    for found, said in ((free, "DQAR's best:"), (quick, "none of DQAR's does both; its fastest:")):
        own = next((record for record in found if record.method == "dqar"), None)
        if own:
            return f"; {said} {_gain(own)} at {_drifted(own)}"
    return "; none of DQAR's is faster than the baseline"


def _nearest(records: Sequence[Record]) -> str:
    timed = [(r.timing.speedup.median, r) for r in ok(records) if r.timing and r.method != "baseline"]
    best = max(timed, key=lambda pair: pair[0], default=None)
    return f" (the nearest: {_gain(best[1])}{_doubt(best[1])})" if best else ""


def _doubt(record: Record) -> str:
    """Why it is not surely faster where its interval would say so."""
    timing = record.timing
    return f", but {timing.verdict_why}" if timing and timing.speedup.low > 1 and timing.verdict_why else ""


def _gain(record: Record) -> str:
    timing = record.timing
    assert timing is not None  # callers pass timed records only
    speed = timing.speedup
    interval = f"[{_ratio(speed.low)}, {_ratio(speed.high)}]"
    return f"`{record.name}` runs at {_ratio(speed.median)}× {interval} the baseline's speed"


def _drifted(record: Record) -> str:
    quality = record.quality
    return f"drift from the baseline {_mean(quality.drift)}" if quality else "a loss that was not measured"


def _mean(value: Mean) -> str:
    return f"{_short(value.mean)} [{_short(value.low)}, {_short(value.high)}]"


def warnings(records: Sequence[Record]) -> list[str]:
    """What a reader must know first: configurations that did nothing, or the same as another."""
    return [*_did_nothing(records), *_twins(records), *_bad_controls(records)]


def _did_nothing(records: Sequence[Record]) -> list[str]:
    lines = []
    for record in (record for record in ok(records) if record.method != "baseline"):
        idle = record.reuse is not None and not record.reuse.ratio and not record.reuse.alone
        same = record.quality is not None and record.quality.identical
        found = ["reused nothing"] * idle + ["gave pictures identical to the baseline's"] * same
        lines += [f"`{record.name}` {' and '.join(found)}."] if found else []
    return lines


def _twins(records: Sequence[Record]) -> list[str]:
    """Two configurations with the same digest of latents: a knob between them changes nothing."""
    drawn = [(r.name, r.quality.latents_sha256) for r in ok(records) if _differs(r) and r.quality]
    return [
        f"`{a}` and `{b}` gave identical pictures: what differs between them changes nothing."
        for (a, digest_a), (b, digest_b) in combinations(drawn, 2)
        if digest_a == digest_b
    ]


def _differs(record: Record) -> bool:
    """Twins of the baseline are named as such already."""
    return record.quality is not None and not record.quality.identical


def _bad_controls(records: Sequence[Record]) -> list[str]:
    controls = baselines(records)
    if not controls:
        return ["The suite has no finished control: the baseline was not measured against itself."]
    off = [r for r in controls if not _covers_one(r) and lookup(r, "timing.verdict") != "SAME"]
    drifted = [r for r in controls if r.quality and r.quality.drift.mean != 0]
    return [
        *[f"The control `{r.name}` is off: the baseline against itself is not 1." for r in off],
        *[f"The control `{r.name}` drifts from itself: it is not deterministic." for r in drifted],
    ]


def _covers_one(record: Record) -> bool:
    timing = record.timing
    return timing is None or timing.speedup.low <= 1 <= timing.speedup.high


def controls(records: Sequence[Record]) -> list[str]:
    """The baseline against itself, in words; and how many measured pairs were left out."""
    lines = [line for record in baselines(records) for line in _control(record)]
    return [*lines, *_disturbed(records)]


def _control(record: Record) -> list[str]:
    lines = []
    if record.timing:
        timing = record.timing
        speed, covers = timing.speedup, "covers" if _covers_one(record) else "leaves out"
        ends = f"[{speed.low:.3f}, {speed.high:.3f}]"
        lines.append(
            f"`{record.name}`: ratio {speed.median:.3f} {ends}, which {covers} 1 ({timing.verdict})."
        )
    if record.quality:
        exact = "exactly 0" if record.quality.drift.mean == 0 else _mean(record.quality.drift)
        lines.append(f"`{record.name}`: drift from itself {exact}.")
    return lines


def left_out(timing: Timing) -> set[int]:
    """Indices of the pairs that the figures leave out; none where fewer than two would remain."""
    return set(timing.disturbed) if len(timing.pairs) - len(timing.disturbed) >= 2 else set()


def _disturbed(records: Sequence[Record]) -> list[str]:
    """How many pairs were disturbed, where, and whether they were left out."""
    timed = [(r.name, r.timing) for r in ok(records) if r.timing]
    total = sum(len(timing.pairs) for _, timing in timed)
    counts = [(name, len(left_out(timing))) for name, timing in timed if left_out(timing)]
    named = ", ".join(f"`{name}` {count}" for name, count in counts)
    count = sum(count for _, count in counts)
    used = ", ".join(f"`{name}`" for name, t in timed if t.disturbed and not left_out(t))
    lines = [f"Disturbed pairs left out of the figures: {count} of {total} ({named or 'none'})."]
    return lines + [f"So disturbed that no calm pairs remain, all were used: {used}."] * bool(used)
