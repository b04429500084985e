"""One run of a suite: what is to be measured, from where and for how long, and afterwards what was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from bench.errors import BadInput
from bench.pipeline import models
from bench.record import Record
from bench.run import preflight
from bench.run.estimate import estimate
from bench.run.local import Local
from bench.run.placement import Placement, Progress
from bench.run.runner import Runner
from bench.spec.run_spec import RunSpec, groups
from bench.spec.suite import Suite
from bench.store.places import check_local
from bench.store.records import Store

_NAMED = 12  # names that a line shows; more are counted


@dataclass(frozen=True, kw_only=True)
class SuiteRun:
    """The configurations of a suite, their store, and which of them are finished."""

    specs: Sequence[RunSpec]
    store: Store
    results: Path
    force: bool
    finished: frozenset[str]  # names of configurations that this machine measured before
    reported: Sequence[str]  # names of those whose records the report shows, others of the suite included
    placement: Placement  # where it runs

    @classmethod
    def of_suite(
        cls,
        suite: Suite,
        results: Path,
        only: str | None = None,
        force: bool = False,
        placement: Placement | None = None,
    ) -> Self:
        """Prepare the run of a suite, or of one of its configurations; see `of`.

        Args:
            suite: the suite; the weights of its model are looked for.
            results: the root directory of the records.
            only: the name of the one configuration to run; None: all.
            force: whether to measure finished ones again.
            placement: where it runs; None: on this machine.

        Returns:
            The run, nothing of it started.

        Raises:
            BadInput: the suite needs a CUDA device, its model cannot be used or lacks what is asked for, or
                as for `of`.
        """
        specs = suite.specs(only)
        placement = placement or Local()
        _check_device(suite, placement.device)
        weights = models.with_weights(suite.file)
        specs = [spec.model_copy(update={"weights": weights}) for spec in specs]
        preflight.check_suite(suite, specs[0])
        preflight.check_model(specs)
        return cls.of(specs, results, force, suite.names, placement)

    @classmethod
    def of(
        cls,
        specs: Sequence[RunSpec],
        results: Path,
        force: bool = False,
        reported: Sequence[str] | None = None,
        placement: Placement | None = None,
    ) -> Self:
        """Prepare the run of some configurations of one suite.

        Args:
            specs: the configurations, at least one.
            results: the root directory of the records.
            force: whether to measure finished ones again.
            reported: names whose records `run` returns; None: those of `specs`.
            placement: where it runs; None: on this machine.

        Returns:
            The run, nothing of it started.

        Raises:
            BadInput: `results` cannot be written, or holds published records.
        """
        check_local(results)
        placement = placement or Local()
        store = Store(results, specs[0].suite, placement.machine)
        store.prepare()
        runner = Runner(results=results, inputs=placement.inputs)
        finished = frozenset(spec.name for spec in specs if not force and runner.is_finished(spec))
        names = [spec.name for spec in specs] if reported is None else reported
        return cls(
            specs=specs,
            store=store,
            results=results,
            force=force,
            finished=finished,
            reported=names,
            placement=placement,
        )

    @property
    def opening(self) -> str:
        """What will be done: how much is there, how long it takes, and where the records go."""
        left = [spec for spec in self.specs if spec.name not in self.finished]
        time = estimate(left).text if left else "nothing to measure"
        n = len(self.specs)
        return (
            f"{n} configuration{'s' * (n != 1)}, {len(self.finished)} finished on this machine, {time}"
            f" (estimated), {self.store.directory}"
        )

    def run(self, keep_images: Path | None = None) -> list[Record]:
        """Measure what is not finished, with a progress bar.

        Args:
            keep_images: where images go, see `bench.run.image_files`; None: none are kept.

        Returns:
            The records of all that the report shows, those of earlier runs included.
        """
        with Progress(len(self.specs)) as progress:
            inputs = self.placement.inputs
            keep = keep_images and keep_images.resolve()  # workers may run elsewhere
            runner = Runner(
                results=self.results, force=self.force, report=progress.say, inputs=inputs, keep_images=keep
            )
            self.placement.run(list(groups(self.specs)), runner, progress)
        return self.store.records(list(self.reported))

    def closing(self, records: Sequence[Record]) -> str:
        """State which records were measured now and which before.

        Args:
            records: those that `run` returned.

        Returns:
            One line.
        """
        asked = {spec.name for spec in self.specs}
        now = [r.name for r in records if r.name in asked - self.finished]
        before = [record.name for record in records if record.name not in now]
        return f"measured now: {_listed(now)}; measured before: {_listed(before)}"


def _check_device(suite: Suite, device: str) -> None:
    """BadInput where the suite's own model is too large for where it runs."""
    if suite.file.device == "cuda" and device != "cuda" and not suite.overrides.get("model"):
        raise BadInput(
            f"run: {suite.name} needs a CUDA device: {suite.file.model} is too large for a CPU; allowed: a"
            " device that torch can use, or a small model of the kind (--model)"
        )


def _listed(names: Sequence[str]) -> str:
    if not names:
        return "none"
    return ", ".join(names) if len(names) <= _NAMED else f"{len(names)} configurations"
