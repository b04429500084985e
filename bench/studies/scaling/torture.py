"""What a tortured cluster came to: how often what was killed, and whether the records were those of an
undisturbed run. `make torture-cluster` writes it, and the study's page shows it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.machine.files import write_atomic
from dqar.utils.foreign import read_json

FILE = "torture.json"  # next to what the study measured


@dataclass(frozen=True)
class Fault:
    """One kind of fault, in runs of one suite."""

    what: str
    times: int  # 0 where a run failed before all were
    same: bool  # whether the runs ended, with the records of an undisturbed one
    seconds: float


@dataclass(frozen=True)
class Torture:
    """Faults in runs of a suite of so many configurations and images of each."""

    configurations: int
    images: int
    faults: Sequence[Fault]

    @property
    def same(self) -> int:
        """Kinds of faults that left the records as they are undisturbed."""
        return sum(fault.same for fault in self.faults)


def keep(torture: Torture, machine: str, results: Path) -> Path:
    """Write an outcome, in the place of an earlier one.

    Args:
        torture: the outcome.
        machine: the machine that was tortured.
        results: the root directory of the results.

    Returns:
        The file.

    Raises:
        BadInput: it cannot be written.
    """
    file = results / "scaling" / machine / FILE
    write_atomic(file, (json.dumps(asdict(torture)) + "\n").encode())
    return file


def read(directory: Path) -> Torture | None:
    """Read the outcome of a machine.

    Args:
        directory: the machine's, of the study.

    Returns:
        The outcome; None where there is none.

    Raises:
        InvalidFile: the file is damaged.
    """
    if not (directory / FILE).exists():
        return None
    content = read_json(directory / FILE, "torture")
    return Torture(**content | {"faults": [Fault(**fault) for fault in content["faults"]]})
