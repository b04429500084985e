"""The rows of a study with what they depend on: a compressed CSV file, a line a column, and one of facts."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pandas as pd

from bench.machine import provenance
from bench.machine.files import compressed, decompressed, write_atomic
from bench.pipeline import models
from bench.pipeline.session import Session
from bench.spec.prompts import Prompts
from bench.spec.run_spec import RunSpec, shown_model
from bench.studies.signals.measure import prompt_tokens, table
from dqar.errors import InvalidFile, short_repr
from dqar.utils.foreign import read_bytes, read_json

ROWS = "columns.csv.xz"
MAX_BYTES = 2**28  # of the rows, unpacked: the published study has 2 MB


@dataclass(frozen=True)
class Study:
    """Rows as `measure.table` makes them, and the facts of how they came about."""

    rows: pd.DataFrame
    facts: dict[str, Any]

    @classmethod
    def measured(
        cls,
        model: str,
        images: int,
        steps: int,
        guidance: float,
        seed: int,
        prompts: Prompts | None = None,
        rows: Callable[[Session, int], pd.DataFrame] = table,
    ) -> Self:
        """Measure a session of a model.

        Args:
            model: embedded, embedded-t2i, a directory or a hub id.
            images: number of images.
            steps: number of denoising steps.
            guidance: weight of classifier-free guidance.
            seed: random seed of image 0; image i takes seed + i.
            prompts: prompts of the images; None: the model takes class labels.
            rows: measures so many images of a session.

        Returns:
            The rows and the facts.

        Raises:
            BadInput: the model cannot be used so.
        """
        spec = RunSpec(
            suite="signals", name="signals", method="baseline", model=model, batch_size=1,
            num_inference_steps=steps, guidance_scale=guidance, seed=seed, prompts=prompts,
        )  # fmt: skip
        models.check_settings(spec)
        session = Session.open(spec)
        facts = provenance.provenance(seed) | {
            "model": shown_model(model),
            "fingerprint": models.fingerprint(spec),
            "scheduler": type(session.pipe.scheduler).__name__,
            "steps": steps,
            "guidance": guidance,
        }
        if prompts is not None:
            facts |= {"prompts": prompts.public(), "tokens": prompt_tokens(session)}
        return cls(rows(session, images), facts)

    def save(self, directory: Path) -> Path:
        """Write the rows and the facts.

        Args:
            directory: both files go to it.

        Returns:
            The file of the rows.

        Raises:
            BadInput: they cannot be written.
        """
        write_atomic(directory / ROWS, packed(self.rows))
        write_atomic(directory / "facts.json", json.dumps(self.facts, indent=1).encode())
        return directory / ROWS

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read what `save` wrote.

        Args:
            directory: the one written to.

        Returns:
            The study.

        Raises:
            InvalidFile: another file, or one that unpacks to more than `MAX_BYTES`.
        """
        facts = read_json(directory / "facts.json", "facts")
        return cls(_rows(directory / ROWS), facts)


def packed(rows: pd.DataFrame) -> bytes:
    """Pack rows as CSV with a line a column, a third smaller than a line a row.

    Args:
        rows: any table; floats keep six digits.

    Returns:
        The compressed file.
    """
    text = rows.to_csv(index=False, float_format="%.6g", lineterminator="\n")
    return turned(text.splitlines())


def turned(lines: Sequence[str]) -> bytes:
    """Pack the lines of a CSV file with its columns as lines.

    Args:
        lines: of as many fields each, without quotes.

    Returns:
        The compressed file.
    """
    columns = zip(*(line.split(",") for line in lines), strict=True)
    return compressed("".join(",".join(column) + "\n" for column in columns))


def _rows(path: Path) -> pd.DataFrame:
    content = read_bytes(path, "rows")
    try:
        columns = [line.split(",") for line in decompressed(content, MAX_BYTES).decode().splitlines()]
        text = "\n".join(",".join(row) for row in zip(*columns, strict=True))
        rows: pd.DataFrame = pd.read_csv(io.StringIO(text))
        return rows
    except ValueError as error:  # pandas' and Unicode's errors are ValueErrors
        raise InvalidFile(f"rows = {short_repr(str(path))}: {' '.join(str(error).split())[:200]}") from error
