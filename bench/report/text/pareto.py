"""The fronts in words: one sentence, whether the goals were met, and what was left out."""

# ruff: noqa: RUF001 - the signs × and – are meant

from __future__ import annotations

from collections.abc import Sequence

from bench.record import Median, Record
from bench.report.pareto import GOAL_ANY, GOAL_OF_LIMIT, GOAL_USUAL, OURS, Duel, Front, Fronts, Level
from bench.report.tables.columns import figures, interval
from bench.report.tables.pareto import of_limit

_drift = figures(2)


def sentence(fronts: Fronts, setting: str) -> str:
    """The fastest that lost nothing, with its lead; or, where none did, the fastest at the least level."""
    methods = {r.method for r in fronts.records} - {"baseline"}
    opening = (
        f"Over the baseline, {setting}, of {_rivals(fronts.records)} configurations of {len(methods)} "
        "methods, on any solver and number of steps,"
    )
    own = next((level for front in fronts.fronts for level in front.levels if level.own), None)
    if own and own.lead.first:
        return f"{opening} of those with {_limit(own)}, {_lead(own)}."
    none = f" none has {_limit(own)};" if own else ""
    front = fronts.fronts[0]
    least = next((level for level in front.asked if level.lead.first), None)
    if least is None:
        return f"{opening}{none} none has a {front.axis.title} of {front.asked[-1].drift:g} or less."
    return f"{opening}{none} at a {front.axis.title} of at most {least.drift:g} {_lead(least)}."


def _limit(own: Level) -> str:
    above = f"at most {own.drift:.3f}, the upper end of the baseline's own"
    return f"a mean drift from the converged trajectory of {above}"


def _rivals(records: Sequence[Record]) -> int:
    return sum(record.method != "baseline" for record in records)


def _lead(level: Level) -> str:
    """Who is fastest, over whom, and where DQAR is if it is neither."""
    first, second = level.lead.first, level.lead.second
    assert first is not None  # callers ask only where there is one
    said = f"the fastest is {_named(first)} at {_speed(first)} the baseline's speed"
    if second is not None:
        said += f", {_times(level.lead.ratio)} that of {_named(second)}, the fastest of another method"
    ours = level.any.first
    if ours and OURS not in (first.method, second and second.method):
        said += f"; DQAR's fastest is `{ours.name}` at {_speed(ours)}"
    return said if ours else f"{said}; none of DQAR's is there"


def verdict(fronts: Fronts) -> list[str]:
    """Lines: at how many levels the goals were met, and where not, by how much and who is ahead; who
    else is on a front; and what share of the FLOPs' promise became seconds."""
    lines = [line for front in fronts.fronts for line in _goals(front)]
    lines += [_company(front) for front in fronts.fronts]
    return [*lines, *_share(fronts), *_elsewhere(fronts)]


def _goals(front: Front) -> list[str]:
    return [
        _goal(front, [level.usual for level in front.asked], f"{GOAL_USUAL:g}×", "on its usual solver"),
        _goal(front, [level.any for level in front.asked], f"{GOAL_ANY:g}×", "on any solver"),
    ]


def _goal(front: Front, duels: Sequence[Duel], goal: str, where: str) -> str:
    """One goal on one axis: at how many levels it was met, and each where it was not."""
    every = [(f"{level.drift:g}", duel) for level, duel in zip(front.asked, duels, strict=True)]
    contested = [(at, duel) for at, duel in every if duel.verdict != "nobody"]
    opening = f"**({front.axis.mark}) {front.axis.title}, every competitor {where}:**"
    if not contested:
        return f"{opening} nothing faster than the baseline reaches any of the levels."
    met = sum(duel.verdict == "met" for _, duel in contested)
    said = f"{opening} DQAR is at least {goal} as fast at {met} of the {len(contested)} levels reached"
    empty = ", ".join(at for at, duel in every if duel.verdict == "nobody")
    said += f" (nobody reaches {empty})" * bool(empty)
    rest = "; ".join(f"at {at}: {_short_of(duel)}" for at, duel in contested if duel.verdict != "met")
    return f"{said}{'; ' * bool(rest)}{rest}.{_unopposed(contested)}"


def _unopposed(contested: Sequence[tuple[str, Duel]]) -> str:
    alone = ", ".join(at for at, duel in contested if duel.second is None)
    return f" No competitor reaches {alone}; there it is measured against the baseline." if alone else ""


def _short_of(duel: Duel) -> str:
    """By how much a goal was missed, and who is ahead."""
    rival = f"that of {_named(duel.second)}" if duel.second else "the baseline's speed"
    if duel.first is None or duel.ratio is None:
        return f"DQAR has nothing, {_named(duel.second)} is ahead" if duel.second else "nobody is"
    said = f"{_times(duel.ratio)} {rival}"
    if duel.verdict == "unclear":
        return f"one cannot tell, {said}"
    said += f", {duel.goal - duel.ratio.median:.2f} short"
    if duel.ratio.high < 1:
        return f"{said} and behind"
    return said if duel.ratio.low > 1 else f"{said} and not surely ahead"


def _company(front: Front) -> str:
    """Who is on a front; the baseline is always at its end and counts for nobody."""
    on = [p.record for p in front.points if p.record.name in front.on and p.record.method != "baseline"]
    others = [record for record in on if record.method != OURS]
    said = f"**On front ({front.axis.mark}):** {len(on) - len(others)} of DQAR's configurations"
    if not others:
        return f"{said} and no competitor's."
    return f"{said}, and {len(others)} of competitors: {', '.join(_named(record) for record in others)}."


def _share(fronts: Fronts) -> list[str]:
    """How much of the speedup that FLOPs allow DQAR reaches in seconds, where it is on a front."""
    ours = [r for r in fronts.records if r.method == OURS and fronts.marks(r)]
    shares = sorted((share, r.name) for r in ours if (share := of_limit(r)) is not None)
    if not shares:
        return []
    enough = sum(share >= GOAL_OF_LIMIT for share, _ in shares)
    (least, name), (most, best) = shares[0], shares[-1]
    return [
        f"**Seconds against FLOPs:** of DQAR's {len(shares)} configurations on a front {enough} reach "
        f"{100 * GOAL_OF_LIMIT:g} % of the speedup that FLOPs allow; from {100 * least:.0f} % (`{name}`) to "
        f"{100 * most:.0f} % (`{best}`)."
    ]


def _elsewhere(fronts: Fronts) -> list[str]:
    names = ", ".join(f"`{record.name}`" for record in fronts.elsewhere)
    said = f"**Not compared here,** as they were measured over another baseline: {names}."
    return [said] if names else []


def _named(record: Record) -> str:
    return f"`{record.name}` ({record.method})"


def _speed(record: Record) -> str:
    assert record.timing is not None  # only timed records are compared
    return f"{interval(record.timing.speedup, 2)}".replace(" [", "× [", 1)


def _times(ratio: Median | None) -> str:
    return interval(ratio, 2).replace(" [", "× [", 1)
