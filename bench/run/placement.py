"""Where a suite runs: the one interface that `bench.run.local` and `bench.run.ray` fill.

What is to be done is decided elsewhere (`bench.run.suite_run`, `bench.run.runner`); a placement gets it done.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from tqdm import tqdm

from bench.run.runner import Runner
from bench.spec.run_spec import RunSpec

Item = TypeVar("Item")
Result = TypeVar("Result")
TRIAL_S = 3600.0  # that a trial of a search may take


class Progress:
    """One bar for a suite: the rate, the time left, workers and failures.

    Args:
        total: number of units that are known to be done.
        unit: what one is called.
    """

    def __init__(self, total: int, unit: str = "run") -> None:
        self.bar = tqdm(total=total, unit=unit, disable=None, file=sys.stderr)
        self.failures = 0

    def say(self, text: str) -> None:
        """Show what runs.

        Args:
            text: one line.
        """
        self.bar.set_description_str(text)

    def expect(self, more: int) -> None:
        """Note that more is to be done than was known.

        Args:
            more: number of further units.
        """
        self.bar.total += more
        self.bar.refresh()

    def advance(self, done: int, workers: int | None = None, failed: int = 0) -> None:
        """Note that units are done.

        Args:
            done: how many.
            workers: number of workers that are at it; None: not shown.
            failed: number of configurations that have failed since.
        """
        self.failures += failed
        shown = {} if workers is None else {"workers": workers, "failed": self.failures}
        self.bar.set_postfix(shown, refresh=False)
        self.bar.update(done)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.close()


class Placement(Protocol):
    """What runs groups of configurations, and trials of a search."""

    @property
    def machine(self) -> str:
        """The machine, or the kind of device, that all records of a run are of."""

    @property
    def device(self) -> str:
        """Where models run, "cuda" or "cpu"."""

    def inputs(self, spec: RunSpec, results: Path) -> dict[str, Any]:
        """Collect what a record depends on besides its configuration.

        Args:
            spec: the configuration.
            results: the root directory of the records.

        Returns:
            Digests and versions by name, see `bench.store.keys.inputs`.
        """

    def run(self, groups: Sequence[Sequence[RunSpec]], runner: Runner, progress: Progress) -> None:
        """Leave a record of each configuration in the runner's store.

        Args:
            groups: configurations that share a process, by group.
            runner: knows the store, and runs what is run here.
            progress: counts what is done.
        """

    def map(
        self,
        make: Callable[[], Callable[[Item], Result]],
        items: Iterable[Item],
        limit_s: float | None = TRIAL_S,
    ) -> list[Result]:
        """Evaluate items.

        Args:
            make: called once a worker, whose evaluation is kept; equal pickles are one.
            items: what is evaluated; they and the results can be pickled.
            limit_s: seconds after which one counts as hung, on a cluster; None: never.

        Returns:
            What the evaluation that `make` returns gives for each item, in the items' order.
        """
