"""What a report recommends, and what "no loss" means: decided here and nowhere else.

A configuration has *no loss* where its drift from the converged trajectory, less the baseline's on the
same image and noise, has a mean whose 95 % interval ends below a margin. The suite states the margin as a
share of the baseline's own drift. The comparison is paired, image by image: an unpaired one would pass
more easily the fewer images there are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean
from typing import Literal, NamedTuple

from bench import stats
from bench.record import Mean, Record

NO_LOSS_MARGIN = 0.05  # share of the baseline's own drift, unless the suite states another
MIN_IMAGES = 24  # paired images that a claim of no loss needs
OURS = "dqar"
_MIN_LIMIT = 1.005  # below it, counted FLOPs allow no speedup to speak of

Verdict = Literal["no loss", "loss", "inconclusive", "no claim"]
Basis = Literal["no loss", "within the baseline's own", "likeliest", "speed only", "lowest drift", "none"]


class Loss(NamedTuple):
    """The verdict on a configuration's loss, and what it was decided from."""

    verdict: Verdict
    n: int  # paired images
    difference: Mean | None  # candidate's drift from converged less the baseline's; None if not paired
    bound: float | None  # what the difference must stay below, in the unit of drift


class Recommendation(NamedTuple):
    """What to use, and why it was chosen; no record where the baseline is the best choice."""

    record: Record | None
    basis: Basis


def loss(record: Record, margin: float = NO_LOSS_MARGIN) -> Loss:
    """The verdict on one configuration.

    Args:
        record: Its record.
        margin: Share of the baseline's own drift that the difference must stay below.

    Returns:
        *no loss* where the interval's upper end is below the margin, *loss* where the lower end is
        above it, *inconclusive* between and of fewer than MIN_IMAGES images, *no claim* where the
        drift from converged was not recorded image by image.
    """
    quality = record.quality
    if quality is None or not quality.drift_converged_per_image:
        return Loss("no claim", 0, None, None)
    baseline = quality.baseline_drift_converged_per_image
    difference = stats.mean_difference(quality.drift_converged_per_image, baseline)
    bound = margin * fmean(baseline)
    return Loss(_verdict(difference, bound, len(baseline)), len(baseline), difference, bound)


def _verdict(difference: Mean, bound: float, n: int) -> Verdict:
    if n < MIN_IMAGES:
        return "inconclusive"
    if difference.high < bound:
        return "no loss"
    return "loss" if difference.low > bound else "inconclusive"


def drift_from_converged(record: Record) -> float:
    """Look up the drift to rank by.

    Args:
        record: any record.

    Returns:
        The mean drift from the converged trajectory; infinite where not measured.
    """
    drift = record.quality and record.quality.drift_converged
    return drift.mean if drift else float("inf")


def speed(record: Record) -> float:
    """Look up the speedup to rank by.

    Args:
        record: any record.

    Returns:
        The median of the measured speedups; 0 where not timed.
    """
    return record.timing.speedup.median if record.timing else 0.0


def limit(record: Record) -> float:
    """Look up the speedup that counted FLOPs allow.

    Args:
        record: any record.

    Returns:
        The limit; 1 where not counted.
    """
    return record.limits.speedup_limit if record.limits else 1.0


@dataclass(frozen=True)
class Selection:
    """The records of one suite, and what follows from them for its reader."""

    records: Sequence[Record]
    margin: float = NO_LOSS_MARGIN

    @cached_property
    def finished(self) -> list[Record]:
        """The runs that finished."""
        return [record for record in self.records if record.status == "ok"]

    @cached_property
    def controls(self) -> list[Record]:
        """The finished controls: the baseline measured against itself."""
        return [record for record in self.finished if record.method == "baseline"]

    @cached_property
    def candidates(self) -> list[Record]:
        """The finished runs that are no control."""
        return [record for record in self.finished if record.method != "baseline"]

    @cached_property
    def baseline_drift(self) -> Mean | None:
        """The baseline's own drift from the converged trajectory, over the most images measured."""
        measured = [r.quality for r in self.finished if r.quality and r.quality.baseline_drift_converged]
        best = max(measured, key=lambda quality: quality.n_converged, default=None)
        return best.baseline_drift_converged if best else None

    @cached_property
    def faster(self) -> list[Record]:
        """Candidates whose verdict is FASTER, the fastest first."""
        measured = [r for r in self.candidates if r.timing and r.timing.verdict == "FASTER"]
        return sorted(measured, key=speed, reverse=True)

    @cached_property
    def lossless(self) -> list[Record]:
        """Those of the faster that have no loss, the fastest first."""
        return [record for record in self.faster if self.loss(record).verdict == "no loss"]

    def loss(self, record: Record) -> Loss:
        """Judge one configuration at the suite's margin.

        Args:
            record: the record of one configuration.

        Returns:
            The verdict with the paired difference that it rests on.
        """
        return loss(record, self.margin)

    def within_baseline(self, record: Record) -> bool:
        """Whether the drift from converged is about the baseline's own; it supports a choice, not a claim.

        Args:
            record: the record of one configuration.

        Returns:
            True where the mean drift is no more than the margin above the baseline's, and no paired
            comparison contradicts it.
        """
        baseline = record.quality and record.quality.baseline_drift_converged
        if not baseline or self.loss(record).verdict == "loss":
            return False
        return drift_from_converged(record) <= (1 + self.margin) * baseline.mean

    @cached_property
    def recommended(self) -> Recommendation:
        """The configuration to use, by the strongest basis that the records support."""
        bases: list[tuple[Basis, Sequence[Record], Callable[[Record], float]]] = [
            ("no loss", self.lossless, speed),
            ("within the baseline's own", self.unclaimed, speed),
            ("likeliest", self._promising(), limit),
            ("speed only", [] if any(r.quality for r in self.faster) else self.faster, speed),
            ("lowest drift", [r for r in self.faster if r.quality], _least_drift),
        ]
        for basis, records, rank in bases:
            best = max(records, key=rank, default=None)
            if best:
                return Recommendation(best, basis)
        return Recommendation(None, "none")

    def _promising(self) -> list[Record]:
        """Not measurably faster, but without more drift, and counted FLOPs allow a speedup."""
        acceptable = [
            r for r in self.candidates if self.loss(r).verdict == "no loss" or self.within_baseline(r)
        ]
        return [record for record in acceptable if limit(record) > _MIN_LIMIT]

    @cached_property
    def lead(self) -> Record | None:
        """The configuration that the headline names first: the recommended one, or the fastest where that
        one is only the lowest-drift of those that lose."""
        record, basis = self.recommended
        return self.faster[0] if basis == "lowest drift" else record

    def alternative(self) -> Record | None:
        """Choose the configuration to compare the lead with.

        Returns:
            DQAR's best, or where DQAR leads the best of another method; the fastest on the lead's basis, else
            the fastest within the baseline's own drift, else the one that drifts least, where drift decided
            on the lead; None where there is none.
        """
        if self.lead is None:
            return None
        ours = self.lead.method == OURS
        others = [r for r in self.faster if (r.method != OURS) == ours and r.method != self.lead.method]
        if self.recommended.basis not in ("no loss", "within the baseline's own"):
            return next(iter(others), None)
        groups = [self.lossless] if self.recommended.basis == "no loss" else []
        alike = [r for group in [*groups, self.unclaimed] for r in group if r in others]
        return next(iter([*alike, *sorted(others, key=_least_drift, reverse=True)]), None)

    @cached_property
    def unclaimed(self) -> list[Record]:
        """Those of the faster whose mean drift is within the baseline's own, the fastest first."""
        return [record for record in self.faster if self.within_baseline(record)]

    @cached_property
    def lowest_drift(self) -> Record | None:
        """Of the faster, the one that drifts least."""
        return max((r for r in self.faster if r.quality), key=_least_drift, default=None)


def _least_drift(record: Record) -> float:
    """Rank by the drift from converged, where not measured by that from the baseline; least first."""
    near = drift_from_converged(record)
    if near < float("inf"):
        return -near
    return -record.quality.drift.mean if record.quality else float("-inf")
