"""The nodes of a Ray cluster: connecting to it, what kind of device each has, and which of them are used."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from typing import Any, NamedTuple

from bench.errors import BadInput, listed
from bench.machine import provenance
from dqar.utils.extras import imported

LABEL = "device-kind"  # of a node: its kind, where the hardware's name does not show it
OBJECTS = 100 * 2**20  # bytes of a local object store: what shards return is a few MB
# Not sent to the nodes: results, what is installed there, and what no worker needs.
EXCLUDED = [".git", ".venv", "results", "reports", "outputs", "tests", ".asv", ".mypy_cache", ".ruff_cache",
            ".pytest_cache", ".mutants", "**/__pycache__"]  # fmt: skip
PROBE_S = 120.0
JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # in a job of `ray job submit`


class Node(NamedTuple):
    """A node that is there."""

    id: str
    kind: str  # what `--device-kind` names
    machine: str  # as records have it
    cpus: int
    gpus: int
    packages: dict[str, str]


def connect(workers: int | None, dashboard: bool) -> str:
    """Connect to the cluster of RAY_ADDRESS, or start one on this machine that only this machine reaches.

    Args:
        workers: number of workers wanted; a cluster that is started here has room for them. None: one a core.
        dashboard: whether a cluster that is started here shows Ray's dashboard, on the loopback.

    Returns:
        The address of that dashboard; empty: none was asked for.

    Raises:
        BadInput: Ray is not installed, there is no cluster at that address, or it asks for another token.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    address = os.environ.get("RAY_ADDRESS")
    if not address:
        # Without it its servers listen on all interfaces, on Linux.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
        os.environ.setdefault("RAY_worker_niceness", "0")  # what is timed is as urgent as without Ray
    # Not before: it reads these then.
    try:
        ray = imported("ray", "cluster")
    except ValueError as error:
        raise BadInput(f"--on: {error}") from error
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if not address:
        cpus = max(provenance.cores(), workers or 0)
        options |= {"object_store_memory": OBJECTS, "include_dashboard": dashboard}
        url = ray.init("local", num_cpus=cpus, **options).dashboard_url
        return f"http://{url}" if dashboard and url else ""
    try:
        ray.init(address, **options)
        # Elsewhere it is installed on the nodes, as here; a job that was submitted has brought its code.
        checkout = (provenance.ROOT / "pyproject.toml").exists() and JOB not in os.environ
        if checkout and any(node["NodeManagerHostname"] != socket.gethostname() for node in ray.nodes()):
            ray.shutdown()
            code = {"working_dir": str(provenance.ROOT), "excludes": EXCLUDED}
            ray.init(address, runtime_env=code, **options)
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        why = " ".join(str(error).split())[:160]
        allowed = "the address of a running one, with its token (RAY_AUTH_TOKEN) where it has one"
        raise BadInput(f"RAY_ADDRESS: no cluster: {why}; allowed: {allowed}") from error
    return ""


class Nodes:
    """Those nodes of the cluster whose devices are of one kind.

    Args:
        kind: the kind of device; None: the one that all nodes have.
    """

    def __init__(self, kind: str | None) -> None:
        self.known: dict[str, Node] = {}
        self.kind = _chosen(self._all(), kind)

    def alive(self) -> list[Node]:
        """List the nodes of the kind that are there now.

        Returns:
            The nodes; one of another kind that has joined is left aside.
        """
        return [node for node in self._all() if node.kind == self.kind]

    def _all(self) -> list[Node]:
        import ray

        alive = [node for node in ray.nodes() if node["Alive"]]
        asked = {n["NodeID"]: _ask(n["NodeID"]) for n in alive if n["NodeID"] not in self.known}
        for node in alive:
            if (reference := asked.get(node["NodeID"])) and (probed := _reported(node, reference)):
                self.known[node["NodeID"]] = probed
        return [self.known[n["NodeID"]] for n in alive if n["NodeID"] in self.known]


def _chosen(nodes: Sequence[Node], kind: str | None) -> str:
    """The kind of device that is used: that of the GPUs, where there are any.

    Raises:
        BadInput: there are several and none is named, or the one named is not there.
    """
    with_gpus = [node for node in nodes if node.gpus]
    kinds = sorted({node.kind for node in with_gpus or nodes if node.cpus or node.gpus})
    if kind is not None and kind not in {node.kind for node in nodes}:
        raise BadInput(f"--device-kind: {kind[:80]!r} is not allowed; allowed: {listed(kinds)}")
    if kind is None and len(kinds) != 1:
        raise BadInput(
            f"--device-kind: needed on a cluster of {len(kinds)} kinds of devices; allowed: {listed(kinds)}"
        )
    return kind or kinds[0]


def _ask(node: str) -> Any:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    strategy = NodeAffinitySchedulingStrategy(node, soft=False)
    return ray.remote(_facts).options(num_cpus=0, scheduling_strategy=strategy).remote()


def _facts() -> tuple[str, dict[str, str]]:
    return provenance.machine(), provenance.versions()


def _reported(node: dict[str, Any], reference: Any) -> Node | None:
    """What a node answers; None where it is gone before it does."""
    import ray

    try:
        machine, packages = ray.get(reference, timeout=PROBE_S)
    except ray.exceptions.RayError:
        return None
    resources, label = node["Resources"], node.get("Labels", {}).get(LABEL)
    cpus, gpus = (int(resources.get(name, 0)) for name in ("CPU", "GPU"))
    return Node(node["NodeID"], label or machine, machine, cpus, gpus, packages)
