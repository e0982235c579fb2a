"""What the stages would take on a cluster: places for workers, wall time, GPU-hours, money.

Pure arithmetic on measured costs. It assumes that a core or GPU of the cluster is as fast as the
measured one, and that a stage's time falls with its number of workers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ampere.config.cluster_shape import Nodes, node_price
from ampere.pipeline.runner.pool_stats import HOUR_S
from ampere.workflows.planning.fit import StageCost


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What one worker of a stage reserves, and how many there may be.

    Attributes:
        cpus, gpus: of a worker.
        max_workers: of the stage's pool; None: as many as there is room for.
    """

    cpus: float
    gpus: float = 0.0
    max_workers: int | None = None


@dataclass(frozen=True, kw_only=True)
class Placement:
    """The workers of a stage on a cluster.

    Attributes:
        workers: how many run at once.
        nodes: number of used nodes by type.
        limit: what keeps their number from growing.
    """

    workers: int
    nodes: dict[str, int]
    limit: str


@dataclass(frozen=True, kw_only=True)
class StagePlan:
    """A predicted stage.

    Attributes:
        rows: that it processes.
        startup_s: of the wall time, before any row.
        seconds: wall time.
        rows_per_s: rows over the whole wall time.
        gpu_hours: reserved GPUs times wall time.
        cost: of the used nodes; None: a price is not known.
        limit: as of `Placement`.
    """

    stage: str
    rows: int
    workers: int
    nodes: dict[str, int]
    startup_s: float
    seconds: float
    rows_per_s: float
    gpu_hours: float
    cost: float | None
    limit: str


@dataclass(frozen=True, kw_only=True)
class ClusterPlan:
    """All predicted stages, one after another.

    Attributes:
        seconds, gpu_hours: sums.
        cost: sum, with the nodes without cores, which are paid all the time; None: not known.
        bottleneck: the stage with the longest wall time; empty without stages.
    """

    stages: list[StagePlan]
    seconds: float
    gpu_hours: float
    cost: float | None
    bottleneck: str


def place(stage: str, needs: Needs, shape: Sequence[Nodes]) -> Placement:
    """The workers of a stage: on nodes with GPUs if it needs them, else on those without.

    Raises:
        ValueError: no worker fits on any node.
    """
    types = [nodes for nodes in shape if bool(nodes.gpus) == bool(needs.gpus)]
    if not needs.gpus and not any(_room(nodes, needs) for nodes in types):
        types = list(shape)
    wanted, used, workers = needs.max_workers, {}, 0
    for nodes in types:
        room = _room(nodes, needs)
        if room and wanted != workers:
            places = room * nodes.count
            taken = places if wanted is None else min(places, wanted - workers)
            used[nodes.name] = -(-taken // room)
            workers += taken
    if not workers:
        gpus = f" and {needs.gpus:g} GPUs" if needs.gpus else ""
        raise ValueError(
            f"no node of --cluster has room for a worker of {stage}, which takes {needs.cpus:g} "
            f"cores{gpus}"
        )
    if workers == wanted:
        return Placement(workers=workers, nodes=used, limit=f"--{stage}.workers")
    what = "GPUs" if needs.gpus else "cores"
    return Placement(workers=workers, nodes=used, limit=f"{what} of {', '.join(used)}")


def _room(nodes: Nodes, needs: Needs) -> int:
    """Workers that fit on a node."""
    if not nodes.cores:
        return 0
    rooms = [
        int(there / reserved)
        for there, reserved in ((nodes.cores, needs.cpus), (nodes.gpus, needs.gpus))
        if reserved
    ]
    return min(rooms, default=0)


def predict_stage(
    stage: str,
    cost: StageCost,
    needs: Needs,
    samples: int,
    shape: Sequence[Nodes],
    prices: Mapping[str, float],
) -> StagePlan:
    """A stage over a catalog of some samples, on a cluster.

    Raises:
        ValueError: no worker fits on any node.
    """
    placement = place(stage, needs, shape)
    rows = round(samples * cost.share)
    seconds = cost.startup_s + rows * cost.worker_s / placement.workers
    hours = seconds / HOUR_S
    price = node_price(prices, placement.nodes)
    return StagePlan(
        stage=stage,
        rows=rows,
        workers=placement.workers,
        nodes=placement.nodes,
        startup_s=cost.startup_s,
        seconds=seconds,
        rows_per_s=rows / seconds,
        gpu_hours=hours * placement.workers * needs.gpus,
        cost=None if price is None else price * hours,
        limit=placement.limit,
    )


def add_up(
    stages: list[StagePlan], shape: Sequence[Nodes], prices: Mapping[str, float]
) -> ClusterPlan:
    """The stages one after another, as `ampere run` runs them."""
    seconds = sum(stage.seconds for stage in stages)
    idle = node_price(prices, {nodes.name: nodes.count for nodes in shape if not nodes.cores})
    costs = [stage.cost for stage in stages]
    known = [cost for cost in costs if cost is not None]
    is_known = idle is not None and len(known) == len(costs)
    return ClusterPlan(
        stages=stages,
        seconds=seconds,
        gpu_hours=sum(stage.gpu_hours for stage in stages),
        cost=sum(known) + (idle or 0.0) * seconds / HOUR_S if is_known else None,
        bottleneck=max(stages, key=lambda stage: stage.seconds).stage if stages else "",
    )
