"""TeaCache (Liu et al. 2024, arXiv 2411.19108): the blocks' residual is held while the modulated input of the
first block has changed little since they ran. By how much the output changes is a polynomial of how much the
input does, which the authors fitted for a few models; here it is fitted to a generation of the current model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from torch import Tensor, nn

from bench.methods.base import Arm, Method, always, by_one_generation
from bench.methods.hooks import TRIED, Choice, Progress, Range, checked, progress, restored
from bench.methods.residual import HeldResidual
from bench.methods.scheduler import solver
from bench.methods.space import Baseline, Real, Space, one_space, solvers

COEFFICIENTS = "coefficients"  # highest power first; without them a generation is measured to fit them
KNOWN: dict[str, Range | Choice] = {"threshold": Range(float, 0, 10, 0.1)}
DEGREE = 4  # of the polynomial, the authors'


def check(options: dict[str, Any]) -> None:
    """Check options against KNOWN and the solver's.

    Args:
        options: As a suite has them.

    Raises:
        ValueError: Naming the option, its value and what is allowed.
    """
    checked(options, KNOWN)


class Accumulator:
    """Sums up how much the output is expected to have changed since the blocks last ran.

    Args:
        threshold: Relative change below which the residual is held.
        coefficients: Of the polynomial from the input's relative change to the output's, highest power first.
    """

    def __init__(self, threshold: float, coefficients: Sequence[float]) -> None:
        self.threshold, self.coefficients = threshold, coefficients
        self.change = 0.0

    def holds(self, distance: float) -> bool:
        """Decide a step, and take its change into account.

        Args:
            distance: Relative change of the input since the step before.

        Returns:
            Whether the residual is held.
        """
        self.change += float(np.polyval(self.coefficients, distance))
        if self.change < self.threshold:
            return True
        self.change = 0.0
        return False


class Cache(HeldResidual):
    """Runs the blocks of a transformer, or adds the residual of their last run.

    Args:
        transformer: With one list of blocks, `transformer_blocks`.
        accumulator: Decides; None = all steps run, and the changes of input and output are noted.
        at: Where the generation is: its first and last step always run.
    """

    def __init__(self, transformer: Any, accumulator: Accumulator | None, at: Progress) -> None:
        self.modulated = _modulation(transformer.transformer_blocks[0])
        super().__init__(transformer)
        self.accumulator, self.at = accumulator, at
        self.last_input: Tensor | None = None
        self.distance = math.nan  # of this step's input from the last one's
        self.last_output: Tensor | None = None
        self.changes: list[tuple[float, float]] = []  # of input and output, relative, where all steps run

    def holds(self, given: dict[str, Any]) -> bool:
        """Decide by how much the input is expected to change the output."""
        before = self.last_input if self.at.step else None
        self.last_input = self.modulated(given)
        self.distance = math.nan if before is None else change(self.last_input, before)
        if self.accumulator is None:
            return False
        if 0 < self.at.step < self.at.steps - 1:
            return self.accumulator.holds(self.distance)
        self.accumulator.change = 0.0  # the first step and the last always run
        return False

    def ran(self, output: Tensor) -> None:
        """Where all steps run, note the changes."""
        if self.accumulator is None:
            if not math.isnan(self.distance) and self.last_output is not None:
                self.changes.append((self.distance, change(output, self.last_output)))
            self.last_output = output

    def fitted(self) -> list[float]:
        """Fit the polynomial from the input's relative change to the output's, by least squares.

        Returns:
            Coefficients, highest power first, of degree DEGREE; lower where steps are few.
        """
        x, y = np.array(self.changes).T
        degree = min(DEGREE, len(x) - 1)
        return [float(c) for c in np.polyfit(x, y, degree)]


def change(now: Tensor, before: Tensor) -> float:
    """Mean absolute difference, relative to the mean absolute value before.

    Args:
        now: Any shape.
        before: The same shape.

    Returns:
        0 = equal; read from the device.
    """
    return float((now - before).abs().mean() / before.abs().mean())


def gap(pipeline: str, options: dict[str, Any]) -> str | None:
    """Why it does not run on a pipeline.

    Args:
        pipeline: The name of its class in diffusers.
        options: Not looked at.

    Returns:
        A clause for reports; None where it runs.
    """
    if pipeline in TRIED:
        return None
    return "what its first block modulates is known for those of DiT and Stable Diffusion 3 alone"


def _modulation(block: nn.Module) -> Callable[[dict[str, Any]], Tensor]:
    """What the first block modulates its input by, computed apart from it."""
    kind, norm = type(block).__name__, getattr(block, "norm1", None)
    if kind == "BasicTransformerBlock" and getattr(block, "norm_type", None) == "ada_norm_zero":
        return lambda given: norm(  # type: ignore[misc]
            given["hidden_states"],
            given["timestep"],
            given["class_labels"],
            hidden_dtype=given["hidden_states"].dtype,
        )[0]
    if kind == "JointTransformerBlock":
        return lambda given: norm(given["hidden_states"], emb=given["temb"])[0]  # type: ignore[misc]
    raise ValueError(
        f"teacache: blocks = {kind} is not allowed; allowed: those of DiT and Stable Diffusion 3"
    )


@contextmanager
def apply(pipe: Any, options: dict[str, Any]) -> Iterator[Arm]:
    """Hold by the coefficients given, or measure where none are; the arm then reports the fit.

    Args:
        pipe: A pipeline whose transformer has the blocks of a DiT or of Stable Diffusion 3.
        options: As `check` lets them through, and `coefficients` as `resolve` found them.

    Yields:
        The pipeline with the cache on.
    """
    given = {name: value for name, value in options.items() if name != COEFFICIENTS}
    values, coefficients = checked(given, KNOWN), options.get(COEFFICIENTS)
    accumulator = Accumulator(values["threshold"], coefficients) if coefficients else None
    with solver(pipe, given) as call, restored(pipe.transformer), progress(pipe) as at:
        cache = Cache(pipe.transformer, accumulator, at)
        yield Arm(call=call, calibrated=lambda: {COEFFICIENTS: cache.fitted()})


def space(baseline: Baseline) -> Space:
    """What is searched: the threshold, on each of the solvers.

    Args:
        baseline: The run that is to be made faster.

    Returns:
        One space's dimensions by name.
    """
    return {"solver": solvers(baseline), "threshold": Real(0.02, 0.6)}


METHOD = Method(
    check=check,
    apply=apply,
    resolve=by_one_generation,
    by_data=always,
    gap=gap,
    spaces=one_space("teacache", space),
)
