"""Suites: a YAML file, read and expanded once into a list of `RunSpec`, or one line that states why not."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from pydantic import ValidationError

from bench import methods
from bench.errors import BadInput, describe, listed, without_path
from bench.machine.scrub import refused_name
from bench.spec.run_spec import RunSpec
from bench.spec.settings import QualitySettings, Settings
from bench.spec.suite_file import Goal, Run, SuiteFile
from dqar.errors import InvalidFile
from dqar.utils.foreign import read_yaml

SUITES_DIR = Path(__file__).parents[1] / "suites"
MOST = 2000  # configurations of a suite: of a minute each they take a day and a half
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=+-]{0,127}")


@dataclass(frozen=True)
class Suite:
    """A suite: its name, the content of its file under `overrides`, and its configurations."""

    name: str
    source: str  # the file's name, which opens every message about it
    content: dict[str, Any]  # as the file has it
    overrides: dict[str, Any]

    @classmethod
    def load(cls, name: str | Path, **overrides: Any) -> Self:
        """Read a suite.

        Args:
            name: a name that `available` has, or the path of a .yaml file.
            overrides: fields in place of the file's; those of a part (a mapping) field by field; None
                leaves the file's value.

        Returns:
            The suite, its configurations expanded and their names checked; methods' options are not checked
            yet.

        Raises:
            BadInput: naming the file, the field, the value and what is allowed.
        """
        path = path_of(str(name))
        if not _NAME.fullmatch(path.stem):
            raise BadInput(
                f"suite {path.name[:80]!r}: the name is not allowed; allowed: at most 128 letters, digits and"
                " ._=+-, the first a letter or digit"
            )
        suite = cls(path.stem, path.name, _read(path), overrides)
        _ = suite.configurations  # whatever is wrong is reported here
        return suite

    @cached_property
    def file(self) -> SuiteFile:
        """The file's content, validated, under the overrides."""
        try:
            return SuiteFile(**_fewer_converged(_overridden(self.content, self.overrides), self.overrides))
        except ValidationError as error:
            raise BadInput(f"{self.source}: {describe(error, SuiteFile)}") from error

    @cached_property
    def configurations(self) -> tuple[RunSpec, ...]:
        """All configurations in order; their methods' options are not yet checked, which takes torch."""
        count = sum(run.count for run in self.file.runs)
        if count > MOST:
            raise BadInput(f"{self.source}: runs: {count} configurations are not allowed; allowed: {MOST}")
        specs = tuple(spec for run in self.file.runs for spec in self._expanded(run))
        names = [spec.name for spec in specs]
        self._check_names(names)
        self._check_goals(names)
        return specs

    @property
    def names(self) -> list[str]:
        """The names of the configurations, in order."""
        return [spec.name for spec in self.configurations]

    @property
    def title(self) -> str:
        """What the suite asks."""
        return self.file.title

    @property
    def goals(self) -> Sequence[Goal]:
        """The goals that its report judges."""
        return self.file.goals

    @property
    def command(self) -> str | None:
        """The command that runs this suite, where it is another one than `run`."""
        return self.file.command

    @property
    def without_overrides(self) -> Suite:
        """The suite as its file has it."""
        return replace(self, overrides={}) if self.overrides else self

    def specs(self, only: str | None = None) -> list[RunSpec]:
        """The configurations in order, their methods' options checked.

        Args:
            only: The name of the one that is wanted; None = all.

        Returns:
            One configuration or more.

        Raises:
            BadInput: naming the run and what is wrong with it.
        """
        kept = [spec for spec in self.configurations if only in (None, spec.name)]
        if not kept:
            allowed = listed(self.names)
            raise BadInput(f"{self.source}: --only: {only!r} is not a run; allowed: {allowed}")
        for spec in kept:
            methods.check(spec.method, spec.options, where=f"{self.source}: runs: {spec.name}")
        return kept

    def report_dir(self, root: Path, machine: str) -> Path:
        """The directory of the suite's report.

        Args:
            root: The directory of all reports.
            machine: The slug of the machine measured, see `provenance.machine`.

        Returns:
            Below `root`, named after the suite, or after the machine where the suite asks for that.
        """
        return root / (machine if self.file.report == "machine" else self.name)

    def _expanded(self, run: Run) -> Iterator[RunSpec]:
        settings = self._settings(run)
        try:
            for name, options in run.expand():
                yield RunSpec(**settings, suite=self.name, name=name, method=run.method, options=options)
        except ValidationError as error:
            raise BadInput(f"{self.source}: runs: {run.name[:80]}: {describe(error, RunSpec)}") from error

    def _settings(self, run: Run) -> dict[str, Any]:
        """The suite's settings with the run's own in their place."""
        shared = self.file.settings()
        parts = {key: shared[key] | value for key, value in run.settings.items() if isinstance(value, dict)}
        try:
            return Settings(**shared | run.settings | parts).model_dump()
        except ValidationError as error:
            why = describe(error, Settings)
            raise BadInput(f"{self.source}: runs: {run.name}: settings: {why}") from error

    def _check_names(self, names: Sequence[str]) -> None:
        for name in (self.name, *names):
            if why := refused_name(name):
                raise BadInput(f"{self.source}: name: {why}")
        seen: set[str] = set()
        for name in names:
            if name in seen:
                raise BadInput(f"{self.source}: runs: name: {name!r} stands twice; names must differ")
            seen.add(name)

    def _check_goals(self, names: Sequence[str]) -> None:
        known = set(names)
        for number, goal in enumerate(self.file.goals):
            for field, name in {"run": goal.run, "over": goal.over}.items():
                if name is not None and name not in known:
                    allowed = listed(names)
                    raise BadInput(
                        f"{self.source}: goals.{number}.{field}: {name!r} is not a run; allowed: {allowed}"
                    )


def available() -> dict[str, Path]:
    """The suites that come with the harness.

    Returns:
        Their files by name, sorted.
    """
    return {path.stem: path for path in sorted(SUITES_DIR.glob("*.yaml"))}


def path_of(name: str) -> Path:
    """The file of a suite.

    Args:
        name: A name that `available` has, or a path ending in .yaml or .yml.

    Returns:
        A file that exists.

    Raises:
        BadInput: where there is no such file.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else available().get(name)
    if path is None or not path.exists():
        raise BadInput(
            f"suite {name[:200]!r}: no such suite; allowed: {', '.join(['auto', *available()])},"
            " or the path of a .yaml file"
        )
    return path


def _read(path: Path) -> dict[str, Any]:
    try:
        content = read_yaml(path, "suite", infinite=True)  # options may be infinite; settings may not
    except InvalidFile as error:
        raise BadInput(f"{path.name}: not readable as YAML: {without_path(error, path)}") from error
    if not isinstance(content, dict):
        raise BadInput(f"{path.name}: a mapping is needed, found {type(content).__name__}")
    return content


def _overridden(content: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    merged = dict(content)
    for key, value in overrides.items():
        if isinstance(value, dict):
            part = content.get(key, {})
            # A part that is no mapping stays as it is, for the validation to name.
            merged[key] = _overridden(part, value) if isinstance(part, dict) else part
        elif value is not None:
            merged[key] = value
    return merged


def _fewer_converged(content: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    """The content, no more images of it converged than the overrides leave in all."""
    images = (overrides.get("quality") or {}).get("n")
    quality = content.get("quality")
    if images is None or not isinstance(quality, dict):
        return content
    converged = quality.get("converged_n", QualitySettings.model_fields["converged_n"].default)
    # What is no number stays as it is, for the validation to name.
    fewer = {"converged_n": images} if isinstance(converged, int) and converged > images else {}
    return content | {"quality": quality | fewer}
