"""Suites: a YAML file becomes a list of `RunSpec`, or one line that says what is wrong with it."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    model_validator,
)

from bench import methods
from bench.errors import BadInput, describe, one_line
from bench.record import Mean, Median, field_kinds

FILES = ("inception_weights", "reference", "lpips_weights")  # fields of Quality that are paths
SUITES_DIR = Path(__file__).parents[1] / "suites"
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._=+-]*$")]
File = Annotated[str, Field(min_length=1)]  # a path, relative to where the harness is started


def known_figure(path: str) -> str:
    """`path`; ValueError unless it is a field of a record that holds a number."""
    if not {int, float, Mean, Median} & set(field_kinds(path)):
        raise ValueError(f"{path!r} holds no number")
    return path


class Part(BaseModel):
    """A part of a suite: frozen, and closed to unknown fields.

    Defaults are validated too, so that 60 and 60.0 are one value to the content key.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class Timing(Part):
    """How long a configuration is timed, and when its speedup counts as one."""

    min_pairs: int = Field(default=5, ge=2)
    max_pairs: int = Field(default=100, ge=2)
    target_halfwidth: float = Field(default=0.02, gt=0, lt=1)  # of the interval, relative
    budget_s: float = Field(default=60, gt=0)  # for pairs beyond those that must be
    warmup: int = Field(default=1, ge=0)  # generations of each arm
    together: int = Field(default=1, ge=1)  # configurations that share a process and each round's baseline
    verdict_threshold: float = Field(default=0.02, gt=0, lt=1)

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        if self.max_pairs < self.min_pairs:
            raise ValueError(f"max_pairs {self.max_pairs} is below min_pairs {self.min_pairs}")
        return self


class Quality(Part):
    """Which pictures are compared, and with what."""

    n: int = Field(default=64, ge=0)  # pictures; 0 = time and memory only
    converged_n: int = Field(default=16, ge=0)
    converged_factor: int = Field(default=10, ge=2)  # times the steps
    extractor: Literal["embedded"] | None = "embedded"
    worst: int = Field(default=8, ge=1)
    # Files that do not ship with the harness, see `bench.spec.external_files`; null: what needs them is null.
    inception_weights: File | None = None  # torch-fidelity's: in place of `extractor`, makes FD FID
    reference: File | None = None  # a folder of pictures, or an .npz as ADM has them
    lpips_weights: File | None = None  # a folder with torch-fidelity's; null: torch hub's cache

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        if self.converged_n > self.n:
            raise ValueError(f"converged_n {self.converged_n} is above n {self.n}")
        return self

    def files(self) -> dict[str, Path]:
        """The fields that name files, as given: those that are not null."""
        named = {field: getattr(self, field) for field in FILES}
        return {field: Path(path) for field, path in named.items() if path is not None}

    def public(self) -> dict[str, Any]:
        """As it stands in a record: of each path the last part."""
        return self.model_dump() | {field: path.resolve().name for field, path in self.files().items()}


class Settings(Part):
    """What all runs of a suite share."""

    model: str = Field(min_length=1)  # "embedded", a directory, or a hub id
    random: bool = False  # fall back on random weights (time and memory only)
    dtype: Literal["fp32", "bf16", "fp16"] = "fp32"
    scheduler: Literal["ddim", "dpm_solver++", "unipc"] | None = None  # None = the model's own
    timestep_spacing: Literal["leading", "trailing", "linspace"] | None = None  # None = the model's own
    num_inference_steps: int = Field(default=50, ge=1, le=1000)
    guidance_scale: float = Field(default=4.0, ge=0)
    batch_size: int = Field(default=16, ge=1)
    labels: Literal["cycle"] | list[Annotated[int, Field(ge=0, lt=1000)]] = "cycle"
    seed: int = Field(default=0, ge=0)  # picture i has seed + i
    timing: Timing = Timing()
    quality: Quality = Quality()
    memory: bool = True
    compile: bool = False  # both arms under torch.compile(fullgraph=True)
    cuda_graphs: bool = False  # and replayed as CUDA graphs (mode="reduce-overhead")
    timeout_s: float = Field(default=600, gt=0)

    @model_validator(mode="after")
    def _graphs(self) -> Self:
        if self.cuda_graphs and not self.compile:
            raise ValueError("cuda_graphs needs compile: true")
        return self


class Run(Part):
    """One entry of `runs`; a grid makes one configuration of each combination of its values, and
    `settings` are those of the suite that differ for them."""

    name: Name
    method: str
    options: dict[str, Any] = {}
    grid: dict[str, Annotated[list[Any], Field(min_length=1)]] = {}
    settings: dict[str, Any] = {}

    def expand(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """The names and options of the configurations."""
        for values in itertools.product(*self.grid.values()):
            chosen = dict(zip(self.grid, values, strict=True))
            suffix = "".join(f"-{key}={value}" for key, value in chosen.items())
            yield self.name + re.sub(r"[^A-Za-z0-9._=+-]", "_", suffix), self.options | chosen


Figure = Annotated[str, AfterValidator(known_figure)]  # a dotted field of a record


class Goal(Part):
    """What the report is to judge: a figure of a run, or its ratio to a figure `of` the same run, or to the
    run `over` which it counts."""

    says: str  # what is wanted, in words
    run: Name
    figure: Figure
    of: Figure | None = None  # None = `figure`, where `over` is given
    over: Name | None = None  # None = `run`, where `of` is given
    at_least: float | None = None
    at_most: float | None = None

    @model_validator(mode="after")
    def _bound(self) -> Self:
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError("one of at_least and at_most must be given")
        return self


class Suite(Settings):
    """A suite file."""

    title: str
    report: Literal["suite", "machine"] = "suite"  # what the report's folder is named after
    goals: list[Goal] = []
    runs: list[Run] = Field(min_length=1)


def finite(value: Any) -> Any:
    """`value` as strict JSON has it: infinities, which it lacks, become words."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def infinite(value: Any) -> Any:
    """What `finite` made words of, as numbers again."""
    if isinstance(value, dict):
        return {key: infinite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [infinite(item) for item in value]
    return float(value) if value in ("inf", "-inf", "nan") else value


# Sent to a worker as JSON, an option must come out as it went in.
Options = Annotated[dict[str, Any], BeforeValidator(infinite), PlainSerializer(finite, when_used="json")]


class RunSpec(Settings):
    """One configuration, with all that decides its figures."""

    suite: Name
    name: Name
    method: str
    options: Options = {}
    weights: Literal["trained", "random"] = "trained"

    @property
    def measures_quality(self) -> bool:
        """Whether pictures are compared: not where random weights would make that meaningless."""
        return self.quality.n > 0 and self.weights == "trained"

    def settings(self) -> dict[str, Any]:
        """What it shares with configurations that can be measured together."""
        return self.model_dump(exclude={"name", "method", "options"})

    def public(self) -> dict[str, Any]:
        """As it stands in a record: the last part of each path, never a path."""
        shown = {"model": shown_model(self.model), "quality": self.quality.public()}
        plain: dict[str, Any] = finite(self.model_dump() | shown)
        return plain


def shown_model(model: str) -> str:
    """`model` without the path of this machine."""
    return Path(model).name if Path(model).is_dir() else model


def available() -> dict[str, Path]:
    """The suites that come with the harness, by name."""
    return {path.stem: path for path in sorted(SUITES_DIR.glob("*.yaml"))}


def find(name: str) -> Path:
    """The file of a suite: a name that `list` shows, or a path ending in .yaml."""
    path = Path(name) if name.endswith((".yaml", ".yml")) else available().get(name)
    if path is None or not path.is_file():
        raise BadInput(
            f"suite {name!r}: no such suite; allowed: {', '.join(['auto', *available()])},"
            " or the path of a .yaml file"
        )
    return path


def load(path: Path, **overrides: Any) -> Suite:
    """Read a suite file; BadInput names the file, the field, the value and what is allowed.

    `overrides` stand in place of what the file says, those of a part (a mapping) field by field.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadInput(f"{path.name}: not readable as YAML: {one_line(error)}") from error
    if not isinstance(content, dict):
        raise BadInput(f"{path.name}: a mapping is needed, found {type(content).__name__}")
    try:
        return Suite(**_overridden(content, overrides))
    except ValidationError as error:
        raise BadInput(f"{path.name}: {describe(error, Suite)}") from error


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


def specs(path: Path, suite: Suite, only: str | None = None) -> list[RunSpec]:
    """The configurations of a suite in order, checked; `only` keeps one name."""
    kept = _keep(expanded(path, suite), only, path)
    for spec in kept:
        methods.check(spec.method, spec.options, where=f"{path.name}: runs: {spec.name}")
    return kept


def expanded(path: Path, suite: Suite) -> list[RunSpec]:
    """The configurations of a suite, their methods' options not yet checked (which takes torch)."""
    found = [
        RunSpec(**settings, suite=path.stem, name=name, method=run.method, options=options)
        for run in suite.runs
        for settings in [_settings(path, suite, run)]
        for name, options in run.expand()
    ]
    names = [spec.name for spec in found]
    _check_names(path, names)
    _check_goals(path, suite.goals, names)
    return found


def groups(chosen: Sequence[RunSpec]) -> Iterator[list[RunSpec]]:
    """The configurations in order, in groups that are measured together: at most `timing.together` in a row
    whose settings are the same. Compiled ones stand alone: each has graphs of its own of one transformer,
    and torch keeps but a few."""
    for _, same in itertools.groupby(chosen, RunSpec.settings):
        members = list(same)
        size = 1 if members[0].compile else members[0].timing.together
        yield from (members[i : i + size] for i in range(0, len(members), size))


def _settings(path: Path, suite: Suite, run: Run) -> dict[str, Any]:
    """The suite's settings with the run's own in their place."""
    shared = suite.model_dump(exclude={"title", "report", "goals", "runs"})
    parts = {key: shared[key] | value for key, value in run.settings.items() if isinstance(value, dict)}
    try:
        return Settings(**shared | run.settings | parts).model_dump()
    except ValidationError as error:
        raise BadInput(f"{path.name}: runs: {run.name}: settings: {describe(error, Settings)}") from error


def _check_names(path: Path, names: list[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise BadInput(f"{path.name}: runs: name: {twice[0]!r} stands twice; names must differ")


def _check_goals(path: Path, goals: Sequence[Goal], names: list[str]) -> None:
    for number, goal in enumerate(goals):
        for field, name in {"run": goal.run, "over": goal.over}.items():
            if name is not None and name not in names:
                allowed = ", ".join(names)
                raise BadInput(
                    f"{path.name}: goals.{number}.{field}: {name!r} is not a run; allowed: {allowed}"
                )


def _keep(found: list[RunSpec], only: str | None, path: Path) -> list[RunSpec]:
    kept = [spec for spec in found if only in (None, spec.name)]
    if not kept:
        names = ", ".join(spec.name for spec in found)
        raise BadInput(f"{path.name}: --only: {only!r} is not a run; allowed: {names}")
    return kept
