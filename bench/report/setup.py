"""What was run on what: the part of a title that all records share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench.methods.scheduler import OWN, SCHEDULERS
from bench.record import Record
from bench.report.escape import escape
from bench.report.text.provenance import flatten


def setup(records: Sequence[Record]) -> str:
    """Describe what was measured, as far as the records agree.

    Args:
        records: at least one.

    Returns:
        Model, solver, steps, guidance, batch, precision and device, escaped.
    """
    parts = [_model(records), *_solver(records), _device(records)]
    return ", ".join(part for part in parts[:-1] if part) + f" ({parts[-1]})"


def baseline_solver(record: Record) -> str | None:
    """Look up the solver of a configuration's baseline.

    Args:
        record: the record of one configuration.

    Returns:
        Its name in suites, or its class's where suites have none; None where the record has none.
    """
    given = record.config.get("scheduler") or record.environment.get("scheduler")
    names: dict[Any, str] = {kind: name for name, kind in SCHEDULERS.items()}
    return names.get(given, given)


def solver(record: Record) -> str | None:
    """Look up the solver that a configuration runs on.

    Args:
        record: the record of one configuration.

    Returns:
        Its own, else its baseline's; None where the record has none.
    """
    return option(record, "scheduler") or baseline_solver(record)


def converged_by(records: Sequence[Record]) -> str:
    """Report what solved the converged trajectory.

    Args:
        records: the suite's; older ones state how many times the baseline's steps its own solver took.

    Returns:
        Such as `by ddim at 500 steps`, several joined; empty where no record has a trajectory.
    """
    solved = [_converged_by(record) for record in records if record.quality and record.quality.n_converged]
    return " or ".join(dict.fromkeys(solved))


def _converged_by(record: Record) -> str:
    config = record.config.get("quality") or {}
    kind, steps = config.get("converged_solver", OWN), config.get("converged_steps")
    solver = baseline_solver(record) or "the baseline's solver" if kind == OWN else kind
    halved = ", the last halved down to timestep 0" if kind != OWN else ""
    return f"by {escape(solver)} at {steps or 'more'} steps{halved}"


def on_baseline_solver(record: Record) -> bool:
    """Whether a configuration runs on its baseline's solver.

    Args:
        record: the record of one configuration.

    Returns:
        True also where neither is known.
    """
    return solver(record) == baseline_solver(record)


def steps(record: Record) -> int | None:
    """Look up how many denoising steps a configuration takes.

    Args:
        record: the record of one configuration.

    Returns:
        Its own number, else its baseline's; None where the record has none.
    """
    return option(record, "steps") or record.config.get("num_inference_steps")


def option(record: Record, name: str) -> Any:
    """Look up one of the options that a suite gave the method.

    Args:
        record: the record of one configuration.
        name: the option's name.

    Returns:
        Its value; None where the suite gave none.
    """
    return (record.config.get("options") or {}).get(name)


def _shared(records: Sequence[Record], key: str) -> Any:
    """The value that all records' configurations have, else None."""
    values = [record.config[key] for record in records if key in record.config]
    return values[0] if values and all(value == values[0] for value in values) else None


def _model(records: Sequence[Record]) -> str:
    model = _shared(records, "model")
    shown = f"model {escape(model)}" if model else "several models"
    return f"{shown} with random weights" if _shared(records, "weights") == "random" else shown


def _solver(records: Sequence[Record]) -> list[str]:
    shapes = {
        "scheduler": "{}",
        "num_inference_steps": "{} steps",
        "guidance_scale": "guidance {:g}",
        "batch_size": "batch {}",
        "dtype": "{}",
    }
    known = {key: _shared(records, key) for key in shapes}
    known["scheduler"] = known["scheduler"] or _facts(records).get("scheduler")  # null: the model's
    return [escape(shapes[key].format(value)) for key, value in known.items() if value is not None]


def _device(records: Sequence[Record]) -> str:
    """The device's name, wherever a record's free environment has it."""
    flat = _facts(records)
    if flat.get("gpu.name"):
        return escape(flat["gpu.name"])
    cpu, cores = flat.get("cpu.model"), flat.get("cpu.cores")
    return f"{escape(cpu)}, {cores} cores" if cpu else "device not recorded"


def _facts(records: Sequence[Record]) -> dict[str, str]:
    return {k: v for record in records for k, v in flatten(record.environment).items()}
