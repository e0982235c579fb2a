"""Nodes and actor pools of a cluster while a job ran: how they grew, and what they cost.

Read from the tables of the head node (GCS) at the job's end, so nothing is sampled meanwhile.
"""

import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ampere.cluster import cluster_address

MS = 1000.0  # per second, in the tables
ACTOR_CLASS = "MapWorker("  # how Ray Data names the class of a pool's actors
WORK = re.compile(r"MapBatches\((\w+)\)")  # what such an actor does, in that name

Lifetime = tuple[float, float]  # seconds since the job's start, from and to


@dataclass(frozen=True)
class Ramp:
    """How many of a kind there were.

    Attributes:
        steps: seconds since the job's start, and how many from then on.
        seconds: of all together, within the job.
    """

    steps: list[tuple[float, int]]
    seconds: float

    @property
    def most(self) -> int:
        """The largest number."""
        return max((count for _, count in self.steps), default=0)

    @property
    def full_s(self) -> float:
        """When the largest number was first there, in seconds since the job's start."""
        return next((at for at, count in self.steps if count == self.most), 0.0)


@dataclass(frozen=True)
class ClusterUse:
    """The nodes with CPUs or GPUs, and the actors of each pool by the name of their class."""

    nodes: Ramp
    pools: dict[str, Ramp]

    def figures(self) -> dict[str, Any]:
        """The ramps as JSON-like values."""
        return {"nodes": _figures(self.nodes)} | {
            "pools": {name: _figures(ramp) for name, ramp in self.pools.items()}
        }

    def __str__(self) -> str:
        """In a line."""
        nodes = self.nodes
        parts = [
            f"cluster: {nodes.steps[0][1]} to {nodes.most} nodes in {nodes.full_s:.1f} s, "
            f"{nodes.seconds:,.0f} node-seconds"
        ]
        parts += [
            f"{name}: all of {pool.most} actors ready after {pool.full_s:.1f} s, "
            f"{pool.seconds:,.0f} actor-seconds"
            for name, pool in sorted(self.pools.items())
        ]
        return "; ".join(parts)


def cluster_use(started: float) -> ClusterUse | None:
    """The use of the cluster that this process is connected to.

    Args:
        started: seconds since the epoch, when the job began.

    Returns:
        None on a Ray of this machine alone, which has one node.
    """
    if cluster_address() is None:
        return None
    ended = time.time()
    pools: dict[str, list[Lifetime]] = {}
    for name, start, end in _actors():
        pools.setdefault(name, []).append(_within(start, end, started, ended))
    nodes = [_within(start, end, started, ended) for start, end in _nodes()]
    return ClusterUse(ramp(nodes), {name: ramp(actors) for name, actors in pools.items()})


def ramp(lifetimes: Iterable[Lifetime]) -> Ramp:
    """Count the lifetimes that overlap; those without a length are left out."""
    known = [(start, end) for start, end in lifetimes if end > start]
    changes: dict[float, int] = {0.0: 0}
    for start, end in known:
        changes[start] = changes.get(start, 0) + 1
        changes[end] = changes.get(end, 0) - 1
    steps, count = [], 0
    for at in sorted(changes):
        count += changes[at]
        steps.append((at, count))
    return Ramp(steps, sum(end - start for start, end in known))


def _figures(ramp: Ramp) -> dict[str, Any]:
    return {"steps": ramp.steps, "seconds": ramp.seconds, "most": ramp.most, "full_s": ramp.full_s}


def _within(start_ms: int, end_ms: int, started: float, ended: float) -> Lifetime:
    """A lifetime as a part of the job; an end of 0 is none yet."""
    end = min(end_ms / MS, ended) if end_ms else ended
    return max(0.0, start_ms / MS - started), end - started


def _nodes() -> list[tuple[int, int]]:
    """Start and end of the nodes that can work, in ms since the epoch."""
    from ray._private.worker import global_worker

    nodes = global_worker.gcs_client.get_all_node_info(timeout=30).values()
    return [
        (node.start_time_ms, node.end_time_ms)
        for node in nodes
        if node.resources_total.get("CPU") or node.resources_total.get("GPU")
    ]


def _actors() -> list[tuple[str, int, int]]:
    """Class, start and end of the actors of this job's pools, in ms since the epoch."""
    import ray
    from ray._private.state import state

    job = ray.get_runtime_context().get_job_id()
    found = []
    for actor in state.actor_table(None).values():
        is_of_pool = actor["ActorClassName"].startswith(ACTOR_CLASS)
        if is_of_pool and actor["JobID"] == job and actor["StartTime"]:
            name = "+".join(WORK.findall(actor["ActorClassName"]))
            found.append((name, actor["StartTime"], actor["EndTime"]))
    return found
