"""The trials of the methods' searches with what they were judged on: a packed CSV file and one of facts."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pandas as pd

from bench.machine.files import compressed, decompressed, write_atomic
from dqar.errors import InvalidFile
from dqar.utils.foreign import read_bytes, read_json

TRIALS = "trials.csv.xz"
MAX_BYTES = 2**26  # of the trials, unpacked


@dataclass(frozen=True)
class StoredTrials:
    """A table of trials and the facts of how they came about."""

    rows: pd.DataFrame
    facts: dict[str, Any]

    def save(self, directory: Path) -> Path:
        """Write both files.

        Args:
            directory: Made where it is missing.

        Returns:
            The path of the trials.
        """
        text = self.rows.to_csv(index=False, float_format="%.6g", lineterminator="\n")
        write_atomic(directory / TRIALS, compressed(text))
        write_atomic(directory / "facts.json", (json.dumps(self.facts, indent=1) + "\n").encode())
        return directory / TRIALS

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read what `save` wrote.

        Args:
            directory: Where both files are.

        Returns:
            The table and the facts.

        Raises:
            InvalidFile: Another file, or one that unpacks to more than MAX_BYTES.
        """
        try:
            rows = pd.read_csv(io.BytesIO(decompressed(read_bytes(directory / TRIALS, "trials"), MAX_BYTES)))
        except ValueError as error:  # pandas' errors are ValueErrors
            raise InvalidFile(f"trials = {TRIALS}: {' '.join(str(error).split())[:200]}") from error
        return cls(rows, read_json(directory / "facts.json", "facts"))
