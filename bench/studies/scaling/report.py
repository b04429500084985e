"""The page of the scaling study: what was measured, what follows from it on paper, and where it ends."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.machine.files import write_atomic
from bench.report.page import render, write_csv
from bench.studies.scaling import torture
from bench.studies.scaling.measure import Empty, Rate
from bench.studies.scaling.plan import CONFIGURATIONS, GPUS, Costs, Plan, simulate
from dqar.utils.foreign import read_json

FILE = "measured.json"
MODERN_S = 0.1  # an image on one of today's GPUs
START_S = 60.0  # of a worker: its process, and a model of some GB from the node's disk


def keep(machine: str, empty: Empty, rates: Sequence[Rate], results: Path) -> Path:
    """Write what was measured.

    Args:
        machine: the machine that it was measured on.
        empty: the cost of tasks of nothing.
        rates: how fast workers are, by their number.
        results: the root directory of the results.

    Returns:
        The directory written to.
    """
    content = {"machine": machine, "empty": asdict(empty), "rates": [asdict(rate) for rate in rates]}
    directory = results / "scaling" / machine
    write_atomic(directory / FILE, (json.dumps(content) + "\n").encode())
    return directory


def write_report(measured: Path, out: Path) -> Path:
    """Write the study's page and the plan's table.

    Args:
        measured: the directory that `keep` wrote.
        out: the page's directory.

    Returns:
        The page, README.md.
    """
    measurement = read_json(measured / FILE, "measurement")
    empty = Empty(**measurement["empty"] | {"grown": tuple(measurement["empty"]["grown"])})
    rates = [Rate(**rate) for rate in measurement["rates"]]
    # A task brings a shard of each configuration and the baseline's: each counts as an empty task did.
    costs = Costs(task=empty.each * (CONFIGURATIONS + 1), start=START_S)
    plans = {"original": Plan(costs), "modern": Plan(costs, image_s=MODERN_S)}
    rows = [_row(name, plan, gpus) for name, plan in plans.items() for gpus in GPUS]
    write_csv(out / "plan.csv", rows)
    headline = _headline(rows, empty)
    content = {
        "machine": measurement["machine"], "empty": empty, "rates": rates, "rows": rows, "plans": plans,
        "speedup": rates[-1].images_a_second / rates[0].images_a_second if len(rates) > 1 else None,
        "torture": torture.read(measured),
    }  # fmt: skip
    return render("scaling.md.j2", "scaling: one suite on many GPUs", headline, content).write(out)


def _row(name: str, plan: Plan, gpus: int) -> dict[str, Any]:
    """A line of the table: undisturbed, and with a node lost every hour."""
    outcome, undisturbed = simulate(plan, gpus), simulate(plan, gpus, failures_an_hour=1e-9)
    return {
        "device": name,
        "gpus": gpus,
        "hours": plan.seconds(gpus) / 3600,
        "efficiency": plan.efficiency(gpus),
        "gigabytes": plan.bytes_moved / 1e9,
        "failures": outcome.failures,
        "made_again": outcome.again,
        "hours_with_failures": outcome.seconds / 3600,
        "loss": outcome.seconds / undisturbed.seconds - 1,
    }


def _headline(rows: Sequence[dict[str, Any]], empty: Empty) -> str:
    one, many = rows[0], rows[len(GPUS) - 1]
    return (
        f"an FID on 50,000 images of ten configurations takes {one['hours']:.0f} h on one GPU of the original"
        f" specification and {many['hours']:.1f} h on {many['gpus']}, at {many['efficiency']:.0%} efficiency;"
        f" the driver spends {1000 * empty.each:.1f} ms on a shard (projected from that and from the"
        " published time an image, not measured on such a cluster)."
    )
