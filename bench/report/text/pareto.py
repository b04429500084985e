"""The fronts as text: where DQAR's goals are met and where not, who is on a front, and what was excluded."""

# ruff: noqa: RUF001 - the sign × is meant

from __future__ import annotations

from bench.record import Record
from bench.report.curves import GOAL_ANY, GOAL_HALF, RANGE, Comparison
from bench.report.escape import code
from bench.report.pareto import GOAL_OF_LIMIT, Front, Fronts
from bench.report.selection import OURS
from bench.report.tables.pareto import of_limit
from bench.report.text.phrases import named, three


def verdicts(fronts: Fronts) -> list[str]:
    """Report how DQAR compares with its competitors.

    Args:
        fronts: the suite's fronts, one an axis.

    Returns:
        Lines: for each comparison where its goal is met; who is on a front; what share of the speedup that
        FLOPs allow was measured; and what is not compared.
    """
    lines = [_goal(front, comparison) for front in fronts.fronts for comparison in front.comparisons]
    lines += [line for front in fronts.fronts for line in _without(front)]
    lines += [_on_front(front) for front in fronts.fronts]
    return [*lines, *_share(fronts), *_elsewhere(fronts)]


def lead(fronts: Fronts) -> list[str]:
    """State first where DQAR leads and where it does not.

    Args:
        fronts: the suite's.

    Returns:
        A line for each measure of speed, by mean drift and then by the geometric mean: where the lower edge
        of the band of DQAR over the best of all others reaches the goals, between the drifts of `RANGE`, from
        the converged trajectory if that was measured.
    """
    last = fronts.fronts[-1]
    compared = [c for c in [*last.comparisons, *last.geometric] if c.against == "any solver"]
    return [_lead(last.axis.title, comparison) for comparison in compared]


def _lead(title: str, comparison: Comparison) -> str:
    text = (
        f"**DQAR over the best of all others, {comparison.average} {title} {RANGE[0]:g} to {RANGE[1]:g}, "
        f"{comparison.measure}:**"
    )
    all_of_it, half = comparison.edge(GOAL_ANY), comparison.edge(GOAL_HALF)
    if all_of_it is None or half is None:
        return f"{text} not both sides reach these drifts."
    parts = []
    if all_of_it.reached:
        spans = ", ".join(f"from {three(span.start)} to {three(span.stop)}" for span in all_of_it.reached)
        parts.append(f"{GOAL_ANY:g}× or more {spans}")
    if all_of_it.missed:
        spans = ", ".join(
            f"from {three(span.start)} to {three(span.stop)} (down to {span.lowest:.2f}×)"
            for span in all_of_it.missed
        )
        parts.append(f"below {GOAL_ANY:g}× {spans}")
    enough = "met" if half.share >= 0.5 else "not met"
    parts.append(f"{GOAL_HALF:g}× or more on {100 * half.share:.0f} % of it (goal: half; {enough})")
    reach = f"both sides reach {three(all_of_it.start)} to {three(all_of_it.stop)}"
    ours, theirs = comparison.nearest
    if ours != theirs and max(ours, theirs) > RANGE[0]:
        reach += f", nearer only {'DQAR' if ours < theirs else 'others'} ({three(min(ours, theirs))})"
    return f"{text} {reach}; the band's lower edge is {'; '.join(parts)}."


def _goal(front: Front, comparison: Comparison) -> str:
    """One comparison: the ratio over the whole range, and where the band falls below the goal."""
    curve, start, stop = comparison.curve, comparison.curve.drift[0], comparison.curve.drift[-1]
    text = (
        f"**({front.axis.mark}) {front.axis.title}, speed by {comparison.measure}, competitors on "
        f"{comparison.against}:** DQAR is {curve.ratio.min():.2f}× to {curve.ratio.max():.2f}× as fast "
        f"from drift {three(start)} to {three(stop)}"
    )
    if comparison.met:
        return f"{text}; the goal of {comparison.goal:g}× is met on the whole range."
    spans = "; ".join(
        f"from {three(span.start)} to {three(span.stop)}, where the band falls to {span.lowest:.2f}×"
        for span in comparison.missed
    )
    return f"{text}; the goal of {comparison.goal:g}× is not met {spans}."


def _without(front: Front) -> list[str]:
    """Where a side has nothing faster than the baseline."""
    missing = {"seconds", "FLOPs"} - {comparison.measure for comparison in front.comparisons}
    return [
        f"**({front.axis.mark}) {front.axis.title}, speed by {measure}:** not compared; DQAR or its "
        "competitors have nothing faster than the baseline."
        for measure in sorted(missing)
    ]


def basis(front: Front) -> str:
    """State what the bands of one axis were resampled from.

    Args:
        front: the front of one axis.

    Returns:
        One or two sentences; empty where nothing compares.
    """
    if not front.comparisons:
        return ""
    pairs = "timing pairs were resampled"
    if all(comparison.per_image for comparison in front.comparisons):
        return f"Images and {pairs}."
    return f"Single images were not recorded: mean drifts were drawn from their intervals, and {pairs}."


def _on_front(front: Front) -> str:
    """Who is on a front; the baseline is always at its end and is not counted."""
    on = [p.record for p in front.points if p.record.name in front.on and p.record.method != "baseline"]
    others = [record for record in on if record.method != OURS]
    text = f"**On front ({front.axis.mark}):** {len(on) - len(others)} of DQAR's configurations"
    if not others:
        return f"{text} and no competitor's."
    return f"{text}, and {len(others)} of competitors: {', '.join(named(record) for record in others)}."


def _share(fronts: Fronts) -> list[str]:
    """How much of the speedup that FLOPs allow DQAR reaches in seconds, where it is on a front."""
    ours = [r for r in fronts.records if r.method == OURS and fronts.marks(r)]
    shares = sorted((share, r.name) for r in ours if (share := of_limit(r)) is not None)
    if not shares:
        return []
    enough = sum(share >= GOAL_OF_LIMIT for share, _ in shares)
    (least, name), (most, best) = shares[0], shares[-1]
    return [
        f"**Seconds against FLOPs:** of DQAR's {len(shares)} configurations on a front, {enough} reach "
        f"{100 * GOAL_OF_LIMIT:g} % of the speedup that FLOPs allow; from {100 * least:.0f} % ({code(name)}) "
        f"to {100 * most:.0f} % ({code(best)})."
    ]


def _elsewhere(fronts: Fronts) -> list[str]:
    names = ", ".join(_code(record) for record in fronts.elsewhere)
    text = f"**Not compared here,** because they were measured over another baseline: {names}."
    return [text] if names else []


def _code(record: Record) -> str:
    return code(record.name)
