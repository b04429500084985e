"""Why a layer was reused or computed, and how far a step is along the trajectory."""

from __future__ import annotations

from enum import IntEnum

import numpy as np
import numpy.typing as npt

Reasons = npt.NDArray[np.int8]  # [..., layers] of Reason


class Reason(IntEnum):
    """Why a layer was reused or computed; where several rules forbid a reuse, the first of them."""

    REUSED = 0
    WARMUP = 1
    SNR = 2
    SCHEDULE = 3
    DEEP_SNR = 4
    PROBE = 5
    NO_ENTRY = 6
    AGE = 7
    CHANGE = 8
    ENTROPY = 9
    POLICY = 10
    BRANCH = 11
    PLAN = 12
    SKIPPED = 13  # the whole step: the model does not run
    DEVIATION = 14
    NOT_CALLED = 15  # the model left the layer out

    @property
    def label(self) -> str:
        """The name in words, for tables."""
        return self.name.lower().replace("_", " ")

    @classmethod
    def from_label(cls, label: str) -> Reason:
        """Look a reason up by its label.

        Args:
            label: As `Reason.label` gives it.

        Returns:
            The reason.

        Raises:
            KeyError: For text that is no reason's label.
        """
        return cls[label.upper().replace(" ", "_")]


def is_reused(reasons: Reasons) -> npt.NDArray[np.bool_]:
    """Where nothing is computed: reused, or the whole step skipped.

    Args:
        reasons: Of any shape.

    Returns:
        True where nothing is computed, in that shape.
    """
    return np.isin(reasons, (Reason.REUSED, Reason.SKIPPED))


def progress(step: int, steps: int) -> float:
    """How far a step is along a trajectory.

    Args:
        step: Number of the step, from 0.
        steps: Steps of the trajectory.

    Returns:
        0 at the first step to 1 at the last; 0 where there is only one.
    """
    return step / (steps - 1) if steps > 1 else 0.0
