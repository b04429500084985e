"""What a generation reused, as it happened."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from dqar.core.reasons import Reason, Reasons, is_reused
from dqar.integration.step_decision import StepDecision
from dqar.plan import CONDITIONAL, NONE

FloatArray = npt.NDArray[np.float64]
NOT_RUN = -1  # in a record's reasons: a step at which the branch was not called


class Record:
    """What happened to one branch at each step: tables are `[steps, layers]`, vectors `[steps]`.

    Args:
        steps: Steps of the schedule.
        layers: Layers that DQAR manages.
    """

    def __init__(self, steps: int, layers: int) -> None:
        self.layers = layers
        self.decisions: list[StepDecision | None] = [None] * steps  # None = the branch was not called
        self.corrections: dict[int, Reasons] = {}  # steps at which some layer did not do as decided
        self.entropy = np.full((steps, layers), np.nan)  # nats, nan = not measured
        self.deviation = np.full(steps, np.nan)  # relative error of the output's forecast, nan = not measured
        self.cache_bytes = 0

    @property
    def done(self) -> npt.NDArray[np.bool_]:
        """`[steps]`, the steps at which the branch was called."""
        return np.array([decision is not None for decision in self.decisions])

    @property
    def branches(self) -> npt.NDArray[np.int8]:
        """`[steps]`, guidance branches that ran."""
        return np.array([int(d.branches) if d else 0 for d in self.decisions], dtype=np.int8)

    @property
    def reasons(self) -> Reasons:
        """`[steps, layers]`, why each call was reused or computed; NOT_RUN where there was none."""
        table = np.full((len(self.decisions), self.layers), NOT_RUN, dtype=np.int8)
        for step, decision in enumerate(self.decisions):
            if decision is not None:
                table[step] = self.corrections.get(step, decision.reasons)
        return table

    def reused(self) -> npt.NDArray[np.bool_]:
        """Where nothing was computed.

        Returns:
            `[steps, layers]`; true for all layers of a skipped step.
        """
        table = is_reused(self.reasons)
        table[self.done & (self.branches == NONE)] = True  # layers that are not managed too
        return table


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What the last generation reused, as it happened. `str()` of it is a short text.

    Tables are of the first (conditional) call of each step; `ratio` is over all calls.
    """

    steps: int
    layers: int
    ratio: float  # attention calls that were reused, or skipped with their step / all
    plan_ratio: float  # the same for the plan, in which the data allows everything
    map: npt.NDArray[np.bool_] = field(repr=False)  # [steps, layers], True = reused
    entropy: FloatArray = field(repr=False)  # [steps, layers], nats, nan = not measured
    snr: FloatArray = field(repr=False)  # [steps]
    reasons: dict[str, int]  # why calls were reused or computed -> calls
    cache_bytes: int  # the most the cache held
    branches: npt.NDArray[np.int8] = field(repr=False)  # [steps], guidance branches run; 2 without guidance
    deviation: FloatArray = field(repr=False)  # [steps], relative error of the output's forecast, nan = not
    calls: int = 1  # calls of the transformer a step: one, or one for each guidance branch

    @property
    def conditional_only(self) -> npt.NDArray[np.bool_]:
        """`[steps]`, True = the conditional branch ran without the other."""
        return np.asarray(self.branches == CONDITIONAL)

    @property
    def skipped(self) -> npt.NDArray[np.bool_]:
        """`[steps]`, True = nothing ran, the output was forecast."""
        return np.asarray(self.branches == NONE)

    def __str__(self) -> str:
        why = ", ".join(f"{reason} {count}" for reason, count in self.reasons.items())
        return (
            f"{self.steps} steps x {self.layers} layers: {self.ratio:.2%} of the attention calls "
            f"reused (plan {self.plan_ratio:.2%}), {self.skipped.mean():.0%} of the steps skipped, "
            f"{self.conditional_only.mean():.0%} without the unconditional branch, "
            f"cache {self.cache_bytes / 2**20:.2f} MiB\n{why}"
        )


def summarize(records: Sequence[Record], snr: FloatArray, model_layers: int, plan_ratio: float) -> Summary:
    """Sum up the steps that ran, for all of the model's layers.

    Args:
        records: One a branch, the first (conditional) branch's first.
        snr: Of each step of the schedule, `[steps]`.
        model_layers: Layers of the model, those that are not managed among them.
        plan_ratio: Share of the calls that the plan reuses, 0 to 1.

    Returns:
        The summary; `steps` counts those at which the first branch was called.
    """
    main, done = records[0], records[0].done
    unmanaged = ((0, 0), (0, model_layers - main.layers))
    tables = [_padded(record, unmanaged) for record in records]
    calls = np.concatenate([table[record.done] for record, table in zip(records, tables, strict=True)])
    reasons = np.concatenate([record.reasons[record.done].ravel() for record in records])
    return Summary(
        steps=int(done.sum()),
        layers=model_layers,
        ratio=float(calls.mean()),
        plan_ratio=plan_ratio,
        map=tables[0][done],
        entropy=np.pad(main.entropy[done], unmanaged, constant_values=np.nan),
        snr=snr[done],
        reasons=dict(sorted(Counter(Reason(code).label for code in reasons).items())),
        cache_bytes=sum(record.cache_bytes for record in records),
        branches=main.branches[done],
        deviation=main.deviation[done],
        calls=len(records),
    )


def merged(parts: Sequence[Summary]) -> Summary:
    """One summary of a generation whose steps two transformers share.

    Args:
        parts: One a transformer, the earlier steps' first; at least one.

    Returns:
        The only part itself, or a new summary with as many layers as the deepest; ratios are means over the
        steps.
    """
    if len(parts) == 1:
        return parts[0]
    layers, steps = max(part.layers for part in parts), [part.steps for part in parts]
    reasons = sum((Counter(part.reasons) for part in parts), Counter())

    def rows(name: str, fill: float | bool) -> npt.NDArray[Any]:
        tables = [getattr(part, name) for part in parts]
        wide = [np.pad(t, ((0, 0), (0, layers - t.shape[1])), constant_values=fill) for t in tables]
        return np.concatenate(wide)

    return Summary(
        steps=sum(steps),
        layers=layers,
        ratio=float(np.average([part.ratio for part in parts], weights=steps)),
        plan_ratio=float(np.average([part.plan_ratio for part in parts], weights=steps)),
        map=rows("map", False),
        entropy=rows("entropy", np.nan),
        snr=np.concatenate([part.snr for part in parts]),
        reasons=dict(sorted(reasons.items())),
        cache_bytes=max(part.cache_bytes for part in parts),
        branches=np.concatenate([part.branches for part in parts]),
        deviation=np.concatenate([part.deviation for part in parts]),
        calls=max(part.calls for part in parts),
    )


def _padded(record: Record, unmanaged: tuple[tuple[int, int], tuple[int, int]]) -> npt.NDArray[np.bool_]:
    table = np.pad(record.reused(), unmanaged)
    table[record.done & (record.branches == NONE)] = True
    return table
