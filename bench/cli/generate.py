"""`python -m bench generate`: images with or without DQAR, a grid of them, and what was reused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dqar
from bench.errors import BadInput, one_line
from bench.pipeline.facts import ModelFacts
from bench.spec.run_spec import RunSpec

if TYPE_CHECKING:  # torch, which what only refuses its input need not load
    from dqar.integration.summary import Summary


@dataclass(frozen=True)
class Generated:
    """What a generation left: files, the grid, seconds, and the runtime's summary under DQAR."""

    files: list[Path]
    grid: Path
    seconds: float
    summary: Summary | None


def generate(spec: RunSpec, reuse: str | None, labels: Sequence[int], out: Path) -> Generated:
    """Make images and write them to a directory.

    Args:
        spec: The model, how it samples, and `batch_size` images.
        reuse: A preset of DQARConfig or the path of a YAML file; None: the untouched pipeline.
        labels: Classes that the images cycle through; none: all of the model's.
        out: The directory.

    Returns:
        The files, the seconds of the generation, and the runtime's summary under DQAR.

    Raises:
        BadInput: The configuration does not fit the model, or `out` cannot be written.
    """
    from bench.methods.dqar import shape_of
    from bench.pipeline.session import Session
    from dqar.utils.helpers import save_images

    session = Session.open(spec)
    session.pipe.set_progress_bar_config(disable=None)
    session.labels = list(labels) or session.labels
    if reuse is not None:
        dqar.enable(session.pipe, config(reuse, **shape_of(session.pipe)))
    result = session.baseline(range(spec.batch_size))
    try:
        files = save_images(result.images, out)
        (grid,) = save_images(result.images, out / "grid.png")
    except OSError as error:
        raise BadInput(f"--out: {out} cannot be written: {error.strerror}; needed: a directory") from error
    return Generated(files, grid, result.seconds, dqar.summary(session.pipe) if reuse else None)


def config(reuse: str, **shape: Any) -> dqar.DQARConfig:
    """Read the configuration that `--dqar` names.

    Args:
        reuse: a preset of DQARConfig, or the path of a .yaml file.
        **shape: numbers of the model's layers, heads and the like, which presets scale with.

    Returns:
        The configuration.

    Raises:
        BadInput: there is none of that name, or the file is no configuration.
    """
    try:
        if reuse.endswith((".yaml", ".yml")):
            return dqar.DQARConfig.from_yaml(reuse)
        return dqar.DQARConfig.preset(reuse, **shape)
    except (ValueError, OSError) as error:
        raise BadInput(f"--dqar: {one_line(error)}; or the path of a .yaml file") from error


def labels_of(classes: str, model: ModelFacts) -> list[int]:
    """Parse `--classes`.

    Args:
        classes: names or numbers of classes, with commas between; empty: none.
        model: knows its classes by name and number.

    Returns:
        The labels in order.

    Raises:
        BadInput: one is no class of the model; naming it and what is allowed.
    """
    names = [name.strip() for name in classes.split(",") if name.strip()]
    return [_label(name, model) for name in names]


def _label(name: str, model: ModelFacts) -> int:
    if name in model.class_names:
        return model.class_names[name]
    count = model.classes or 0
    if name.isascii() and name.isdigit() and len(name) < 10 and int(name) < count:
        return int(name)
    known = model.class_names
    listed = f", or {', '.join(known)}" if 0 < len(known) <= 40 else ""
    raise BadInput(f"--classes: {name[:80]!r} is not a class; allowed: 0 to {count - 1}{listed}")
