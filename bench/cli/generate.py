"""`python -m bench generate`: pictures with or without DQAR, a grid of them, and what was reused."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dqar
from bench.errors import BadInput
from bench.methods.dqar import shape_of
from bench.pipeline import models
from bench.pipeline.session import Session
from bench.spec.run_spec import RunSpec
from dqar.integration.summary import Summary
from dqar.utils.helpers import save_images


@dataclass(frozen=True)
class Made:
    """What a generation left: files, the grid, seconds, and the runtime's summary under DQAR."""

    files: list[Path]
    grid: Path
    seconds: float
    summary: Summary | None


def generate(spec: RunSpec, reuse: str | None, classes: list[str], out: Path) -> Made:
    """Make `spec.batch_size` pictures of `classes` in turn and write them to `out`.

    `reuse` is a preset of DQARConfig or the path of a YAML file, None for the untouched pipeline;
    classes are names or numbers, all of the model's where none is given. Raises BadInput where one of
    them is not known or `out` cannot be written.
    """
    session = Session.open(spec)
    session.pipe.set_progress_bar_config(disable=None)
    session.labels = _labels(session, classes) or session.labels
    if reuse is not None:
        dqar.enable(session.pipe, _config(session.pipe, reuse))
    made = session.baseline(range(spec.batch_size))
    try:
        files = save_images(made.images, out)
        (grid,) = save_images(made.images, out / "grid.png")
    except OSError as error:
        raise BadInput(f"--out: {out} cannot be written: {error.strerror}; needed: a folder") from error
    return Made(files, grid, made.seconds, dqar.summary(session.pipe) if reuse else None)


def _config(pipe: Any, reuse: str) -> dqar.DQARConfig:
    try:
        if reuse.endswith((".yaml", ".yml")):
            return dqar.DQARConfig.from_yaml(reuse)
        return dqar.DQARConfig.preset(reuse, **shape_of(pipe))
    except (ValueError, OSError) as error:
        raise BadInput(f"--dqar: {error}; or the path of a .yaml file") from error


def _labels(session: Session, classes: list[str]) -> list[int]:
    names = models.label_names(session.spec, session.pipe)
    numbers = {name: number for number, name in names.items()}
    count = len(set(numbers.values())) or session.pipe.transformer.config.num_embeds_ada_norm
    return [_number(name, numbers, count) for name in classes]


def _number(name: str, numbers: dict[str, int], count: int) -> int:
    if name in numbers:
        return numbers[name]
    if name.isdigit() and int(name) < count:
        return int(name)
    known = f", or {', '.join(numbers)}" if 0 < len(numbers) <= 40 else ""
    raise BadInput(f"--classes: {name!r} is not a class; allowed: 0 to {count - 1}{known}")
