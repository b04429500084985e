"""The rows of a study with what they depend on: one compressed CSV file and one of facts."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pandas as pd

from bench.machine import provenance
from bench.machine.files import write_atomic
from bench.pipeline import models
from bench.pipeline.session import Session
from bench.spec.run_spec import RunSpec, shown_model
from bench.studies.signals.measure import table


@dataclass(frozen=True)
class Study:
    """Rows as `measure.table` makes them, and the facts of how they came about."""

    rows: pd.DataFrame
    facts: dict[str, Any]

    @classmethod
    def measured(cls, model: str, pictures: int, steps: int, guidance: float, seed: int) -> Self:
        """Measure; BadInput where the model cannot be used."""
        models.check(models.directory(model))
        spec = RunSpec(
            suite="signals", name="signals", method="baseline", model=model, batch_size=1,
            num_inference_steps=steps, guidance_scale=guidance, seed=seed,
        )  # fmt: skip
        session = Session.open(spec)
        facts = provenance.provenance(seed) | {
            "model": shown_model(model),
            "fingerprint": models.fingerprint(spec),
            "scheduler": type(session.pipe.scheduler).__name__,
            "steps": steps,
            "guidance": guidance,
        }
        return cls(table(session, pictures), facts)

    def save(self, folder: Path) -> Path:
        """Write both files to `folder`; the path of the rows. BadInput where that fails."""
        text = self.rows.to_csv(index=False, float_format="%.6g")
        write_atomic(folder / "rows.csv.gz", gzip.compress(text.encode(), mtime=0))
        write_atomic(folder / "facts.json", json.dumps(self.facts, indent=1).encode())
        return folder / "rows.csv.gz"

    @classmethod
    def load(cls, folder: Path) -> Self:
        """What `save` wrote."""
        facts = json.loads((folder / "facts.json").read_text())
        return cls(pd.read_csv(folder / "rows.csv.gz"), facts)
