"""One generation: the schedule it follows, what was decided on the way, and its summary."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from dqar.core.reuse_gate import Reason, ReuseGate, served
from dqar.integration.outputs import Place
from dqar.plan import BOTH, CONDITIONAL, NONE

NOT_RUN = -1  # in a trajectory's reasons: a step that has not run

FloatArray = npt.NDArray[np.float64]


@dataclass
class Trajectory:
    """A generation as it runs. Tables are `[steps, layers]`, vectors `[layers]`."""

    timesteps: Any  # the scheduler's own object: a new one means a new generation
    inputs: tuple[Any, ...]  # shape, dtype and device of the latent
    snr: FloatArray  # [steps]
    time: FloatArray  # [steps], t / training steps
    position: FloatArray  # [steps], what forecasts are over
    response: FloatArray  # [steps], what the final latent gains for each unit of an output, 0 = not asked
    guided: bool  # whether the batch is two guidance branches
    branches: npt.NDArray[np.int8]  # [steps], how many guidance branches run
    blocked: npt.NDArray[np.int8]  # what the rules forbid
    expected: FloatArray  # [steps], relative error of an output's forecast that is to be expected
    gate: ReuseGate
    step: int = -1  # the step that ran last, or runs
    last_deviation: float = math.nan  # the last such error over the expected one
    deviation: FloatArray = field(init=False)  # [steps], such errors as measured, nan = not
    reasons: npt.NDArray[np.int8] = field(init=False)
    entropy: FloatArray = field(init=False)  # nats, nan = not measured
    known_entropy: FloatArray = field(init=False)  # of each layer's last measurement
    measured_at: FloatArray = field(init=False)  # step of that measurement, -inf = not yet
    span: FloatArray = field(init=False)  # steps since the entry was made that a computed layer has
    cache_bytes: int = 0

    def __post_init__(self) -> None:
        self.reasons = np.full(self.blocked.shape, NOT_RUN, dtype=np.int8)
        self.entropy = np.full(self.blocked.shape, np.nan)
        self.deviation = np.full(len(self.blocked), np.nan)
        self.known_entropy = np.full(self.blocked.shape[1], np.nan)
        self.measured_at = np.full(self.blocked.shape[1], -np.inf)
        self.span = np.ones(self.blocked.shape[1])

    def begin(self, step: int) -> None:
        """Begin at that step: where it is on the way, it has nothing to foretell from."""
        self.step = step - 1
        self.branches[: step + 1] = BOTH
        early = self.blocked[: step + 1]
        early[early == Reason.FORETOLD] = Reason.NO_ENTRY

    @property
    def place(self) -> Place:
        """Where this step is."""
        return Place(float(self.position[self.step]), float(self.response[self.step]))

    @property
    def last(self) -> bool:
        """Whether this step is the last of the schedule."""
        return self.step == len(self.snr) - 1

    def wanted(self, order: int = 0) -> npt.NDArray[np.bool_]:
        """Layers whose entry may be asked for at the next step, or for a forecast of that order at one of
        the `order` after it, of those that run: only these are worth keeping."""
        run = self.step + 1 + np.flatnonzero(self.branches[self.step + 1 :] != NONE)
        coming = self.blocked[run[: 1 + order]]
        return ((coming == Reason.REUSED) | (coming == Reason.PROBE)).any(axis=0)


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What the last generation reused. `str()` of it is a short text."""

    steps: int
    layers: int
    ratio: float  # attention calls that were reused, or left out with their step / all
    plan_ratio: float  # the same for the plan, in which the data allows everything
    map: npt.NDArray[np.bool_] = field(repr=False)  # [steps, layers], True = reused
    entropy: FloatArray = field(repr=False)  # [steps, layers], nats, nan = not measured
    snr: FloatArray = field(repr=False)  # [steps]
    reasons: dict[str, int]  # why calls were reused or computed -> calls
    cache_bytes: int  # the most the cache held
    branches: npt.NDArray[np.int8] = field(repr=False)  # [steps], guidance branches run; 2 without guidance
    deviation: FloatArray = field(repr=False)  # [steps], relative error of the output's forecast, nan = not

    @property
    def alone(self) -> npt.NDArray[np.bool_]:
        """`[steps]`, True = the conditional branch ran without the other."""
        return self.branches == CONDITIONAL

    @property
    def foretold(self) -> npt.NDArray[np.bool_]:
        """`[steps]`, True = nothing ran, the output was foretold."""
        return self.branches == NONE

    def __str__(self) -> str:
        why = ", ".join(f"{reason} {count}" for reason, count in self.reasons.items())
        return (
            f"{self.steps} steps x {self.layers} layers: {self.ratio:.2%} of the attention calls "
            f"reused (plan {self.plan_ratio:.2%}), {self.foretold.mean():.0%} of the steps foretold, "
            f"{self.alone.mean():.0%} without the unconditional branch, "
            f"cache {self.cache_bytes / 2**20:.2f} MiB\n{why}"
        )


def summarize(run: Trajectory, model_layers: int, plan_ratio: float) -> Summary:
    """Sum up the steps that have run, for all of the model's layers, managed or not."""
    done = run.reasons[:, 0] != NOT_RUN
    unmanaged = ((0, 0), (0, model_layers - run.reasons.shape[1]))
    table = np.pad(served(run.reasons[done]), unmanaged)
    table[run.branches[done] == NONE] = True  # unmanaged layers too
    counts = Counter(Reason(code).label for code in run.reasons[done].flat)
    return Summary(
        steps=len(table),
        layers=model_layers,
        ratio=float(table.mean()),
        plan_ratio=plan_ratio,
        map=table,
        entropy=np.pad(run.entropy[done], unmanaged, constant_values=np.nan),
        snr=run.snr[done],
        reasons=dict(sorted(counts.items())),
        cache_bytes=run.cache_bytes,
        branches=run.branches[done],
        deviation=run.deviation[done],
    )
