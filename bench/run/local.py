"""Runs a suite on this machine: one group of configurations after another, in processes of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from bench.machine import provenance
from bench.machine.device import device_type
from bench.machine.files import write_errors_named
from bench.run import image_files
from bench.run.placement import TRIAL_S, Item, Progress, Result
from bench.run.runner import Runner
from bench.spec.run_spec import RunSpec
from bench.store import keys


class Local:
    """The placement on this machine."""

    @property
    def machine(self) -> str:
        """This machine."""
        return provenance.machine()

    @property
    def device(self) -> str:
        """Where torch runs here."""
        return device_type()

    def inputs(self, spec: RunSpec, results: Path) -> dict[str, Any]:
        """Collect what a record made here depends on.

        Args:
            spec: the configuration.
            results: the root directory of the records.

        Returns:
            Digests and versions by name, see `bench.store.keys.inputs`.
        """
        return keys.inputs(spec, results)

    def run(self, groups: Sequence[Sequence[RunSpec]], runner: Runner, progress: Progress) -> None:
        """Run one group after another: this machine's device is theirs alone.

        Args:
            groups: configurations that share a process, by group.
            runner: runs them.
            progress: counts each group that is done.
        """
        if runner.keep_images:  # refused before anything is measured
            with write_errors_named(runner.keep_images / "image"):
                runner.keep_images.mkdir(parents=True, exist_ok=True)
        for group in groups:
            runner.run(*group)
            if runner.keep_images:
                for spec in group:
                    image_files.write_made(runner.keep_images, runner.job(spec))
            progress.advance(len(group))

    def map(
        self,
        make: Callable[[], Callable[[Item], Result]],
        items: Iterable[Item],
        limit_s: float | None = TRIAL_S,
    ) -> list[Result]:
        """Evaluate items in this process.

        Args:
            make: returns the evaluation; it is called once.
            items: what is evaluated.
            limit_s: has no effect here.

        Returns:
            What the evaluation returns for each, in order.
        """
        evaluate = make()
        return [evaluate(item) for item in items]
