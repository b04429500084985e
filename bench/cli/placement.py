"""Where a command runs: the options of a placement, and the placement that they name."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from bench.errors import BadInput

if TYPE_CHECKING:  # which loads torch
    from bench.run.placement import Placement

PLACES = ("local", "ray")
# Of `ray[default]`, what Ray's dashboard needs; others install the first of them too.
SERVED_BY = ("aiohttp", "aiohttp_cors", "opencensus", "prometheus_client")
On = Annotated[
    str,
    typer.Option(
        "--on",
        help="Place to run: local, this machine, or ray, the cluster of RAY_ADDRESS, else one started here.",
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(min=1, help="Number of workers on Ray, at most.", show_default="one a GPU, or a CPU core"),
]
DeviceKind = Annotated[
    str | None,
    typer.Option(
        help="Kind of device to run on, where a cluster's nodes differ: a machine as records name it, or the"
        " node's label device-kind.",
        show_default="the only one",
    ),
]
Dashboard = Annotated[
    bool,
    typer.Option(
        "--dashboard",
        help="Show Ray's dashboard of a cluster started here, at 127.0.0.1:8265 or the next free port.",
    ),
]


@contextmanager
def placement(
    on: str, workers: int | None = None, device_kind: str | None = None, dashboard: bool = False
) -> Iterator[Placement]:
    """Open the place that `--on` names.

    Args:
        on: "local" or "ray".
        workers: at most so many workers on Ray; None: one a GPU, or a CPU core.
        device_kind: the kind of device to run on; None: the cluster's only one.
        dashboard: whether Ray's dashboard is shown.

    Yields:
        The placement, whose cluster ends with the body where it was started here.

    Raises:
        BadInput: there is no such place, an option is of another one, or no usable cluster is there.
    """
    if on not in PLACES:
        raise BadInput(f"--on: {on[:80]!r} is not allowed; allowed: {', '.join(PLACES)}")
    if on == "local":
        given = {"--workers": workers, "--device-kind": device_kind, "--dashboard": dashboard or None}
        if asked := [option for option, value in given.items() if value is not None]:
            raise BadInput(f"{asked[0]}: needs --on ray; allowed: --on ray, or none of these options")
        from bench.run.local import Local

        yield Local()
        return
    from bench.run.ray import placed

    if dashboard:
        _check_dashboard()
    with placed(workers, device_kind, dashboard) as cluster:
        if cluster.dashboard:
            typer.echo(f"dashboard: {cluster.dashboard}; the token that it asks for: ray get-auth-token")
        yield cluster


def _check_dashboard() -> None:
    """BadInput where Ray cannot show it: the plain `ray` of `dqar[cluster]` lacks what its server needs."""
    if os.environ.get("RAY_ADDRESS"):
        raise BadInput("--dashboard: RAY_ADDRESS names a cluster with its own; allowed: without RAY_ADDRESS")
    lacking = [name for name in SERVED_BY if importlib.util.find_spec(name) is None]
    if lacking:
        raise BadInput(
            f"--dashboard: {lacking[0]} is not installed; allowed: after `pip install 'ray[default]'`"
        )


@contextmanager
def trial_workers(on: str, workers: int | None, device_kind: str | None) -> Iterator[Placement | None]:
    """Open the place whose workers evaluate the trials of a search.

    Args:
        on: "local" or "ray".
        workers: as for `placement`.
        device_kind: as for `placement`.

    Yields:
        The placement; None for local, where the search evaluates its trials with the model that it holds.

    Raises:
        BadInput: as for `placement`.
    """
    with placement(on, workers, device_kind) as placed:
        yield None if on == "local" else placed
