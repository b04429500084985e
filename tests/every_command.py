"""Runs every command that writes, one after another in one process: `every_command.py SUITE MODEL`.

Prints a line for each, and exits 1 where one does not end as it should.
"""

from __future__ import annotations

import sys

from PIL import Image
from typer.testing import CliRunner

from bench.cli.main import app
from bench.report.plots import style


def commands(suite: str, model: str) -> list[list[str]]:
    """The command lines, on a suite and a model that take no time."""
    tiny, policy = ["--model", model, "--steps", "6"], "outputs/policy"
    return [
        ["run", suite], ["run", suite], ["report", suite], ["show", suite], ["list"], ["validate", "results"],
        ["compare", "results/local", "results/local"],
        ["report", "cost-xl", "--results", "results/published"],
        ["generate", *tiny, "--n", "2"], ["profile", suite, "half", "--repeats", "1"],
        ["signals", *tiny, "--images", "4"],
        ["policy", "trace", *tiny, "--trajectories", "3", "--finals", "3"],
        ["policy", "train"], ["policy", "train", "--out", policy],
        ["policy", "eval", *tiny, "--n", "2", "--targets", "0.2", "--policy", policy], ["asv", "html"],
    ]  # fmt: skip


def main() -> int:
    """Run them."""
    style._drawn = lambda figure: Image.new("RGB", (8, 8))  # where plots are written is asked for, not what
    failed = False
    for line in commands(*sys.argv[1:]):
        done = CliRunner().invoke(app, line)
        failed |= done.exit_code != 0
        sys.stdout.write(f"{line[:2]} {done.exit_code} {done.output[-500:] if done.exit_code else ''}\n")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
